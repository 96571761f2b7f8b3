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
You have to guess a step size. Rules such as Polyak's only replace it by another guess:
the cap, which is the largest step size that they may take. How far off may your guess
be before training suffers? Eight solvers train a small network with eleven step sizes
each, from 0.001 to 100:

- plain: :func:`SGD <optax.sgd>`, and :func:`Polyak <optax.polyak_sgd>` [1]_ and
  :func:`Armijo <optax.scale_by_backtracking_linesearch>` [2]_, which use the step size
  only as a cap;
- with momentum: :func:`SGD with momentum <optax.sgd>`, and :func:`MoMo
  <optax.contrib.momo>` [3]_ with a cap;
- scaled per coordinate: :func:`RMSProp <optax.rmsprop>` and :func:`Adam <optax.adam>`,
  and :func:`MoMo-Adam <optax.contrib.momo_adam>` [3]_ with a cap.

These are results for one network, one data set and 300 steps. Another network may be
more or less sensitive.
"""

# %%
# Settings
# --------
# As on :doc:`the first page <plot_sgd_solvers>`, settings are flags of the script.
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from absl import flags

FLAGS = flags.FlagValues()
number = partial(flags.DEFINE_float, flag_values=FLAGS)
integer = partial(flags.DEFINE_integer, flag_values=FLAGS)
_ = integer("num_seeds", 5, "runs of each solver with each step size", 1, 20)
_ = integer("num_steps", 300, "steps of a run", 1, 10_000)
_ = integer("batch_size", 64, "examples in a minibatch", 1, 1_000)
_ = integer("num_features", 32, "units of the hidden layer", 1, 1_000)
_ = number("tolerance", 0.15, "part of the best loss that a good one may add", 0, 10)


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

import flax.linen as nn
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import requests
import tensorflow_datasets as tfds

# Powers of ten, and one value between each two.
STEPSIZES = np.logspace(-3, 2, 11)


# %%
# Data
# ----
# The data is loaded as on :doc:`the first page <plot_sgd_solvers>`.
def load(dataset, *splits):
    """Return splits of a data set, as a list, and its info; exit if it is not whole."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # or TensorFlow talks of it
    name, options = f"{dataset}:3.*.*", {"as_supervised": True, "with_info": True}
    try:
        builder = tfds.builder(name)
        with TemporaryDirectory() as folder, suppress(FileExistsError):
            missing = {} if builder.data_path.exists() else builder.url_infos
            for url, archive in missing.items():
                answer = requests.get(url, timeout=5)
                answer.raise_for_status()
                Path(folder, archive.filename).write_bytes(answer.content)
            config = tfds.download.DownloadConfig(manual_dir=folder)
            builder.download_and_prepare(download_dir=folder, download_config=config)
        data, info = tfds.load(name, split=list(splits), download=False, **options)
        sum(1 for split in data for _ in split.batch(1_000))
    except Exception as error:  # of many families: each library raises its own
        folder = f"{tfds.core.constants.DATA_DIR}/{dataset}"
        remedy = "Run this again without it and with a network, or set TFDS_DATA_DIR."
        sys.exit(f"{folder} cannot be read or made: {error!r:.200}\n{remedy}")
    return data, info


# %%
# Of Fashion-MNIST, a quarter of the pixels and a sixth of the training images will do,
# because every step is made 55 times for each solver.
def shrink(examples):
    """Return images as float32 (n, 196), from 0 to 1, and their labels (n,)."""
    images, labels = next(examples.batch(len(examples)).as_numpy_iterator())
    means = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4), dtype=np.float32)
    return means.reshape(-1, 196) / 255, labels


def draw_runs(images, labels, settings):
    """Return images (seeds, steps, batch_size, 196) and labels, as many."""
    random = map(np.random.default_rng, range(settings.num_seeds))
    size = settings.num_steps, settings.batch_size
    drawn = np.stack([seed.integers(len(labels), size=size) for seed in random])
    return images[drawn], labels[drawn]


# %%
# Model
# -----
# The network has one hidden layer of 32 units, and 6,634 parameters in all.
class MLP(nn.Module):
    """Map images (batch, 196) to logits (batch, 10)."""

    num_features: int

    @nn.compact
    def __call__(self, images):
        return nn.Dense(10)(nn.relu(nn.Dense(self.num_features)(images)))


