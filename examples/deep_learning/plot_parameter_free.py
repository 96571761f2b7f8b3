# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "flax>=0.10.1", "importlib_resources", "jax>=0.4.38",
#   "matplotlib>=3.8.4", "numpy", "optax>=0.2.5", "requests",
#   "tensorflow-datasets", "tensorflow-cpu; platform_machine == 'x86_64'",
#   "tensorflow; platform_machine != 'x86_64'"]
# ///
r"""
Which methods need no learning rate?
====================================
Which optimizers of Optax match a tuned Adam if you leave their *learning rate* (step
size) at its default? Twelve solvers train on Fashion-MNIST:

- :func:`DoG <optax.contrib.dog>` [1]_, :func:`DoWG <optax.contrib.dowg>` [2]_,
  :func:`D-Adaptation <optax.contrib.dadapt_adamw>` [3]_ and :func:`Prodigy
  <optax.contrib.prodigy>` [4]_ learn a rate from how far parameters have moved;
- :func:`COCOB <optax.contrib.cocob>` [5]_ sets steps like bets, and :func:`Mechanic
  <optax.contrib.mechanize>` [6]_ scales the steps of SGD or Adam;
- Schedule-Free :func:`SGD <optax.contrib.schedule_free_sgd>` and :func:`AdamW
  <optax.contrib.schedule_free_adamw>` [7]_ use an average of the parameters;
- Polyak and Armijo have a cap (largest step size) of 1, and Adam the usual 0.001.

.. admonition:: In short

   - **Schedule-Free SGD and Prodigy match tuned Adam.** After 300 and 1,500 steps,
     their losses are 0.96 to 1.01 times that of tuned Adam. COCOB has 1.08 and 1.07
     times (up to 1.2 with new seeds), most others 1.1 to 1.4, and DoWG 3.
   - **Longer training changes the order.** D-Adaptation falls behind, from 1.05 to 1.27
     times (above 1.1 with new seeds), and DoG catches up.
   - **A default may not be the best rate.** At ten times the rate, Schedule-Free AdamW
     goes from 1.2 to 0.9 times, but Schedule-Free SGD to 5 (above 3 with new seeds).

Numbers are medians over five seeds of the training loss of one network. The rate of
tuned Adam on a seed is the best of four on the other four seeds.

**Figure:** left, loss over that of tuned Adam (lower is better), with error bars from
the lowest to the highest of five seeds; DoWG ends outside. Right, rates that three
solvers learn, and tuned rates (dotted).
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
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import requests
import tensorflow_datasets as tfds
from absl import flags
from optax import contrib


# %%
# Solvers
# -------
# Each solver comes with a tenth of its default rate, its default, and ten times that.
# Polyak and Armijo have caps instead. Mechanic scales SGD with 1, and Adam with 0.001.
def armijo(cap):
    """Return SGD with a line search whose step sizes are at most ``cap``."""
    line_search = optax.scale_by_backtracking_linesearch(
        max_backtracking_steps=30,  # the step shrinks by a fifth each time
        slope_rtol=0.1,  # the least share of the decrease that the gradient predicts
        max_learning_rate=cap,
    )
    return optax.chain(optax.sgd(1.0), line_search)


SCALES = np.array([0.1, 1.0, 10.0])
SOLVERS = {
    "Schedule-Free SGD": (contrib.schedule_free_sgd, SCALES),
    "Prodigy": (contrib.prodigy, SCALES),
    "COCOB": (contrib.cocob, SCALES),
    "D-Adaptation": (contrib.dadapt_adamw, SCALES),
    "DoG": (contrib.dog, SCALES),
    "Polyak": (optax.polyak_sgd, SCALES),
    "Armijo": (armijo, SCALES),
    "Schedule-Free AdamW": (contrib.schedule_free_adamw, 0.0025 * SCALES),
    "Mechanic SGD": (lambda x: contrib.mechanize(optax.sgd(x)), SCALES),
    "Mechanic Adam": (lambda x: contrib.mechanize(optax.adam(x)), 0.001 * SCALES),
    "Adam at 0.001": (optax.adam, 0.001 * SCALES),  # the default in other libraries
    "DoWG": (contrib.dowg, SCALES),
}
BASELINES = {
    "tuned SGD": (optax.sgd, np.array([0.1, 0.2, 0.4, 0.8])),
    "tuned Momentum": (partial(optax.sgd, momentum=0.9), np.geomspace(0.025, 0.2, 4)),
    "tuned Adam": (optax.adam, np.array([0.005, 0.01, 0.02, 0.04])),
}


# %%
# Where to evaluate
# -----------------
# Schedule-Free computes gradients at one set of parameters, and returns another set, an
# average, from :func:`optax.contrib.schedule_free_eval_params`.
def params_to_use(state, params):
    """Return the parameters to evaluate after training, of any solver."""
    if isinstance(state, contrib.ScheduleFreeState):
        return contrib.schedule_free_eval_params(state, params)
    return params


def learned_rate(state):
    """Return the learning rate in a state of Prodigy, D-Adaptation or DoG, or NaN."""
    distance = optax.tree.get(state, "max_dist", jnp.nan)  # of DoG from its start
    dog_rate = distance / jnp.sqrt(optax.tree.get(state, "sum_sq_norm_grads", 1.0))
    return optax.tree.get(state, "estim_lr", dog_rate)


# %%
# Training
# --------
# All solvers share one loop. The loop offers the gradient, the loss (for Polyak) and
# the loss as a function (for Armijo). Each solver uses those that it needs.
class Runs(NamedTuple):
    """What is recorded, (seeds, rates, 2): after a short and after a long run."""

    losses: jax.Array  # at the parameters to use
    losses_in_training: jax.Array  # where gradients are computed
    learned: jax.Array  # learning rates, (seeds, rates, 5, steps // 5)


# %%
# A run has five parts. The short run ends with the first, and the long run with the
# last. ``vmap`` trains with all rates at once, and ``map`` takes seed after seed.
@partial(jax.jit, static_argnums=(0, 1))
def record_runs(make_solver, net, rates, starts, train):
    """Train from ``starts``, parameters and minibatches by seed; return ``Runs``."""

    def run(rate, params, minibatches):
        solver = optax.with_extra_args_support(make_solver(rate))

        def step(carry, minibatch):
            params, state = carry
            images, labels = minibatch
            loss = partial(cross_entropy, net, images=images, labels=labels)
            value, grad = jax.value_and_grad(loss)(params)
            extra = {"value": value, "grad": grad, "value_fn": loss}
            updates, state = solver.update(grad, state, params, **extra)
            return (optax.apply_updates(params, updates), state), learned_rate(state)

        def train_part(carry, part):
            (params, state), learned = jax.lax.scan(step, carry, part)
            return (params, state), (params_to_use(state, params), params, learned)

        parts = [x.reshape(5, -1, *x.shape[1:]) for x in minibatches]
        start = params, solver.init(params)
        _, (*path, learned) = jax.lax.scan(train_part, start, parts)
        ends = jax.tree.map(lambda leaf: leaf[jnp.array([0, -1])], path)
        train_loss = jax.vmap(lambda params: cross_entropy(net, params, *train))
        return Runs(*map(train_loss, ends), learned)

    run_seed = jax.vmap(run, in_axes=(0, None, None))
    return jax.lax.map(lambda start: run_seed(rates, *start), starts)


# %%
# A tuned solver has, for each seed, the learning rate that is best on the others.
def tune_on_others(losses):
    """Return the loss of each seed at the step size that is best on the other seeds.

    ``losses`` has a row for each seed and a column for each step size.
    """
    seeds = range(len(losses))
    others = [np.median(np.delete(losses, seed, axis=0), axis=0) for seed in seeds]
    return np.array([losses[seed, others[seed].argmin()] for seed in seeds])


def compare_to_adam(runs):
    """Return {solver: loss over that of tuned Adam (seeds, 2)} from {solver: Runs}."""
    losses = {name: runs[name].losses[:, 1] for name in SOLVERS}  # at the default
    for name in BASELINES:
        short, long = np.moveaxis(runs[name].losses, -1, 0)
        losses[name] = np.stack([tune_on_others(short), tune_on_others(long)], axis=1)
    return {name: found / losses["tuned Adam"] for name, found in losses.items()}


# %%
# Model and loss
# --------------
# The network, made in ``main``, has 32 hidden units and 6,634 parameters.
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
# Flags change the settings, as in ``--num_seeds=2``, and ``--help`` lists all flags.
def parse_flags(argv):
    """Return the settings in ``argv``; exit with one line if one of them is wrong."""
    settings = flags.FlagValues()
    integer = partial(flags.DEFINE_integer, flag_values=settings)
    integer("num_seeds", 5, "runs of each solver with each learning rate", 2, 20)
    integer("num_steps", 1_500, "steps of a run; a short run has a fifth", 5, 10_000)
    integer("batch_size", 64, "images in a minibatch", 1, 1_000)
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
# Losses are divided by that of tuned Adam on the same seed.
def print_ratios(ratios, runs, num_steps):
    """Print a row for each solver, from {solver: ratios (seeds, 2)} and its runs."""
    print("Loss over tuned Adam's by steps, and with other rates:")
    print(f"{'':19}{num_steps // 5:8}{num_steps:8}{num_steps:13}{num_steps:13}")
    print("solver                steps   steps   rate x 0.1    rate x 10")
    print("-------------------  ------  ------  -----------  -----------")
    for name in SOLVERS:
        losses = runs[name].losses[..., 1]
        scaled = ratios[name][:, 1:] * losses / losses[:, 1:2]  # with all three rates
        medians = [*np.median(ratios[name], axis=0), *np.median(scaled, axis=0)[[0, 2]]]
        cells = [f"{x:.2f}" if x < 10 else "> 10" for x in medians]
        print("{:19}{:>8}{:>8}{:>13}{:>13}".format(name, *cells))
    print("\nLoss where gradients are computed, over that of the average:")
    for name in ("Schedule-Free SGD", "Schedule-Free AdamW"):
        change = runs[name].losses_in_training[:, 1] / runs[name].losses[:, 1]
        print(f"{name}: " + "{:.3f} and {:.3f}".format(*np.median(change, axis=0)))


# %%
# A solver has the same colour and dashes on all pages.
STYLES = {
    "DoG": {"color": "#228833", "linestyle": (0, (4, 1, 1, 1))},
    "tuned SGD": {"color": "#cc79a7", "linestyle": ":"},
    "D-Adaptation": {"color": "#ccbb44", "linestyle": (0, (7, 2))},
    "Prodigy": {"color": "#ee6677", "linestyle": "-"},
    "tuned Adam": {"color": "#000000", "linestyle": (0, (1, 1))},
}


def plot_band(ax, x, rows, **style):
    """Plot the median of ``rows`` (seeds, points), and a band between quartiles."""
    lower, median, upper = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    ax.plot(x, median, **style)
    ax.fill_between(x, lower, upper, color=style["color"], alpha=0.2, linewidth=0)


# %%
# Bars have the losses of the short and of the long run.
def plot_all(ratios, runs, num_steps):
    """Plot ratios of both runs, and the learned rates."""
    fig, axes = plt.subplots(1, 3, figsize=(7.2, 3.8), layout="constrained")
    for i, ax in enumerate(axes[:2]):
        rows = np.transpose([found[:, i] for found in ratios.values()])
        low, median, high = np.quantile(rows, [0, 0.5, 1], axis=0)
        ax.barh(list(ratios), median, xerr=[median - low, high - median], color="0.6")
        ax.axvline(1, color="0.2", linewidth=1)
        ax.set(title=f"{(num_steps // 5, num_steps)[i]:,} steps")
        ax.set(xlabel="relative loss", xlim=(0, 1.7), ylim=(len(ratios), -1))
    axes[1].tick_params(labelleft=False)
    for name, style in STYLES.items():
        if name in BASELINES:
            best = np.median(runs[name].losses[..., -1], axis=0).argmin()
            axes[2].axhline(BASELINES[name][1][best], label=name, **style)
        else:
            learned = runs[name].learned[:, 1].reshape(-1, num_steps)
            plot_band(axes[2], range(num_steps), learned, label=name, **style)
    axes[2].set(title="learning rate", xlabel="iteration", yscale="log")
    axes[2].legend(handlelength=2.5, fontsize="small")
    fig.suptitle("Losses and learning rates, default and tuned")


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
# Twelve solvers and three tuned ones
# -----------------------------------
# For each seed, all solvers get the same minibatches and the same initial parameters.
# The short run is the first fifth of the long one.
def main(argv):
    """Train with all solvers; return {solver: ratios (seeds, 2)} and {solver: Runs}."""
    settings = parse_flags(argv)
    settings.num_steps -= settings.num_steps % 5  # parts of a run have equal lengths
    (images, labels), _ = load("fashion_mnist", "train", 10_000)
    train = shrink(images), labels
    net = nn.Sequential((nn.Dense(32), nn.relu, nn.Dense(10)))
    keys = jax.vmap(jax.random.key)(np.arange(settings.num_seeds))
    params = jax.vmap(net.init, in_axes=(0, None))(keys, train[0][:1])
    starts = jax.device_put((params, draw_steps(*train, settings)))
    runs = {}
    for name, (make_solver, rates) in (SOLVERS | BASELINES).items():
        found = record_runs(make_solver, net, rates, starts, train)
        losses = np.nan_to_num(found.losses, nan=1e9, posinf=1e9)  # ranks last
        runs[name] = found._replace(losses=losses)
    ratios = compare_to_adam(runs)
    print_ratios(ratios, runs, settings.num_steps)
    plot_all(ratios, runs, settings.num_steps)
    return ratios, runs


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# **D-Adaptation learns too large a rate for a long run.** It learns 0.04, and the best
# rate of Adam is 0.01 after 1,500 steps. With a tenth of its default, D-Adaptation has
# 1.1 times the loss of tuned Adam. DoG learns 0.4, which is also the best rate of SGD.
#
# **COCOB ignores its learning rate.** Its losses with a tenth and with ten times its
# default are equal to two decimals.
#
# **The average of Schedule-Free matters little here.** Where gradients are computed,
# losses are 1 to 2% higher for SGD and 1 to 2% lower for AdamW.
#
# **A limitation:** only training losses of a small network are compared. On the larger
# networks of AlgoPerf [8]_, solvers without a learning rate do poorly with defaults
# from papers. Better defaults put them just behind NadamW, a kind of Adam [9]_.
#
# **Next:** :doc:`How many tuning runs is an adaptive step worth? <plot_tuning_budget>`
# counts what tuning costs. To train for longer, try ``--num_steps=5000``.
#
# .. rubric:: References
#
# .. [1] Ivgi et al., 2023, `arXiv:2302.12022 <https://arxiv.org/abs/2302.12022>`__.
# .. [2] Khaled et al., 2023, `arXiv:2305.16284 <https://arxiv.org/abs/2305.16284>`__.
# .. [3] Defazio and Mishchenko, 2023, `arXiv:2301.07733
#    <https://arxiv.org/abs/2301.07733>`__.
# .. [4] Mishchenko and Defazio, 2024, `arXiv:2306.06101
#    <https://arxiv.org/abs/2306.06101>`__.
# .. [5] Orabona and Tommasi, 2017, `arXiv:1705.07795
#    <https://arxiv.org/abs/1705.07795>`__.
# .. [6] Cutkosky et al., 2023, `arXiv:2306.00144 <https://arxiv.org/abs/2306.00144>`__.
# .. [7] Defazio et al., 2024, `arXiv:2405.15682 <https://arxiv.org/abs/2405.15682>`__.
# .. [8] Dahl et al., 2023, `arXiv:2306.07179 <https://arxiv.org/abs/2306.07179>`__.
# .. [9] Kasimbeg et al., 2025, `arXiv:2505.24005 <https://arxiv.org/abs/2505.24005>`__.
