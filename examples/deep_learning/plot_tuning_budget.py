# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "flax>=0.10.1", "importlib_resources", "jax>=0.4.38",
#   "matplotlib>=3.8.4", "numpy", "optax>=0.2.5", "requests",
#   "tensorflow-datasets", "tensorflow-cpu; platform_machine == 'x86_64'",
#   "tensorflow; platform_machine != 'x86_64'"]
# ///
r"""
How many tuning runs is an adaptive step worth?
===============================================
How many step sizes must you try before a tuned solver beats one that needs no tuning?
Polyak and Armijo choose each step size themselves, up to a cap that stays at its
default of 1. The others need a step size, which is tuned by random search: a *trial*
trains with a step size drawn on a log scale, and the least final training loss wins.

- untuned: :func:`Polyak <optax.polyak_sgd>`, and :func:`Armijo
  <optax.scale_by_backtracking_linesearch>`, a line search;
- tuned: :func:`SGD <optax.sgd>`, :func:`Momentum <optax.sgd>` (SGD with a momentum of
  0.9), :func:`RMSProp <optax.rmsprop>`, :func:`Adam <optax.adam>`.

.. admonition:: In short

   - **Polyak is worth three or four trials, and of SGD nine or more.** To beat Polyak
     in half of cases, it takes 4 trials of Momentum, 3 of RMSProp and 3 of Adam (one
     more or less). It takes 15 of SGD, and 9 to more than any number with rounding
     errors or other seeds. To beat Armijo, it takes 3, 3, 2 and 7.
   - **A good range saves trials, too.** These numbers are for a range of 0.001 to 100.
     From 0.001 to 1, the first three need 2 trials to beat Polyak (one more or less).
   - **Tuned Adam ends lower.** The winner of ten trials has a median training loss of
     0.53. Polyak and Armijo reach 0.63 and 0.62.

Each winner is judged on another seed, against Polyak or Armijo on that seed. All
numbers come from ten seeds, one small network, and 300 steps on Fashion-MNIST.

**Figure:** loss of the winner against the number of trials, with step sizes between
0.001 and 100 (left) or 1 (right). Lines are medians, and bands hold the middle half of
the winners. Horizontal lines are medians of the untuned solvers.
"""

# %%
# Imports
# -------
# ``uv run`` installs the packages that the first lines of the script list.
import os
import sys
from functools import partial

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
# Four solvers have a step size to tune. Polyak and Armijo have a cap instead, the
# largest step size that they may take. It stays at 1, the default.
def armijo(cap):
    """Return SGD with a line search whose step sizes are at most ``cap``."""
    line_search = optax.scale_by_backtracking_linesearch(
        max_backtracking_steps=30,  # the step shrinks by a fifth each time
        slope_rtol=0.1,  # the least share of the decrease that the gradient predicts
        max_learning_rate=cap,
    )
    return optax.chain(optax.sgd(1.0), line_search)


SOLVERS = {
    "Polyak": optax.polyak_sgd,
    "Armijo": armijo,
    "SGD": optax.sgd,
    "Momentum": partial(optax.sgd, momentum=0.9),
    "RMSProp": optax.rmsprop,
    "Adam": optax.adam,
}
UNTUNED = ["Polyak", "Armijo"]
# Trials draw from these 26, with replacement: five in each power of ten.
CANDIDATES = np.logspace(-3, 2, 26)


# %%
# Random search
# -------------
# Each step size is trained once from each seed. Then the chances to win follow from the
# ranks of the losses. All k draws from n step sizes have rank r (from 0) or worse with
# a chance of ((n - r) / n)^k. Less the same for r + 1, it is the chance that r wins.
def chances_to_win(losses, num_trials):
    """Return how likely each step size is the best of ``num_trials`` random ones.

    ``losses`` has a row for each seed and a column for each step size. Step sizes are
    drawn with replacement. Each row of the result, of the same shape, has a sum of 1.
    """
    num_stepsizes = losses.shape[1]
    ranks = losses.argsort(axis=1, stable=True).argsort(axis=1)
    at_least = (num_stepsizes - ranks) / num_stepsizes
    above = (num_stepsizes - ranks - 1) / num_stepsizes
    return at_least**num_trials - above**num_trials


def up_to(largest, losses):
    """Return the columns of losses whose step size is at most ``largest``."""
    return losses[:, : np.searchsorted(CANDIDATES, 1.1 * largest)]  # allows rounding


# %%
# A winner may have been lucky on its seed, so the other seeds judge it.
def judge_winners(losses, num_trials):
    """Return the chance of each loss, if another seed chooses the step size."""
    chances = chances_to_win(losses, num_trials)
    from_others = chances.sum(axis=0) - chances
    return from_others / from_others.sum()


