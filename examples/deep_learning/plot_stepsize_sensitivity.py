# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "flax>=0.10.1", "importlib_resources", "jax>=0.4.38",
#   "matplotlib>=3.8.4", "numpy", "optax>=0.2.3", "requests",
#   "tensorflow-datasets", "tensorflow-cpu; platform_machine == 'x86_64'",
#   "tensorflow; platform_machine != 'x86_64'"]
# ///
r"""
How wrong can my step size be?
==============================
How far off may your step size be before training suffers? Some rules choose each
step size themselves, up to a cap that you set. Eight solvers train a small network
on 10,000 images of Fashion-MNIST, with eleven step sizes or caps from 0.001 to 100:

- with a step size: :func:`SGD <optax.sgd>`, :func:`Momentum <optax.sgd>` (SGD with a
  momentum of 0.9), :func:`RMSProp <optax.rmsprop>`, :func:`Adam <optax.adam>`;
- with a cap: :func:`Polyak <optax.polyak_sgd>` [1]_, :func:`Armijo
  <optax.scale_by_backtracking_linesearch>` [2]_, :func:`MoMo <optax.contrib.momo>`
  (Polyak with momentum [3]_), :func:`MoMo-Adam <optax.contrib.momo_adam>`.

.. admonition:: In short

   - **A step size must be right within a factor of two to five.** Without a cap, the
     loss of each solver is within 15% of its best over a 4- to 20-fold range.
   - **Polyak and Armijo survive a cap that is far too large.** At 100, a hundred times
     the best cap or more, their losses are below 2. Without a cap, all are above 10.
   - **MoMo prevents divergence, not poor results.** At 100, MoMo and MoMo-Adam
     end above twice their best loss, Momentum and Adam above fifty times theirs.

These are medians over five seeds, for one network and 300 steps, about two epochs.
Another network may be more or less sensitive.

**Figure:** training loss (left) and test accuracy (right) after 300 steps, against the
step size or cap. Top: plain SGD. Middle: SGD with momentum. Bottom: each coordinate of
the gradient is divided by its recent size. Lines are medians over five seeds, and bands
hold the middle half of them. Losses above 8 are outside the panels.
"""

# %%
# Imports
# -------
# ``uv run`` installs the packages that the first lines of the script list.
import os
import sys
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import requests
import tensorflow_datasets as tfds
from absl import flags


# %%
# Solvers
# -------
# Each entry of ``SOLVERS`` makes a solver from a step size, or from a cap.
def armijo(cap):
    """Return SGD with a line search whose step sizes are at most ``cap``."""
    line_search = optax.scale_by_backtracking_linesearch(
        max_backtracking_steps=30,  # the step shrinks by a fifth each time
        slope_rtol=0.1,  # the least share of the decrease that the gradient predicts
        max_learning_rate=cap,
    )
    return optax.chain(optax.sgd(1.0), line_search)


SOLVERS = {
    "SGD": optax.sgd,
    "Polyak": optax.polyak_sgd,
    "Armijo": armijo,
    "Momentum": partial(optax.sgd, momentum=0.9),
    "MoMo": optax.contrib.momo,
    "RMSProp": optax.rmsprop,
    "Adam": optax.adam,
    "MoMo-Adam": optax.contrib.momo_adam,
}
# Powers of ten, and one value between neighbours, halfway on a log scale.
STEPSIZES = np.logspace(-3, 2, 11)


# %%
# Training
# --------
# All solvers share one loop. The loop offers the gradient, the loss (for Polyak) and
# the loss as a function (for Armijo). Each solver uses those that it needs.
def train_once(make_solver, net, stepsize, params, minibatches):
    """Return the parameters after a step on each of the minibatches."""
    solver = optax.with_extra_args_support(make_solver(stepsize))

    def step(carry, minibatch):
        params, state = carry
        images, labels = minibatch
        loss = partial(cross_entropy, net, images=images, labels=labels)
        value, grad = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grad, "value_fn": loss}
        updates, state = solver.update(grad, state, params, **extra)
        return (optax.apply_updates(params, updates), state), None

    start = params, solver.init(params)
    (params, _), _ = jax.lax.scan(step, start, minibatches)
    return params


