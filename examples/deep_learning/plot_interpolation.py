# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "jax>=0.8", "matplotlib>=3.8.4", "numpy", "optax>=0.2.2"]
# ///
r"""
When do Polyak and Armijo steps converge?
=========================================
A Polyak step acts as if the minibatch were all the data: it steps to where the loss *of
the minibatch* would be zero if it were linear. This is safe if some parameters give
every minibatch a loss of zero. Such a model is said to *interpolate* its labels. Is it
label noise that prevents this, or a lack of parameters? We try five solvers on four
least-squares problems:

- :func:`SPS_max <optax.polyak_sgd>`, the Polyak step :math:`f / \|\nabla f\|^2`, up to
  a cap [1]_;
- :func:`Armijo <optax.scale_by_backtracking_linesearch>`, a line search on the
  minibatch [2]_;
- DecSPS, a Polyak step that shrinks over time [3]_, which this page implements;
- :func:`SGD <optax.sgd>` with a constant step size, and with one that shrinks.

Least squares is a simple problem that can be interpolated or not. It is not a network.
"""

# %%
# Settings
# --------
# As on :doc:`the first page <plot_sgd_solvers>`, settings are flags of the script.
import os
import sys
from functools import partial
from pathlib import Path

from absl import flags

FLAGS = flags.FlagValues()
number = partial(flags.DEFINE_float, flag_values=FLAGS)
integer = partial(flags.DEFINE_integer, flag_values=FLAGS)
_ = integer("num_seeds", 5, "data sets, each with minibatches of its own", 1, 20)
_ = integer("maxiter", 4_000, "last iteration, counted from 0", 0, 20_000)
_ = integer("batch_size", 10, "examples in a minibatch", 1, 200)
_ = integer("num_relevant", 400, "features that labels depend on", 1, 400)
_ = number("noise", 0.5, "standard deviation of the noise in labels", 0, 1e3)


# %%
# In a notebook, ``sys.argv`` belongs to Jupyter, so the defaults are used. To change a
# setting there, edit its default above.
def parse(argv):
    """Return the settings in ``argv``, or exit with one line on what is wrong."""
    FLAGS.unparse_flags()
    if {"-h", "--help"} & {*argv}:
        sys.exit(print(FLAGS))
    try:
        wrong = [f"unexpected argument {word}" for word in FLAGS(argv)[1:]]
        values = FLAGS.flag_values_dict().items()
        wrong += [f"flag --{name}=nan is not a number" for name, x in values if x != x]
    except flags.Error as error:
        wrong = [error]
    return sys.exit(f"{wrong[0]} (see --help)") if wrong else FLAGS


ARGV = sys.argv[:1] if "get_ipython" in globals() else sys.argv
if __name__ == "__main__":
    parse(ARGV)

from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax


