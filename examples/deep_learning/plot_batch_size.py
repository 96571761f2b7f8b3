# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "jax>=0.8", "matplotlib>=3.8.4", "numpy", "optax>=0.2.5"]
# ///
r"""
Does a larger batch repair my step size?
========================================
If training stalls, does a larger minibatch help, or only a smaller step size? A run
stalls at its *noise floor*: the gap that remains between its loss and the least
possible loss. Three solvers run on least squares with 1,000 examples, 50 parameters and
noisy labels, in minibatches of 1 to 128 examples:

- :func:`SGD <optax.sgd>` has a constant step size;
- :func:`Polyak <optax.polyak_sgd>` has the step size :math:`f / \|\nabla f\|^2`, up to
  a cap, where :math:`f` is the loss of the minibatch [1]_;
- :func:`Armijo <optax.scale_by_backtracking_linesearch>` tries step sizes until the
  minibatch's loss falls by enough [2]_.

.. admonition:: In short

   - **For SGD, a larger minibatch or a smaller step size helps.** From 1 example to
     128, the floor falls by a factor of 140 (step size 0.003) or 168 (0.01). With 0.003
     instead of 0.01, it is 3 to 4 times lower.
   - **A larger minibatch does not help Polyak with a large cap.** With a cap of 1, the
     floor stays at 0.04, unless Polyak knows the least loss, ``f_min``. With 0.01, it
     is like that of SGD.
   - **A larger minibatch helps Armijo less than SGD.** From 1 example to 128, its floor
     falls fourfold.

Numbers are medians over five random data sets (seeds). A model that can fit all
examples may have no floor. A minibatch of 128 needs 128 times the arithmetic of one.

**Figure:** noise floor against the size of the minibatch. Lines are medians over five
seeds, and bands hold the middle half of the seeds. Numbers after SGD are step sizes.
*Polyak, f_min* knows the least possible loss.
"""

# %%
# Imports
# -------
# ``uv run`` installs the packages that the first lines of the script list.
import os
import sys
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from absl import flags

# %%
# Solvers
# -------
# Polyak runs with a small cap and a large one. A third run, with a cap of 1, knows
# ``f_min``, the least possible loss over all examples: about 0.12, in practice unknown.
# Its step size is :math:`(f - f_{min}) / \|\nabla f\|^2`. Armijo's steps have a size of
# at most 1, and must achieve half of the decrease that the gradient predicts.
SEARCH = optax.scale_by_backtracking_linesearch(30, slope_rtol=0.5)
SOLVERS = {
    "SGD, 0.003": optax.sgd(0.003),
    "SGD, 0.01": optax.sgd(0.01),
    "Polyak, cap 0.01": optax.polyak_sgd(max_learning_rate=0.01),
    "Polyak, cap 1": optax.polyak_sgd(max_learning_rate=1.0),
    "Polyak, f_min": optax.polyak_sgd(f_min=0.12, variant="sps+"),  # no negative steps
    "Armijo": optax.chain(optax.sgd(1.0), SEARCH),  # SEARCH scales the step
}
BATCH_SIZES = np.array([1, 2, 8, 32, 128])