# %%
# One compiled call trains a solver with all step sizes from all seeds. ``vmap`` trains
# with all step sizes at once. ``map`` takes the seeds one after another, which was
# faster here than a second ``vmap``.
class Sweep(NamedTuple):
    """The results of a solver: a row for each seed, a column for each step size."""

    losses: jax.Array  # on the images to train on
    accuracies: jax.Array  # on the images to test on


@partial(jax.jit, static_argnums=(0, 1))
def sweep(make_solver, net, stepsizes, starts, train, test):
    """Train from each of the ``starts`` with each step size; return the results.

    ``starts`` are initial parameters and minibatches, whose first axis is the seed.
    """

    def run(stepsize, params, minibatches):
        params = train_once(make_solver, net, stepsize, params, minibatches)
        images, labels = test
        hits = net.apply(params, images).argmax(axis=-1) == labels
        return Sweep(cross_entropy(net, params, *train), hits.mean())

    run_seed = jax.vmap(run, in_axes=(0, None, None))
    return jax.lax.map(lambda start: run_seed(stepsizes, *start), starts)


# %%
# **Several devices can share the step sizes.** Put these three lines in place of the
# line ``STEPSIZES = ...``:
#
# .. code-block:: python
#
#    mesh = jax.sharding.Mesh(jax.devices(), ("sweep",))
#    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("sweep"))
#    STEPSIZES = jax.device_put(np.logspace(-3, 2, 12), spread)
#
# Each device then trains with its share of the step sizes. The number of step sizes
# must be a multiple of the number of devices: the 11 of this page become 12, for 2, 3,
# 4, 6 or 12 devices. All solvers except Armijo then send nothing between devices. At
# each trial, Armijo sends one byte, which tells whether any run needs another trial. So
# each device waits for the slowest run.


# %%
# Model and loss
# --------------
# The network has one hidden layer of 32 units, and 6,634 parameters in all.
def make_network(num_features):
    """Return a network that maps images (batch, pixels) to logits (batch, 10)."""
    return nn.Sequential((nn.Dense(num_features), nn.relu, nn.Dense(10)))


def cross_entropy(net, params, images, labels):
    """Return the mean cross-entropy of a minibatch."""
    logits = net.apply(params, images)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# %%
# Data
# ----
# Each solver trains 55 times, with 11 step sizes from 5 seeds. So the problem is small:
# 10,000 of the 60,000 images of Fashion-MNIST, shrunk from 28x28 to 14x14 pixels.
REMEDY = "Delete this folder and run again with the internet, or set TFDS_DATA_DIR."


