# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "flax>=0.10.1", "importlib_resources", "jax>=0.4.38",
#   "matplotlib>=3.8.4", "numpy", "optax>=0.2.3", "requests",
#   "tensorflow-datasets", "tensorflow-cpu; platform_machine == 'x86_64'",
#   "tensorflow; platform_machine != 'x86_64'"]
# ///
r"""
Do I still need a schedule?
===========================
If a solver adapts each step size, do you still need a schedule that changes step sizes
over time? A schedule can multiply the steps of any solver. Four solvers train a small
network on Fashion-MNIST for 300 or 1,500 steps:

- :func:`SGD <optax.sgd>` and :func:`Adam <optax.adam>` have a step size. :func:`Polyak
  <optax.polyak_sgd>` [1]_ and :func:`Armijo
  <optax.scale_by_backtracking_linesearch>` [2]_ choose step sizes up to a *cap*;
- schedules are *constant*; *decay*, a straight line from 1 to 0; and *warm-up*, from 0
  to 1 in the first tenth of the steps, and then decay.

.. admonition:: In short

   - **Yes: decay helps in seven of eight cases.** It lowers the loss of tuned solvers
     by 3 to 8% (1 to 21% with new seeds). Armijo after 300 steps is 2% worse.
   - **With decay, too large a cap does little harm.** With caps of 1 to 10, the loss
     after 300 steps is at most 0.58. With a constant schedule, it is 0.6 to 0.9.
   - **Warm-up mostly helps further,** by 3 to 7% (-2 to 9% with new seeds). SGD after
     300 steps is 4% worse.
   - **The schedule goes last in a chain.** If it comes first, Polyak with a cap of 10
     has a loss of 1.7 instead of 0.54 (above 1 with new seeds).

Numbers are medians over five seeds of the training loss of one network. Tuned solvers
have, for each seed, the step size or cap that is best on the other seeds.

**Figure:** training loss after 300 steps against the step size or cap, with a constant
schedule (left), with decay (middle) and with warm-up (right). Lines are medians over
five seeds, and bands hold the middle half of them. Losses above 0.9 are not shown.
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
# Schedules
# ---------
# A schedule is a function of the number of steps so far. ``optax.scale_by_schedule``
# multiplies steps by the value of the schedule. Put it after the rule in the chain.
def decay(num_steps):
    """Return a schedule that falls from 1 to 0."""
    return optax.linear_schedule(1.0, 0.0, num_steps)


def warm_up_and_decay(num_steps):
    """Return a schedule that rises from 0 to 1 in a tenth of the steps, and falls."""
    rise = num_steps // 10
    parts = [optax.linear_schedule(0.0, 1.0, rise), decay(num_steps - rise)]
    return optax.join_schedules(parts, [rise])


def with_schedule(rule, schedule):
    """Return a rule whose steps are multiplied by a schedule."""
    return optax.chain(rule, optax.scale_by_schedule(schedule))


SCHEDULES = {
    "constant": lambda num_steps: optax.constant_schedule(1.0),
    "decay": decay,
    "warm-up": warm_up_and_decay,
}


# %%
# Solvers
# -------
# Each solver comes with the step sizes, or caps, that it is tuned over.
def armijo(cap):
    """Return SGD with a line search whose step sizes are at most ``cap``."""
    line_search = optax.scale_by_backtracking_linesearch(
        max_backtracking_steps=30,  # the step shrinks by a fifth each time
        slope_rtol=0.1,  # the least share of the decrease that the gradient predicts
        max_learning_rate=cap,
    )
    return optax.chain(optax.sgd(1.0), line_search)


CAPS_TO_TRY = np.array([0.2, 0.5, 1.0, 3.0, 10.0])
SOLVERS = {
    "SGD": (optax.sgd, np.array([0.2, 0.4, 0.8, 1.6])),
    "Polyak": (optax.polyak_sgd, CAPS_TO_TRY),
    "Armijo": (armijo, CAPS_TO_TRY),
    "Adam": (optax.adam, np.array([0.005, 0.01, 0.02, 0.04, 0.08])),
}


# %%
# The order in a chain
# --------------------
# A rule that comes after decay gets a gradient times a factor, which falls from 1 to 0.
# Optax's Polyak divides the loss by the squared norm of this product. So its step is
# 1 / factor times as long, until its step size reaches the cap.
def with_schedule_first(rule, schedule):
    """Return a rule whose gradients are multiplied by a schedule: a mistake."""
    return optax.chain(optax.scale_by_schedule(schedule), rule)


# %%
# Training
# --------
# All solvers share one loop. ``factors`` are the values of a schedule. They are an
# argument of the compiled function, so that one compilation serves all schedules.
@partial(jax.jit, static_argnums=(0, 1, 3))
def losses_with_schedule(combine, make_solver, stepsizes, net, factors, starts, train):
    """Return final losses, a row for each seed and a column for each step size.

    ``combine`` makes a solver of a rule and a schedule.
    """

    def run(stepsize, params, minibatches):
        solver = combine(make_solver(stepsize), lambda count: factors[count])
        solver = optax.with_extra_args_support(solver)

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
        loss = cross_entropy(net, params, *train)
        return jax.numpy.nan_to_num(loss, nan=1e9, posinf=1e9)  # ranks last

    run_seed = jax.vmap(run, in_axes=(0, None, None))
    return jax.lax.map(lambda start: run_seed(stepsizes, *start), starts)


# %%
# Each seed is tuned on the others, and reports its loss at the step size found.
def tune_on_others(losses):
    """Return the loss of each seed at the step size that is best on the other seeds.

    ``losses`` has a row for each seed and a column for each step size.
    """
    seeds = range(len(losses))
    others = [np.median(np.delete(losses, seed, axis=0), axis=0) for seed in seeds]
    return np.array([losses[seed, others[seed].argmin()] for seed in seeds])


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
    integer("num_seeds", 5, "runs of each solver with each step size", 2, 20)
    integer("num_steps", 1_500, "steps of a run; a short run has a fifth", 50, 10_000)
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
# Losses of the first table are those of ``tune_on_others``. Best step sizes have the
# least median over all seeds, for the three schedules. The second table is for runs of
# a fifth of the steps, with a schedule of their own.
def print_schedules(results):
    """Print a row for each solver and length, from {length: {schedule: losses}}."""
    print("Loss with a tuned step size or cap, median over seeds:")
    print("                                           best step sizes")
    print("solver  steps  constant  decay  warm-up            or caps")
    print("------  -----  --------  -----  -------  -----------------")
    for name, (_, stepsizes) in SOLVERS.items():
        for length, by_schedule in results.items():
            found = [losses[name] for losses in by_schedule.values()]
            tuned = [np.median(tune_on_others(losses)) for losses in found]
            best = [np.median(losses, axis=0).argmin() for losses in found]
            row = "{:10.3f}{:7.3f}{:9.3f}".format(*tuned)
            shown = ", ".join(f"{stepsizes[i]:g}" for i in best)
            print(f"{name:6}{length:7}{row}{shown:>19}")


def print_caps(by_schedule):
    """Print a row for each solver with a cap, and schedule."""
    print("\nLoss of the short run by cap, median over seeds:")
    print("solver  schedule        0.5       1       3      10")
    print("------  -----------  ------  ------  ------  ------")
    for title in ("constant", "decay", "decay first"):
        for name in [
            name for name in by_schedule[title] if name in ("Polyak", "Armijo")
        ]:
            medians = np.median(by_schedule[title][name], axis=0)[CAPS_TO_TRY >= 0.5]
            print(f"{name:8}{title:11}" + "".join(f"{loss:8.3f}" for loss in medians))


# %%
# A solver has the same colour and dashes on all pages.
STYLES = {
    "SGD": {"color": "#cc79a7", "linestyle": ":"},
    "Polyak": {"color": "#0072b2", "linestyle": "-"},
    "Armijo": {"color": "#009e73", "linestyle": "--"},
    "Adam": {"color": "#000000", "linestyle": (0, (1, 1))},
}


def plot_band(ax, x, rows, **style):
    """Plot the median of ``rows`` (seeds, points), and a band between quartiles."""
    lower, median, upper = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    ax.plot(x, median, **style)
    ax.fill_between(x, lower, upper, color=style["color"], alpha=0.2, linewidth=0)


# %%
# Each schedule has a panel.
def plot_schedules(by_schedule):
    """Plot losses against step sizes, with a panel for each schedule."""
    options = {"sharey": True, "layout": "constrained", "figsize": (7, 3.1)}
    fig, axes = plt.subplots(1, 3, **options)
    for ax, (title, losses) in zip(axes, by_schedule.items(), strict=True):
        for name, style in STYLES.items():
            _, stepsizes = SOLVERS[name]
            style = style | {"label": name, "marker": "o", "linewidth": 2.5}
            plot_band(ax, stepsizes, losses[name], **style)
        ax.set(title=title, xlabel="step size or cap", xscale="log")
        ax.set(yscale="log", yticks=[0.5, 0.6, 0.7, 0.8], ylim=(0.43, 0.9))
        ax.yaxis.set(major_formatter="{x:g}")
        ax.yaxis.minorticks_off()
    axes[0].set(ylabel="loss")
    options = {"loc": "outside lower center", "ncols": 4, "handlelength": 3}
    fig.legend(handles=axes[0].lines, **options)
    fig.suptitle("Loss with and without a schedule")


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
# Four solvers, three schedules
# -----------------------------
# For each seed, all solvers get the same minibatches and the same initial parameters.
def values_of(make_schedule, num_steps):
    """Return the values of a schedule at all steps, an array (num_steps,)."""
    return jax.vmap(make_schedule(num_steps))(np.arange(num_steps))


def train_all(num_steps, net, starts, train):
    """Return {schedule: {solver: losses (seeds, step sizes)}}."""
    results = {}
    for title, make_schedule in SCHEDULES.items():
        shared = net, values_of(make_schedule, num_steps), starts, train
        results[title] = {
            name: losses_with_schedule(with_schedule, *solver, *shared)
            for name, solver in SOLVERS.items()
        }
    return results


# %%
# The short run has the first fifth of the minibatches, and a schedule of its own.
def main(argv):
    """Train with all solvers and schedules; return the losses.

    These are {length: {schedule: {solver: losses}}}, and those of Polyak after decay.
    """
    settings = parse_flags(argv)
    (images, labels), _ = load("fashion_mnist", "train", 10_000)
    train = shrink(images), labels
    net = nn.Sequential((nn.Dense(32), nn.relu, nn.Dense(10)))
    keys = jax.vmap(jax.random.key)(np.arange(settings.num_seeds))
    params = jax.vmap(net.init, in_axes=(0, None))(keys, train[0][:1])
    starts = jax.device_put((params, draw_steps(*train, settings)))
    short = settings.num_steps // 5
    short_starts = params, [x[:, :short] for x in starts[1]]
    results = {
        short: train_all(short, net, short_starts, train),
        settings.num_steps: train_all(settings.num_steps, net, starts, train),
    }
    shared = net, values_of(decay, short), short_starts, train
    losses = losses_with_schedule(with_schedule_first, *SOLVERS["Polyak"], *shared)
    print_schedules(results)
    print_caps(results[short] | {"decay first": {"Polyak": losses}})
    plot_schedules(results[short])
    return results, losses


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# **A step size has two effects.** Long steps make progress early. Late, they can keep
# the loss up, because minibatches disagree. A constant step size or cap is a compromise
# between the two. With decay, the first steps can be longer: the best step size of SGD
# grows from 0.4 to 0.8, and that of Adam from 0.01 to 0.02 or 0.04.
#
# **Polyak and Armijo see one minibatch at a time.** So decay may help them: each
# minibatch may allow a long step, even late. With decay, Polyak's best cap after 300
# steps is 10, the largest that was tried.
#
# **How to write it:** ``optax.chain(rule, optax.scale_by_schedule(schedule))``. For SGD
# and Adam, the schedule can also replace the step size, as in
# ``optax.adam(optax.linear_schedule(0.02, 0.0, num_steps))``.
#
# **Limitations:** only training losses are compared, and the page does not tell why
# warm-up helps. Decay must know the number of steps. Schedule-Free in :doc:`Which
# methods need no learning rate? <plot_parameter_free>` need not.
#
# **Next:** :doc:`Does a larger batch repair my step size? <plot_batch_size>` tries
# another cure for disagreeing minibatches. Try ``--num_seeds=20``: does decay then help
# Armijo after 300 steps?
#
# .. rubric:: References
#
# .. [1] Loizou et al., 2021, `arXiv:2002.10542 <https://arxiv.org/abs/2002.10542>`__.
# .. [2] Vaswani et al., 2019, `arXiv:1905.09997 <https://arxiv.org/abs/1905.09997>`__.