def quartiles_of_winners(losses, num_trials):
    """Return lower quartile, median and upper quartile of the losses of winners."""
    order = losses.argsort(axis=None)
    totals = judge_winners(losses, num_trials).ravel()[order].cumsum()
    return losses.ravel()[order][np.searchsorted(totals, [0.25, 0.5, 0.75])]


def chance_to_beat(baseline, losses, num_trials):
    """Return how likely a winner is better than ``baseline``, an array (seeds, 1)."""
    return judge_winners(losses, num_trials)[losses < baseline].sum()


def even_trials(baseline, losses):
    """Return the fewest trials that beat ``baseline`` in half of cases."""
    numbers = range(1, 1_000)
    chances = (chance_to_beat(baseline, losses, number) for number in numbers)
    return next((n for n, x in zip(numbers, chances, strict=True) if x >= 0.5), np.inf)


# %%
# Training
# --------
# All solvers share one loop. The loop also counts the step sizes that Armijo tries.
def train_and_count(solver, net, params, minibatches):
    """Return the parameters after all steps, and the mean of a line search's tries."""
    solver = optax.with_extra_args_support(solver)

    def step(carry, minibatch):
        params, state = carry
        images, labels = minibatch
        loss = partial(cross_entropy, net, images=images, labels=labels)
        value, grad = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grad, "value_fn": loss}
        updates, state = solver.update(grad, state, params, **extra)
        tries = optax.tree.get(state, "num_linesearch_steps", 0)
        return (optax.apply_updates(params, updates), state), tries

    start = params, solver.init(params)
    (params, _), tries = jax.lax.scan(step, start, minibatches)
    return params, tries.mean()


# %%
# ``vmap`` trains with all step sizes at once, and ``map`` takes one seed after another.
@partial(jax.jit, static_argnums=(0, 1))
def final_losses(make_solver, net, stepsizes, starts, train):
    """Return losses and tries, a row for each seed, a column for each step size."""

    def run(stepsize, params, minibatches):
        solver = make_solver(stepsize)
        params, tries = train_and_count(solver, net, params, minibatches)
        return cross_entropy(net, params, *train), tries

    run_seed = jax.vmap(run, in_axes=(0, None, None))
    return jax.lax.map(lambda start: run_seed(stepsizes, *start), starts)


# %%
# Model and loss
# --------------
# The network has one hidden layer of 32 units, and 6,634 parameters.
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
# The data are 10,000 images of Fashion-MNIST, shrunk to 14x14 pixels.
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
# Flags change the settings, as in ``--num_seeds=5``, and ``--help`` lists all flags.
def parse_flags(argv):
    """Return the settings in ``argv``; exit with one line if one of them is wrong."""
    settings = flags.FlagValues()
    integer = partial(flags.DEFINE_integer, flag_values=settings)
    integer("num_seeds", 10, "runs of each solver with each step size", 2, 20)
    integer("num_steps", 300, "steps of a run", 1, 10_000)
    integer("batch_size", 64, "images in a minibatch", 1, 1_000)
    integer("num_features", 32, "units of the hidden layer", 1, 1_000)
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
# A step size that Armijo tries costs one loss, about a third of a gradient.
def print_untuned(losses, tries):
    """Print a row for each solver that is not tuned."""
    print("Without tuning, medians:")
    print("solver      loss  gradients a step")
    print("----------  ----  ----------------")
    for name in UNTUNED:
        cost = 1 + tries[name].mean() / 3
        print(f"{name:10}{np.median(losses[name]):6.2f}{cost:18.2f}")


def print_tuned(losses):
    """Print a row for each tuned solver and range of step sizes."""
    print("\nHow often the best of n trials beats Polyak, and n for half:")
    print("           step                               n for   n for")
    print("solver    up to    n=1    n=2    n=5   n=20  Polyak  Armijo")
    print("--------  -----  -----  -----  -----  -----  ------  ------")
    for largest in (100, 1):
        for name in [name for name in SOLVERS if name not in UNTUNED]:
            found = up_to(largest, losses[name])
            row = f"{name:8}{largest:7}"
            for number in (1, 2, 5, 20):
                chance = chance_to_beat(losses["Polyak"], found, number)
                row += f"{chance:7.0%}"
            evens = [even_trials(losses[baseline], found) for baseline in UNTUNED]
            print(f"{row}{evens[0]:8}{evens[1]:8}")