def mean_loss(net, params, images, labels):
    """Return the mean multiclass logistic loss of a minibatch."""
    logits = net.apply(params, images)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# %%
# Solvers
# -------
# Each entry has the row of its panel in the figure, and a function from the step size
# to the solver.
def armijo(cap):
    """Return SGD with a backtracking line search that starts at most at ``cap``."""
    search = optax.scale_by_backtracking_linesearch(30, 0.1, max_learning_rate=cap)
    return optax.chain(optax.sgd(1.0), search)


SOLVERS = {
    "SGD": (0, optax.sgd),
    "Polyak": (0, optax.polyak_sgd),
    "Armijo": (0, armijo),
    "Momentum": (1, partial(optax.sgd, momentum=0.9)),
    "MoMo": (1, optax.contrib.momo),
    "RMSProp": (2, optax.rmsprop),
    "Adam": (2, optax.adam),
    "MoMo-Adam": (2, optax.contrib.momo_adam),
}


# %%
# Training
# --------
# A run is one ``scan`` over the minibatches.
def run(make, net, stepsize, params, minibatches):
    """Return the parameters after a step of ``make(stepsize)`` for each minibatch."""
    solver = optax.with_extra_args_support(make(stepsize))

    def step(carry, minibatch):
        params, state = carry
        fun = partial(mean_loss, net, images=minibatch[0], labels=minibatch[1])
        value, grad = jax.value_and_grad(fun)(params)
        # Each solver takes of these what it needs.
        extra = {"value": value, "grad": grad, "value_fn": fun}
        updates, state = solver.update(grad, state, params, **extra)
        return (optax.apply_updates(params, updates), state), None

    carry = params, solver.init(params)
    return jax.lax.scan(step, carry, minibatches)[0][0]


# %%
# One compiled call makes all runs of a solver: ``vmap`` adds an axis for step sizes,
# ``map`` one for seeds. ``map`` takes seeds in turn, so that what a step reads fits
# into the processor's cache; with a second ``vmap`` it would not.
@partial(jax.jit, static_argnums=(0, 1))
def sweep(make, net, stepsizes, starts):
    """Return the last parameters, each leaf (seeds, stepsizes, ...).

    ``starts`` are initial parameters and minibatches, each leaf (seeds, ...).
    """
    runs = jax.vmap(partial(run, make, net), (0, None, None))
    return jax.lax.map(lambda start: runs(stepsizes, *start), starts)


@partial(jax.jit, static_argnums=0)
def evaluate(net, params, train, test):
    """Return losses on ``train``, accuracies on ``test``, each (seeds, stepsizes)."""

    def measure(params):
        hits = net.apply(params, test[0]).argmax(-1) == test[1]
        return mean_loss(net, params, *train), hits.mean()

    return jax.lax.map(jax.vmap(measure), params)


# %%
# Results
# -------
# The good range of a solver is where its loss is at most 15% above its best. Its width
# is read off the curve, drawn as straight lines on log scales.
def good_width(losses, tolerance):
    """Return how many decades of step sizes have a loss near the least of ``losses``.

    ``losses`` are those at ``STEPSIZES``; near means at most (1 + tolerance) as much.
    """
    exponents = np.log10(STEPSIZES)
    fine = np.linspace(exponents[0], exponents[-1], 5_001)
    curve = np.interp(fine, exponents, np.log(losses))
    return np.ptp(exponents) * np.mean(curve <= np.log((1 + tolerance) * losses.min()))


def print_ranges(results, tolerance):
    """Print a row for each of {name: (losses, accuracies)}, each (seeds, stepsizes)."""
    print("                     at the best          good range in     loss")
    print("                       step size            decades           at")
    print("solver      size   loss accuracy  median lowest highest      100")
    for name, (losses, accuracies) in results.items():
        middle = np.median(losses, axis=0)
        best = middle.argmin()
        widths = [good_width(series, tolerance) for series in losses]
        low, mid, high = np.quantile(widths, [0, 0.5, 1])
        row = f"{name:10}{STEPSIZES[best]:6.2g}{middle[best]:7.3f}"
        row += f"{np.median(accuracies[:, best]):9.3f}"
        print(row + f"{mid:8.2f}{low:7.2f}{high:8.2f}{middle[-1]:9.3g}")


