# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "jax>=0.8", "matplotlib>=3.8.4", "numpy", "optax>=0.2.2"]
# ///
r"""
When do Polyak and Armijo steps converge?
=========================================
What stops Polyak and Armijo from converging: label noise, or too few parameters? Both
choose a step as if the minibatch were all the data. This is safe if the model can
*interpolate*, which is to fit every label. Here, 400 parameters can, and 50 cannot.
Five solvers run on least squares, with 200 examples and minibatches of 10:

- :func:`Polyak <optax.polyak_sgd>` has the step size :math:`f / \|\nabla f\|^2`, where
  :math:`f` is the loss of the minibatch [1]_;
- :func:`Armijo <optax.scale_by_backtracking_linesearch>` tries step sizes until the
  minibatch's loss falls by enough [2]_;
- DecSPS is a Polyak step that shrinks over time [3]_;
- :func:`SGD <optax.sgd>` has a constant step size, or one that decays.

.. admonition:: In short

   - **Too few parameters stop Polyak and Armijo. Label noise alone does not.** With 400
     parameters, both come within 1e-9 of the least loss. With 50, both stall: their
     gaps to it start near 0.2 and end at 0.1 to 0.3.
   - **DecSPS repairs this.** With 50 parameters, its gap ends below 0.003. That is less
     than a fiftieth of the gaps of Polyak and Armijo.
   - **The repair has a price.** With 400 parameters, the gap of DecSPS ends above 0.02,
     and that of constant SGD below 0.001.

All numbers are medians over five random data sets (seeds). A network may differ.

**Figure:** gap to the least loss, for 400 parameters (top) and 50 parameters (bottom),
and for labels without noise (left) and with noise (right). Lines are medians over five
seeds, and bands hold the middle half of them.
"""

# %%
# Imports
# -------
# ``uv run`` installs the packages that the first lines of the script list.
import os
import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from absl import flags


# %%
# Solvers
# -------
# Optax has no DecSPS. At step :math:`k`, counted from 0, DecSPS divides the smallest
# Polyak ratio :math:`f / \|\nabla f\|^2` so far by :math:`\sqrt{k + 1}`. If the
# gradient is zero, this ratio is NaN, and ``fmin`` keeps the last one. :doc:`How do I
# write my own step-size rule in Optax? <plot_own_rule>` explains the code.
class DecSPSState(NamedTuple):
    """The number of steps so far, the smallest ratio so far, and the last step size."""

    count: jax.Array
    ratio: jax.Array
    learning_rate: jax.Array


def dec_sps(cap):
    """Return DecSPS with step sizes of at most ``cap``, for losses of at least zero."""

    def init(params):
        start = jnp.array(cap, optax.tree.dtype(params, "highest"))
        return DecSPSState(jnp.array(0), start, start)

    def update(updates, state, params=None, *, value, grad, **_):
        ratio = jnp.fmin(value / optax.tree.norm(grad, squared=True), state.ratio)
        stepsize = ratio / jnp.sqrt(state.count + 1)
        new = DecSPSState(state.count + 1, ratio, stepsize)
        steps = optax.tree.scale(-stepsize, updates)
        return optax.tree.cast_like(steps, updates), optax.tree.cast_like(new, state)

    return optax.GradientTransformationExtraArgs(init, update)


def sgd_with_decay(smoothness):
    """Return SGD whose step size shrinks from 1 / ``smoothness``."""
    return optax.sgd(lambda step: 1 / (smoothness * jnp.sqrt(step + 1)))