# %%
# A solver has the same colour and dashes on all pages.
STYLES = {
    "SGD": {"color": "#cc79a7", "linestyle": ":"},
    "Polyak": {"color": "#0072b2", "linestyle": "-"},
    "Armijo": {"color": "#009e73", "linestyle": "--"},
    "Momentum": {"color": "#e69f00", "linestyle": (0, (5, 1))},
    "RMSProp": {"color": "#d55e00", "linestyle": "-."},
    "Adam": {"color": "#000000", "linestyle": (0, (1, 1))},
}


# %%
# Losses above 2.5 are outside the panels.
def plot_budgets(losses):
    """Plot the losses of winners against the number of trials."""
    options = {"sharey": True, "layout": "constrained", "figsize": (6.4, 3.6)}
    fig, axes = plt.subplots(1, 2, **options)
    numbers = np.arange(1, 31)
    for ax, largest in zip(axes, (100, 1), strict=True):
        for name, style in STYLES.items():
            if name in UNTUNED:
                ax.axhline(np.median(losses[name]), label=name, **style)
                continue
            found = up_to(largest, losses[name])
            rows = [quartiles_of_winners(found, number) for number in numbers]
            lower, median, upper = np.transpose(rows)
            ax.plot(numbers, median, label=name, **style)
            band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
            ax.fill_between(numbers, lower, upper, **band)
        ax.set(title=f"step sizes up to {largest}", xlabel="trials")
        ax.set(xscale="log", xticks=[1, 2, 5, 10, 20])
        ax.set(yscale="log", yticks=[0.5, 1, 2], ylim=(0.48, 2.5))
        ax.xaxis.set(major_formatter="{x:g}")
        ax.yaxis.set(major_formatter="{x:g}")
        ax.minorticks_off()
    axes[0].set(ylabel="loss of the winner")
    axes[1].legend(handlelength=3)
    fig.suptitle("Loss against the number of tuning runs")


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
# Six solvers, ten seeds
# ----------------------
# For each seed, all solvers get the same minibatches and the same initial parameters.
def main(argv):
    """Train with all solvers; return {solver: losses} and {solver: tries}."""
    settings = parse_flags(argv)
    (images, labels), _ = load("fashion_mnist", "train", 10_000)
    train = shrink(images), labels
    net = make_network(settings.num_features)
    keys = jax.vmap(jax.random.key)(np.arange(settings.num_seeds))
    params = jax.vmap(net.init, in_axes=(0, None))(keys, train[0][:1])
    starts = params, draw_steps(*train, settings)
    losses, tries = {}, {}
    for name, make_solver in SOLVERS.items():
        stepsizes = np.ones(1) if name in UNTUNED else CANDIDATES  # a cap of 1
        found, tries[name] = final_losses(make_solver, net, stepsizes, starts, train)
        # Infinite and NaN losses become a number that can be sorted.
        losses[name] = np.nan_to_num(found, nan=1e9, posinf=1e9)
    print_untuned(losses, tries)
    print_tuned(losses)
    plot_budgets(losses)
    return losses, tries


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# **Chances compare runs of the same seed.** So they need not follow from the medians:
# Armijo's loss is lower, but SGD beats it sooner. SGD only just beats Polyak (53% with
# 20 trials), so rounding errors can decide if it ever does so in half of cases.
#
# **Trials are the bill.** A tuned solver pays a run for each trial, and one more from
# another seed, which is not counted. Armijo's run costs 1.5 times as much as Polyak's.
#
# **A range is prior knowledge.** You know it from papers, or from earlier runs. With
# step sizes up to 1, a single trial of Adam beats Polyak in 47% of cases. Choi et al.
# [1]_ show that ranges can reverse the ranking of solvers.
#
# **Others count trials, too.** Sivaprasad et al. [2]_ find Adam best for small budgets.
# Schmidt et al. [3]_ find that trying many solvers at their defaults works as well as
# tuning one. AlgoPerf [4]_ ranks solvers with few trials, or with none.
#
# **A limitation:** only step sizes are tuned, and caps stay at 1. Schedules, momentum
# and weight decay would need more trials, and may gain more.
#
# **Next:** :doc:`Which methods need no learning rate? <plot_parameter_free>` tries
# solvers that need no trial. :doc:`Do I still need a schedule? <plot_schedule>` tunes
# step sizes with a schedule. To train for longer, try ``--num_steps=1000``.
#
# .. rubric:: References
#
# .. [1] Choi et al., 2019, `arXiv:1910.05446 <https://arxiv.org/abs/1910.05446>`__.
# .. [2] Sivaprasad et al., 2020, `arXiv:1910.11758 <https://arxiv.org/abs/1910.11758>`__.
# .. [3] Schmidt et al., 2021, `arXiv:2007.01547 <https://arxiv.org/abs/2007.01547>`__.
# .. [4] Dahl et al., 2023, `arXiv:2306.07179 <https://arxiv.org/abs/2306.07179>`__.