# %%
# Figure
# ------
# Each row has a family of solvers: some take the step size as it is, others as a cap.
# Lines are medians of the seeds, bands reach from the lowest to the highest.
def plot_sweep(results):
    """Draw {name: (losses, accuracies)}, each (seeds, stepsizes), in their rows."""
    options = {"sharex": True, "sharey": "col", "layout": "constrained"}
    with plt.style.context("seaborn-v0_8-colorblind"):
        fig, axes = plt.subplots(3, 2, figsize=(6.4, 7.6), **options)
        for name, both in results.items():
            for ax, values in zip(axes[SOLVERS[name][0]], both, strict=True):
                low, mid, high = np.quantile(values, [0, 0.5, 1], axis=0)
                ax.plot(STEPSIZES, mid, ("-", "--", ":")[len(ax.lines)], label=name)
                ax.fill_between(STEPSIZES, low, high, alpha=0.2)
    for loss_ax, accuracy_ax in axes:
        loss_ax.set(xscale="log", yscale="log", ylabel="final training loss")
        loss_ax.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
        loss_ax.minorticks_off()
        accuracy_ax.set(ylabel="test accuracy")
        loss_ax.legend()
    axes[0, 0].set_ylim(0.4, 5)  # what is higher has failed
    for ax in axes[-1]:
        ax.set(xlabel="step size, or its cap")
    fig.suptitle("Loss and accuracy against step size")


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
# For each seed, all solvers get the same minibatches and the same initial parameters.
def main(argv):
    """Train with each solver and step size; return {name: (losses, accuracies)}."""
    settings = parse(argv)
    train, test = map(shrink, load("fashion_mnist", "train[:10000]", "test")[0])
    net, results = MLP(settings.num_features), {}
    keys = jax.vmap(jax.random.key)(np.arange(settings.num_seeds))
    params = jax.vmap(net.init, (0, None))(keys, train[0][:1])
    starts = params, draw_runs(*train, settings)
    for name, (_, make) in SOLVERS.items():
        ends = sweep(make, net, STEPSIZES, starts)
        losses, accuracies = map(np.array, evaluate(net, ends, train, test))
        # What is not a number is as bad as can be, and still can be drawn.
        results[name] = np.nan_to_num(losses, nan=1e9, posinf=1e9), accuracies
    print_ranges(results, settings.tolerance)
    plot_sweep(results)
    return results


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# Too large a cap does Polyak and Armijo little harm: at 100, three hundred times the
# best value, they end below twice their best loss. SGD with ten times its best step
# size learns nothing (2.3 is the loss of guessing), and at 100 all solvers without a
# cap end with a loss above 10. Too small a cap hurts them: up to 0.03 it always
# applies, so they are the same as SGD.
#
# By the strict measure, within 15% of the best loss, a step size is hard to guess. Most
# good ranges are about a decade wide, so you have to be right within a factor of about
# three. Polyak's range varies with the seed, from about one decade to more than two,
# because a large cap harms some seeds and not others. MoMo's range is not wider than
# that of momentum, and MoMo-Adam's is not much wider than Adam's. The caps of both
# prevent divergence, not poor results: at 100, the loss of MoMo-Adam is far below that
# of Adam, but far above its own best.
#
# By a looser measure, within twice the best loss, Polyak and Armijo profit from their
# caps. With ``--tolerance=1``, their good ranges are more than three decades wide, and
# no other range is. All of this is one network. Where the loss gets closer to zero,
# results may differ.
#
# .. rubric:: References
#
# .. [1] Loizou et al., 2021, `arXiv:2002.10542 <https://arxiv.org/abs/2002.10542>`__.
# .. [2] Vaswani et al., 2019, `arXiv:1905.09997 <https://arxiv.org/abs/1905.09997>`__.
# .. [3] Schaipp et al., 2024, `arXiv:2305.07583 <https://arxiv.org/abs/2305.07583>`__.