# %%
# Entries make a solver from ``smoothness``, the largest squared norm of an example's
# features. Only SGD uses it. The cap, 1, is the largest step size that a solver may
# take. No step reaches the cap. Polyak with a cap is SPS_max in [1]_. The line search
# demands half of the decrease that the gradient predicts.
LIMITS = {"max_backtracking_steps": 30, "slope_rtol": 0.5}
LINE_SEARCH = optax.scale_by_backtracking_linesearch(**LIMITS)
SOLVERS = {
    "Polyak": lambda smoothness: optax.polyak_sgd(max_learning_rate=1.0),
    "Armijo": lambda smoothness: optax.chain(optax.sgd(1.0), LINE_SEARCH),
    "DecSPS": lambda smoothness: dec_sps(cap=1.0),
    "SGD": lambda smoothness: optax.sgd(1 / smoothness),
    "SGD with decay": sgd_with_decay,
}


# %%
# Training
# --------
# All solvers share one loop. The loop offers the gradient, the loss (for Polyak and
# DecSPS) and the loss as a function (for Armijo). Each solver uses those that it needs.
# The *gap* is the loss on all data minus the least possible loss. The gap is recorded
# before steps 0, 40, ..., 4000.
RECORD_EVERY = 40


@partial(jax.jit, static_argnums=0)
def record_gaps(make_solver, features, labels, indices):
    """Return the gaps of a run; ``indices`` has a row of examples for each step."""
    smoothness = jnp.max(jnp.sum(features**2, axis=1))
    solver = optax.with_extra_args_support(make_solver(smoothness))

    def step(carry, rows):
        params, state = carry
        loss = partial(mean_square, features=features[rows], labels=labels[rows])
        value, grad = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grad, "value_fn": loss}
        updates, state = solver.update(grad, state, params, **extra)
        return (optax.apply_updates(params, updates), state), params

    start = jnp.zeros(features.shape[1])
    _, path = jax.lax.scan(step, (start, solver.init(start)), indices)
    loss_at = jax.vmap(mean_square, in_axes=(0, None, None))
    losses = loss_at(path[::RECORD_EVERY], features, labels)
    return losses - least_loss(features, labels)


# %%
# Model and loss
# --------------
# The model is linear, and its loss is half the mean square of the residuals.
def mean_square(params, features, labels):
    """Return half the mean square of the residuals."""
    return optax.losses.l2_loss(features @ params, labels).mean()


def least_loss(features, labels):
    """Return the smallest loss that any parameters have."""
    params, *_ = jnp.linalg.lstsq(features, labels)
    return mean_square(params, features, labels)