def load(dataset, split, size):
    """Return images and labels of the first ``size`` of a split, and its info."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # no TensorFlow message
    try:
        builder = tfds.builder(f"{dataset}:3.*.*")
        if not builder.data_path.exists():
            for url in builder.url_infos:  # fails fast if a host is down
                requests.head(url, timeout=5).raise_for_status()
            builder.download_and_prepare()
        config = tfds.ReadConfig(try_autocache=False)  # no warning of partial reads
        data = builder.as_dataset(split=split, read_config=config, as_supervised=True)
        return next(data.batch(size).as_numpy_iterator()), builder.info
    except Exception as error:  # each library raises errors of its own
        folder = f"{tfds.core.constants.DATA_DIR}/{dataset}"
        sys.exit(f"{folder} cannot be read or made: {error!r:.200}\n{REMEDY}")


# %%
# Minibatches are drawn once for each seed, so that all solvers get the same ones.
def shrink(images):
    """Return the means of 2x2 pixels, as float32 (images, 196), from 0 to 1."""
    squares = images.reshape(-1, 14, 2, 14, 2)
    means = squares.mean(axis=(2, 4), dtype=np.float32)
    return means.reshape(-1, 196) / 255


def draw_steps(images, labels, settings):
    """Return images and labels of all steps, each (seeds, steps, batch_size, ...)."""
    size = settings.num_steps, settings.batch_size
    randoms = [np.random.default_rng(seed) for seed in range(settings.num_seeds)]
    indices = np.stack([random.integers(len(labels), size=size) for random in randoms])
    return images[indices], labels[indices]


# %%
# Settings
# --------
# Flags change the settings, as in ``--num_seeds=1``, and ``--help`` lists all flags.
def parse_flags(argv):
    """Return the settings in ``argv``; exit with one line if one of them is wrong."""
    settings = flags.FlagValues()
    integer = partial(flags.DEFINE_integer, flag_values=settings)
    number = partial(flags.DEFINE_float, flag_values=settings)
    good = "a loss is good if it is at most this fraction above the best"
    integer("num_seeds", 5, "runs of each solver with each step size", 1, 20)
    integer("num_steps", 300, "steps of a run", 1, 10_000)
    integer("batch_size", 64, "images in a minibatch", 1, 1_000)
    integer("num_features", 32, "units of the hidden layer", 1, 1_000)
    number("tolerance", 0.15, good, 0, 10)
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
# A step size is good if its loss is at most 15% above the solver's best. The width of
# the good range is measured along straight lines between the step sizes, on log-log
# axes. A range that reaches 0.001 or 100 is cut off there.
def good_width(losses, tolerance):
    """Return the width, in decades, of the step sizes whose loss is good."""
    exponents = np.log10(STEPSIZES)
    grid = np.linspace(exponents[0], exponents[-1], 5_001)
    log_losses = np.interp(grid, exponents, np.log(losses))
    is_good = log_losses <= np.log((1 + tolerance) * losses.min())
    return is_good.mean() * (exponents[-1] - exponents[0])


def print_widths(results, tolerance):
    """Print a row for each solver, from {solver: Sweep}."""
    percent = f"{100 * tolerance:g}%"
    print(f"Width of the range within {percent} of the best loss, in decades:")
    print("             best                                          loss")
    print("             step   loss  accuracy   width  width  width     at")
    print("solver       size  there     there  median    min    max    100")
    print("---------  ------  -----  --------  ------  -----  -----  -----")
    for name, (losses, accuracies) in results.items():
        medians = np.median(losses, axis=0)
        best = medians.argmin()
        accuracy = np.median(accuracies[:, best])
        widths = [good_width(losses_of_seed, tolerance) for losses_of_seed in losses]
        lowest, median, highest = np.quantile(widths, [0, 0.5, 1])
        row = f"{name:9}{STEPSIZES[best]:8.2g}{medians[best]:7.3f}{accuracy:10.3f}"
        row += f"{median:8.2f}{lowest:7.2f}{highest:7.2f}{medians[-1]:7.3g}"
        print(row)


# %%
# Colours and dashes are the same on all pages.
STYLES = {
    "SGD": {"color": "#cc79a7", "linestyle": ":"},
    "Polyak": {"color": "#0072b2", "linestyle": "-"},
    "Armijo": {"color": "#009e73", "linestyle": "--"},
    "Momentum": {"color": "#e69f00", "linestyle": (0, (5, 1))},
    "MoMo": {"color": "#56b4e9", "linestyle": (0, (3, 1, 1, 1))},
    "RMSProp": {"color": "#d55e00", "linestyle": "-."},
    "Adam": {"color": "#000000", "linestyle": (0, (1, 1))},
    "MoMo-Adam": {"color": "#999933", "linestyle": (0, (8, 2))},
}


def plot_band(ax, x, rows, **style):
    """Plot the median of ``rows`` (seeds, points), and a band between quartiles."""
    lower, median, upper = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    ax.plot(x, median, **style)
    ax.fill_between(x, lower, upper, color=style["color"], alpha=0.2, linewidth=0)


# %%
# Each row of the figure has the solvers of one family.
ROWS = [
    ["SGD", "Polyak", "Armijo"],
    ["Momentum", "MoMo"],
    ["RMSProp", "Adam", "MoMo-Adam"],
]


def plot_sweep(results):
    """Plot losses and accuracies of {solver: Sweep}, with solvers in ``ROWS``."""
    options = {"sharex": True, "sharey": "col", "layout": "constrained"}
    fig, axes = plt.subplots(3, 2, figsize=(6.4, 5.3), **options)
    for (loss_ax, accuracy_ax), names in zip(axes, ROWS, strict=True):
        for name in names:
            style = STYLES[name] | {"label": name}
            plot_band(loss_ax, STEPSIZES, results[name].losses, **style)
            plot_band(accuracy_ax, STEPSIZES, results[name].accuracies, **style)
        loss_ax.set(xscale="log", yscale="log", ylabel="final training loss")
        loss_ax.set(yticks=[0.5, 1, 2, 4, 8], ylim=(0.4, 8))
        loss_ax.yaxis.set(major_formatter="{x:g}")
        loss_ax.minorticks_off()
        loss_ax.legend(loc="upper left", handlelength=3)
        accuracy_ax.set(ylabel="test accuracy")
    axes[-1, 0].set(xlabel="step size or cap")
    axes[-1, 1].set(xlabel="step size or cap")
    fig.suptitle("Loss and accuracy against step size")


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
# Eight solvers, eleven step sizes
# --------------------------------
# For each seed, all solvers get the same minibatches and the same initial parameters.
def main(argv):
    """Train with each solver and step size; return {solver: Sweep}."""
    settings = parse_flags(argv)
    (images, labels), _ = load("fashion_mnist", "train", 10_000)
    train = shrink(images), labels
    (images, labels), _ = load("fashion_mnist", "test", 10_000)
    test = shrink(images), labels
    net = make_network(settings.num_features)
    keys = jax.vmap(jax.random.key)(np.arange(settings.num_seeds))
    params = jax.vmap(net.init, in_axes=(0, None))(keys, train[0][:1])
    starts = params, draw_steps(*train, settings)
    results = {}
    for name, make_solver in SOLVERS.items():
        losses, accuracies = sweep(make_solver, net, STEPSIZES, starts, train, test)
        # Infinite and NaN losses become a number that can be sorted and plotted.
        losses = np.nan_to_num(losses, nan=1e9, posinf=1e9)
        results[name] = Sweep(losses, np.array(accuracies))
    print_widths(results, settings.tolerance)
    plot_sweep(results)
    return results


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# **A step size can also be too small.** SGD ends at a loss of 1.0 with a tenth of its
# best step size, and at 2.3 with ten times its best. With caps of up to 0.03, Polyak
# and Armijo end at the same loss as SGD.
#
# **Five seeds cannot tell how wide Polyak's range is.** With ``--num_seeds=20``, the
# range is near one decade wide from some seeds, and more than two from others.
#
# **Armijo gains by a looser measure.** With ``--tolerance=1``, its loss is at most
# twice its best over more than three decades, up to the end of the figure.
#
# **A limitation:** the best losses are near 0.5, but Polyak assumes that the loss of
# each minibatch can reach zero. Where losses come closer to zero, results may differ.
#
# **Next:** :doc:`How many tuning runs is an adaptive step worth? <plot_tuning_budget>`
# tunes step sizes. :doc:`When do Polyak and Armijo converge? <plot_interpolation>` has
# losses that reach zero. With a schedule, too large a cap does little harm, as in
# :doc:`Do I still need a schedule? <plot_schedule>` Or try ``--num_steps=1000``.
#
# .. rubric:: References
#
# .. [1] Loizou et al., 2021, `arXiv:2002.10542 <https://arxiv.org/abs/2002.10542>`__.
# .. [2] Vaswani et al., 2019, `arXiv:1905.09997 <https://arxiv.org/abs/1905.09997>`__.
# .. [3] Schaipp et al., 2024, `arXiv:2305.07583 <https://arxiv.org/abs/2305.07583>`__.