# %%
# Training
# --------
# The gap is the loss of all examples minus the least possible loss. The floor is the
# mean gap over the second half of the steps.
@partial(jax.jit, static_argnums=0)
def measure_floor(name, features, labels, indices):
    """Return the floor of a run; ``indices`` has a row of examples for each step."""
    solver = optax.with_extra_args_support(SOLVERS[name])

    def step(carry, rows):
        params, state = carry
        loss = partial(mean_square, features=features[rows], labels=labels[rows])
        value, grad = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grad, "value_fn": loss}
        updates, state = solver.update(grad, state, params, **extra)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    start = jnp.zeros(features.shape[1])
    _, path = jax.lax.scan(step, (start, solver.init(start)), indices)
    return gaps(path[len(path) // 2 :], features, labels).mean()


# %%
# Model and loss
# --------------
# The model is linear, and its loss is half the mean square of the residuals. It is
# quadratic, so a gap follows from the difference to the best parameters.
def mean_square(params, features, labels):
    """Return half the mean square of the residuals."""
    return optax.losses.l2_loss(features @ params, labels).mean()


def gaps(path, features, labels):
    """Return the loss minus the least loss, at each of the parameters in ``path``."""
    best, *_ = jnp.linalg.lstsq(features, labels)
    return optax.losses.l2_loss((path - best) @ features.T).mean(axis=1)


# %%
# Data
# ----
# Labels are a linear function of the 50 features, with noise.
def draw_examples(settings, seed):
    """Return features (1000, 50), labels (1000,), and the examples of each step."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(1_000, 50))
    weights = rng.normal(size=50) / 50**0.5
    labels = features @ weights + 0.5 * rng.normal(size=1_000)
    # Smaller minibatches use the first columns.
    size = settings.num_steps, BATCH_SIZES.max()
    indices = np.random.default_rng([seed, 1]).integers(1_000, size=size)
    return features, labels, indices


# %%
# Settings
# --------
# Flags change the settings, as in ``--num_seeds=1``, and ``--help`` lists all flags.
def parse_flags(argv):
    """Return the settings in ``argv``; exit with one line if one of them is wrong."""
    settings = flags.FlagValues()
    integer = partial(flags.DEFINE_integer, flag_values=settings)
    integer("num_seeds", 5, "random data sets, with minibatches of their own", 1, 20)
    integer(
        "num_steps", 8_000, "steps of a run; the second half is measured", 2, 50_000
    )
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
# The last column is the factor by which the floor falls.
def print_floors(floors):
    """Print a row for each solver, from {solver: floors (seeds, batch sizes)}."""
    print("Floor by size of the minibatch, median over seeds:")
    print(f"{'solver':16}" + "".join(f"{size:8}" for size in BATCH_SIZES) + "   fall")
    print("----------------" + " -------" * len(BATCH_SIZES) + "  -----")
    for name, rows in floors.items():
        medians = np.median(rows, axis=0)
        cells = "".join(f"{floor:8.1e}" for floor in medians)
        print(f"{name:16}{cells}{medians[0] / medians[-1]:7.1f}")


# %%
# A solver has the same colour on all pages.
STYLES = {
    "SGD, 0.003": {"color": "#cc79a7", "linestyle": (0, (1, 3)), "marker": "v"},
    "SGD, 0.01": {"color": "#cc79a7", "linestyle": ":", "marker": "o", "ms": 9},
    "Polyak, cap 0.01": {"color": "#0072b2", "linestyle": (0, (2, 2)), "marker": "."},
    "Polyak, cap 1": {"color": "#0072b2", "linestyle": "-", "marker": "s"},
    "Polyak, f_min": {"color": "#0072b2", "linestyle": (0, (6, 2)), "marker": "D"},
    "Armijo": {"color": "#009e73", "linestyle": "--", "marker": "^"},
}


def plot_band(ax, x, rows, **style):
    """Plot the median of ``rows`` (seeds, points), and a band between quartiles."""
    lower, median, upper = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    ax.plot(x, median, **style)
    ax.fill_between(x, lower, upper, color=style["color"], alpha=0.2, linewidth=0)


def plot_floors(floors):
    """Plot {solver: floors (seeds, batch sizes)} against the batch size."""
    fig, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, rows in floors.items():
        plot_band(ax, BATCH_SIZES, rows, label=name, lw=3.5, **STYLES[name])
    ax.set(xscale="log", yscale="log", xlabel="size of the minibatch", ylabel="floor")
    ax.set(xticks=BATCH_SIZES)
    ax.xaxis.set(major_formatter="{x:g}")
    ax.xaxis.minorticks_off()
    ax.legend(handlelength=4)
    fig.suptitle("Noise floors against the size of the minibatch")


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


ARGV = sys.argv[:1] if "get_ipython" in globals() else sys.argv


# %%
# Six solvers, five batch sizes
# -----------------------------
# All solvers get the same minibatches. ``vmap`` runs all seeds at once, in double
# precision.
def main(argv):
    """Measure all floors; return {solver: floors (seeds, batch sizes)}."""
    settings = parse_flags(argv)
    seeds = range(settings.num_seeds)
    draws = [draw_examples(settings, seed) for seed in seeds]
    features = np.stack([features for features, _, _ in draws])
    labels = np.stack([labels for _, labels, _ in draws])
    indices = np.stack([indices for _, _, indices in draws])
    floors = {}
    with jax.enable_x64(True):
        for name in SOLVERS:
            measure = jax.vmap(partial(measure_floor, name))
            columns = [
                measure(features, labels, indices[..., :size]) for size in BATCH_SIZES
            ]
            floors[name] = np.stack(columns, axis=1)
    print_floors(floors)
    plot_floors(floors)
    return floors


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# **A minibatch averages noise.** With B examples, the variance of the gradient is 1 / B
# times as large. SGD's floor falls about like 1 / B, a little faster at first.
#
# **Polyak trusts each minibatch.** Its step size assumes that the loss of the minibatch
# can reach zero. With 50 parameters, up to 50 examples can be fitted, but different
# minibatches need different parameters. Beyond 50 examples, the assumption is wrong.
# If Polyak knows ``f_min``, the floor falls with the size, from 0.026 to 0.005.
#
# **A small cap is a small step size.** From 2 examples on, nearly all of Polyak's step
# sizes are at the cap of 0.01. Its floor is low because it has become SGD.
#
# **Armijo trusts each minibatch, too.** It takes a long step if the minibatch's loss
# falls by enough, whatever other examples say.
#
# **A limitation:** the model is linear, with one level of noise.
#
# **Next:** :doc:`When do Polyak and Armijo steps converge? <plot_interpolation>` has
# models that can fit all examples, and DecSPS, a Polyak rule whose steps shrink.
# :doc:`Do I still need a schedule? <plot_schedule>` shrinks steps on a network. With
# ``--num_steps=2000``, SGD at 0.003 stops short of its floor.
#
# .. rubric:: References
#
# .. [1] Loizou et al., 2021, `arXiv:2002.10542 <https://arxiv.org/abs/2002.10542>`__.
# .. [2] Vaswani et al., 2019, `arXiv:1905.09997 <https://arxiv.org/abs/1905.09997>`__.