# %%
# Data
# ----
# There are 200 examples with 400 features. Labels are a linear function of the
# features, with or without noise. A model with all 400 features can interpolate the
# labels. A model with only the first 50 features cannot.
def draw_data(settings, seed):
    """Return features (200, 400), labels (200,), and the same labels with noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(200, 400))
    weights = rng.normal(size=settings.num_relevant) / settings.num_relevant**0.5
    labels = features[:, : settings.num_relevant] @ weights
    return features, labels, labels + settings.noise * rng.normal(size=200)


def make_problems(settings):
    """Return {title: (features, labels)}; both have an entry for each seed."""
    data = [draw_data(settings, seed) for seed in range(settings.num_seeds)]
    features = np.stack([features for features, _, _ in data])
    clean = np.stack([labels for _, labels, _ in data])
    noisy = np.stack([labels for _, _, labels in data])
    return {
        "400 parameters, no noise": (features, clean),
        "400 parameters, label noise": (features, noisy),
        "50 parameters, no noise": (features[:, :, :50], clean),
        "50 parameters, label noise": (features[:, :, :50], noisy),
    }


def draw_indices(settings, seed):
    """Return the examples of each minibatch, (maxiter + 1, batch_size)."""
    size = settings.maxiter + 1, settings.batch_size
    return np.random.default_rng([seed, 1]).integers(200, size=size)


# %%
# Settings
# --------
# Flags change the settings, as in ``--num_seeds=1``, and ``--help`` lists all flags.
def parse_flags(argv):
    """Return the settings in ``argv``; exit with one line if one of them is wrong."""
    settings = flags.FlagValues()
    integer = partial(flags.DEFINE_integer, flag_values=settings)
    number = partial(flags.DEFINE_float, flag_values=settings)
    integer("num_seeds", 5, "random data sets, with minibatches of their own", 1, 20)
    integer("maxiter", 4_000, "last step, counted from 0", 0, 20_000)
    integer("batch_size", 10, "examples in a minibatch", 1, 200)
    integer("num_relevant", 400, "features that labels depend on", 1, 400)
    number("noise", 0.5, "standard deviation of the noise in labels", 0, 1e3)
    return read_flags(settings, argv)


def read_flags(settings, argv):
    """Return ``settings`` with the values in ``argv``; exit if one of them is wrong."""
    if {"-h", "--help"} & set(argv):
        print(settings)
        sys.exit()
    try:
        words = settings(argv)[1:]
    except flags.Error as error:
        sys.exit(f"{error} (see --help)")
    if words:
        sys.exit(f"unexpected argument {words[0]} (see --help)")
    for name, value in settings.flag_values_dict().items():
        if isinstance(value, float) and np.isnan(value):
            sys.exit(f"flag --{name}=nan is not a number (see --help)")
    return settings


# %%
# Tables and figure
# -----------------
# The table has the last gap that the figure shows.
def print_gaps(results, least_losses):
    """Print a row for each solver, from {title: {solver: gaps}}."""
    print("Final gap of each solver, and least loss (medians over seeds):")
    print("                       400          400          50           50")
    print("                parameters   parameters  parameters   parameters")
    print("solver            no noise  label noise    no noise  label noise")
    print("--------------  ----------  -----------  ----------  -----------")
    for name in SOLVERS:
        last = [np.median(gaps[name][:, -1]) for gaps in results.values()]
        print(f"{name:14}" + ("{:12.1e}{:13.1e}" * 2).format(*last))
    print("least loss    " + ("{:12.3f}{:13.3f}" * 2).format(*least_losses.values()))


# %%
# A solver has the same colour and dashes on all pages.
STYLES = {
    "Polyak": {"color": "#0072b2", "linestyle": "-"},
    "Armijo": {"color": "#009e73", "linestyle": "--"},
    "DecSPS": {"color": "#000000", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    "SGD": {"color": "#cc79a7", "linestyle": ":"},
    "SGD with decay": {"color": "#aa4499", "linestyle": (0, (8, 2, 1, 2))},
}


def plot_band(ax, x, rows, **style):
    """Plot the median of ``rows`` (seeds, points), and a band between quartiles."""
    lower, median, upper = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    ax.plot(x, median, **style)
    ax.fill_between(x, lower, upper, color=style["color"], alpha=0.2, linewidth=0)


# %%
# Each problem has a panel.
def plot_gaps(results):
    """Plot {title: {solver: gaps (seeds, points)}}, a panel for each problem."""
    options = {"sharex": True, "sharey": "row", "layout": "constrained"}
    fig, axes = plt.subplots(2, 2, figsize=(6.6, 5), **options)
    for ax, (title, gaps) in zip(axes.flat, results.items(), strict=True):
        for name, rows in gaps.items():
            steps = RECORD_EVERY * np.arange(rows.shape[1])
            plot_band(ax, steps, rows, label=name, **STYLES[name])
        ax.set(title=title, yscale="log")
    for i in range(2):
        axes[1, i].set(xlabel="iteration")
        axes[i, 0].set(ylabel="gap")
    fig.suptitle("Gaps of five solvers on four least-squares problems")
    options = {"loc": "outside lower center", "ncols": 3, "handlelength": 3}
    fig.legend(handles=axes[0, 0].lines, **options)


# %%
# Without a display, the figure becomes a file.
def run_main(main, argv):
    """Call ``main(argv)``, then show its figure; exit with one line if that fails."""
    try:
        jax.devices()  # fails before the data is read, which takes longer
    except (AssertionError, RuntimeError) as error:
        name = jax.config.jax_platforms
        sys.exit(f"JAX_PLATFORMS={name} finds no device, try cpu: {error!r:.200}")
    try:
        main(argv)
        plt.show()
        if plt.get_fignums() and not plt.isinteractive():  # no window was shown
            file = os.path.abspath(f"{plt.gcf().get_suptitle()}.png")
            plt.savefig(file)
            print(f"There is no display. The figure is in {file}", file=sys.stderr)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit("Interrupted")
    except BrokenPipeError:  # the reader of the pipe is gone, as after ``| head``
        os._exit(1)
    except OSError as error:
        sys.exit(str(error))


# In a notebook, the arguments are for its kernel, so the defaults hold.
ARGV = sys.argv[:1] if "get_ipython" in globals() else sys.argv


# %%
# Five solvers, four problems
# ---------------------------
# All solvers and problems get the same minibatches. ``vmap`` runs all seeds at once.
# Single precision cannot show gaps below 1e-9, so the page uses double precision.
def main(argv):
    """Run every solver on every problem; return {title: {solver: gaps}}."""
    settings = parse_flags(argv)
    seeds = range(settings.num_seeds)
    indices = np.stack([draw_indices(settings, seed) for seed in seeds])
    results, least_losses = {}, {}
    with jax.enable_x64(True):
        for title, problem in make_problems(settings).items():
            least_losses[title] = np.median(jax.vmap(least_loss)(*problem))
            results[title] = {}
            for name, make_solver in SOLVERS.items():
                run_seeds = jax.vmap(partial(record_gaps, make_solver))
                results[title][name] = np.array(run_seeds(*problem, indices))
    print_gaps(results, least_losses)
    plot_gaps(results)
    return results


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# **With 400 parameters, noise is no obstacle.** There are more parameters than labels,
# so the least loss is zero. The gaps of Polyak and Armijo shrink exponentially, below
# 1e-9. Constant SGD stays above 1e-5.
#
# **With 50 parameters, minibatches disagree.** Each minibatch alone can reach a loss of
# zero, because it has 10 labels and 50 parameters. Different minibatches need different
# parameters. For Polyak, theory promises no more than a neighbourhood of the solution,
# which grows with the difference between the least loss of all data and the average
# least loss of the minibatches [1]_. The least loss of all data is above 0.3, and that
# of each minibatch is 0. Constant SGD ends closer than Polyak and Armijo, near 0.01.
#
# **Enough for one kind of label is too few for another.** With ``--num_relevant=50``,
# labels depend only on 50 features. With 50 parameters, the gaps of Polyak and Armijo
# then end below 1e-14 without noise, and above 0.01 with noise.
#
# **Armijo's gap depends on a setting.** Here, the line search demands half of the
# decrease that the gradient predicts. With 50 parameters, a demand of a tenth lets the
# gap end at 0.6 to 1.2. A demand of nine tenths lets it end at 0.02 to 0.05, but with
# 400 parameters the gap is then only down to 1e-6.
#
# **A limitation:** this page has one model (linear) and one noise level (0.5).
#
# **Next:** :doc:`How wrong can my step size be? <plot_stepsize_sensitivity>` compares
# Polyak and Armijo with other solvers on a network. :doc:`Moving from JAXopt to Optax
# <plot_jaxopt_to_optax>` has both in two libraries. With ``--batch_size=100`` and 50
# parameters, Armijo's gap is less than half as large, and Polyak's again 0.1 to 0.2:
# :doc:`Does a larger batch repair my step size? <plot_batch_size>` measures more sizes.
#
# .. rubric:: References
#
# .. [1] Loizou et al., 2021, `arXiv:2002.10542 <https://arxiv.org/abs/2002.10542>`__.
# .. [2] Vaswani et al., 2019, `arXiv:1905.09997 <https://arxiv.org/abs/1905.09997>`__.
# .. [3] Orvieto et al., 2022, `OpenReview <https://openreview.net/forum?id=lUyAaz-iA4u>`__.