# %%
# Data
# ----
# There are 200 examples with 400 features. Labels are a linear function of the
# features, with or without noise. A model with all 400 features can interpolate them; a
# model with only the first 50 cannot.
def draw_data(settings, seed):
    """Return features (200, 400), labels (200,), and the same labels with noise."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(200, 400))
    weights = random.normal(size=settings.num_relevant) / settings.num_relevant**0.5
    labels = features[:, : settings.num_relevant] @ weights
    return features, labels, labels + settings.noise * random.normal(size=200)


def make_problems(settings):
    """Return {title: (features (seeds, 200, parameters), labels (seeds, 200))}.

    The panels of a row have a model, those of a column have labels in common.
    """
    data = [draw_data(settings, seed) for seed in range(settings.num_seeds)]
    features, clean, noisy = map(np.stack, zip(*data, strict=True))
    return {
        f"{size} parameters, {noise}": (features[..., :size], labels)
        for size in (400, 50)
        for noise, labels in (("no noise", clean), ("label noise", noisy))
    }


# %%
# Minibatches are rows of the data, the same for every solver and every problem.
def draw_rows(settings, seed):
    """Return the rows of each minibatch, (maxiter + 1, batch_size)."""
    size = settings.maxiter + 1, settings.batch_size
    return np.random.default_rng([seed, 1]).integers(200, size=size)


def mean_square(params, features, labels):
    """Return half the mean square of the residuals."""
    return optax.losses.l2_loss(features @ params, labels).mean()


# %%
# Solvers
# -------
# At step :math:`k`, DecSPS divides the smallest Polyak ratio so far by
# :math:`\sqrt{k + 1}`. As a transformation of Optax:
class DecSPSState(NamedTuple):
    """The number of steps made, and the smallest ratio so far."""

    count: jax.Array
    ratio: jax.Array


def dec_sps(cap):
    """Return DecSPS, for losses of at least zero, as a transformation.

    Its step sizes are min{f / ||g||^2, c_{k-1} gamma_{k-1}} / c_k (Orvieto et al. 2022,
    with c_k = sqrt(k + 1)), of which the first is at most ``cap``: c_k gamma_k is the
    smallest ratio up to step k.
    """

    def init(params):
        return DecSPSState(jnp.array(0), jnp.array(cap, params.dtype))

    def update(updates, state, params=None, *, value, **_):
        # A zero loss and gradient divide to NaN, which fmin passes over.
        ratio = jnp.fmin(value / jnp.sum(updates**2), state.ratio)
        stepsize = ratio / jnp.sqrt(state.count + 1)
        return -stepsize * updates, DecSPSState(state.count + 1, ratio)

    return optax.GradientTransformationExtraArgs(init, update)


# %%
# Each entry makes a solver from :math:`L`, the largest smoothness constant of any
# example. Only SGD uses :math:`L`. The caps are too large to matter. The line search
# demands half the decrease that the gradient predicts, as in its theory.
SEARCH = partial(optax.scale_by_backtracking_linesearch, 30, slope_rtol=0.5)
METHODS = {
    "SPS_max": lambda smoothness: optax.polyak_sgd(max_learning_rate=1.0),
    "Armijo": lambda smoothness: optax.chain(optax.sgd(1.0), SEARCH()),
    "DecSPS": lambda smoothness: dec_sps(1.0),
    "SGD 1/L": lambda smoothness: optax.sgd(1 / smoothness),
    "SGD 1/(L sqrt k)": lambda smoothness: optax.sgd(
        lambda step: 1 / (smoothness * jnp.sqrt(step + 1))
    ),
}


# %%
# Training
# --------
# A run is one ``scan``. The *gap* is the loss on all data minus the least possible
# loss.
@partial(jax.jit, static_argnums=0)
def gaps(make, features, labels, rows):
    """Return the gaps before every fortieth step, (points,), and the least loss.

    Shapes: ``features`` (200, parameters), ``labels`` (200,), and ``rows``
    (maxiter + 1, batch_size).
    """
    smoothness = jnp.max(jnp.sum(features**2, axis=1))
    solver = optax.with_extra_args_support(make(smoothness))

    def step(carry, rows):
        params, state = carry
        fun = partial(mean_square, features=features[rows], labels=labels[rows])
        value, grad = jax.value_and_grad(fun)(params)
        # Each solver takes of these what it needs.
        extra = {"value": value, "grad": grad, "value_fn": fun}
        updates, state = solver.update(grad, state, params, **extra)
        return (optax.apply_updates(params, updates), state), params

    start = jnp.zeros(features.shape[1])
    _, path = jax.lax.scan(step, (start, solver.init(start)), rows)
    losses = jax.vmap(mean_square, (0, None, None))(path[::40], features, labels)
    least = mean_square(jnp.linalg.lstsq(features, labels)[0], features, labels)
    return losses - least, least


# %%
# Results
# -------
def print_gaps(title, least, curves):
    """Print the last gaps of {name: gaps (seeds, points)}."""
    print(f"{title}: least loss {np.median(least):.3f}")
    for name, series in curves.items():
        low, mid, high = np.quantile(series[:, -1], [0, 0.5, 1])
        print(f"  {name:18} last gap {mid:.1e} ({low:.1e} to {high:.1e})")
    print()


# %%
# Figure
# ------
# Lines are medians over seeds, and bands run from the lowest seed to the highest.
# Okabe and Ito's palette, which is readable with colour-vision deficiencies.
COLORS = "#0072b2", "#009e73", "#d55e00", "#cc79a7", "black"
DASHES = "-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))


def plot_panel(ax, title, curves):
    """Draw {name: gaps (seeds, points)} on ``ax``."""
    for i, (name, series) in enumerate(curves.items()):
        low, mid, high = np.quantile(series, [0, 0.5, 1], axis=0)
        steps, color = 40 * np.arange(len(mid)), COLORS[i]
        ax.plot(steps, mid, color=color, linestyle=DASHES[i], label=name)
        ax.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    ax.set(title=title, yscale="log")


def plot_gaps(results):
    """Draw {title: {name: gaps (seeds, points)}}, a panel each."""
    options = {"sharex": True, "sharey": "row", "layout": "constrained"}
    fig, axes = plt.subplots(2, 2, figsize=(6.6, 6.4), **options)
    for ax, (title, curves) in zip(axes.flat, results.items(), strict=True):
        plot_panel(ax, title, curves)
    for ax in axes[1]:
        ax.set(xlabel="iteration")
    for ax in axes[:, 0]:
        ax.set(ylabel="gap")
    fig.suptitle("Gaps of five solvers on four least-squares problems")
    fig.legend(handles=ax.lines, loc="outside lower center", ncols=3)


# %%
# Without a display, the figure becomes a file.
def run_main(main, argv):
    """Call ``main(argv)``, then show its figure; exit with one line if that fails."""
    try:
        jax.devices()  # before data is read, which takes longer
    except (AssertionError, RuntimeError) as error:
        name = jax.config.jax_platforms
        sys.exit(f"JAX_PLATFORMS={name} finds no device, try cpu: {error!r:.200}")
    try:
        main(argv)
        plt.show()
        if plt.get_fignums() and not plt.isinteractive():  # nobody closed a window
            file = Path(f"{plt.gcf().get_suptitle()}.png").resolve()
            plt.savefig(file)
            print(f"There is no display. The figure is in {file}", file=sys.stderr)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit("Interrupted")
    except BrokenPipeError:  # nobody reads on, as after ``| head``
        os._exit(1)
    except OSError as error:
        sys.exit(str(error))


# %%
# Some gaps shrink below :math:`10^{-9}`, which takes double precision. ``vmap`` runs
# all seeds at once.
def main(argv):
    """Solve every problem with every solver; return {title: {name: gaps}}."""
    settings, results = parse(argv), {}
    rows = np.stack([draw_rows(settings, seed) for seed in range(settings.num_seeds)])
    with jax.enable_x64(True):
        for title, problem in make_problems(settings).items():
            runs = {
                name: jax.vmap(partial(gaps, make))(*problem, rows)
                for name, make in METHODS.items()
            }
            least = runs["SPS_max"][1]
            results[title] = {name: np.array(run[0]) for name, run in runs.items()}
            print_gaps(title, least, results[title])
    plot_gaps(results)
    return results


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# Too few parameters stop Polyak and Armijo. With enough parameters, label noise does
# not. With 400 parameters the least loss is zero, with or without noise. The gaps of
# both rules shrink exponentially, below :math:`10^{-9}`, while constant SGD ends above
# :math:`10^{-5}`. With 50 parameters, minibatches disagree, and both rules stall near
# the gap from which they started. Polyak also assumes that the loss of each minibatch
# can reach zero. With 10 labels and 50 parameters it can, but not for all minibatches
# at the same parameters. Theory promises convergence only to a neighbourhood of the
# solution. Its size grows with the difference between the least loss of all data and
# the average least loss of the minibatches [1]_ [2]_.
#
# DecSPS fixes this: its median gap ends more than fifty times below those of Polyak and
# Armijo, and below those of both kinds of SGD. The fix has a price: where a model does
# interpolate, DecSPS is slower than constant SGD, so you have to know which case you
# are in.
#
# Whether 50 parameters are too few depends on the labels. With ``--num_relevant=50``,
# the labels depend only on the first 50 features. Then 50 parameters are enough, but
# only without noise.
#
# .. rubric:: References
#
# .. [1] Loizou et al., 2021, `arXiv:2002.10542 <https://arxiv.org/abs/2002.10542>`__.
# .. [2] Vaswani et al., 2019, `arXiv:1905.09997 <https://arxiv.org/abs/1905.09997>`__.
# .. [3] Orvieto et al., 2022, `OpenReview <https://openreview.net/forum?id=lUyAaz-iA4u>`__.
