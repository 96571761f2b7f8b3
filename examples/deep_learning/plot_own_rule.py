# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "flax>=0.10.1", "importlib_resources", "jax>=0.4.38",
#   "matplotlib>=3.8.4", "numpy", "optax>=0.2.5", "requests",
#   "tensorflow-datasets", "tensorflow-cpu; platform_machine == 'x86_64'",
#   "tensorflow; platform_machine != 'x86_64'"]
# ///
r"""
How do I write my own step-size rule in Optax?
==============================================
How do you write a rule that sets the step size from the loss and the gradient, and
where does it go in a chain? Three rules train a small network on Fashion-MNIST:

- Polyak, which is ``optax.polyak_sgd`` in ten lines, has the step size :math:`f /
  \|\nabla f\|^2`, where :math:`f` is the loss of the minibatch [1]_;
- DecSPS, a Polyak step that shrinks over time, has a state that a loop can log [2]_;
- Goldstein, a line search, evaluates the loss once or more in each step.

.. admonition:: In short

   - **A rule is two functions,** ``init`` **and** ``update``. The loop passes the loss
     (``value``), the gradient (``grad``) and the loss function (``value_fn``) by name.
   - **A rule goes before an average.** With a *cap* (largest step size) of 10, the loss
     is then 0.57, and 2.35 in the other order. With a cap of 1, it is 0.54 and 0.57.
   - **Goldstein suits caps of 1 to 100, and DecSPS lags here.** Goldstein has a loss of
     0.6, and DecSPS of 0.8 or more. Polyak has 0.6 with a cap of 1.

Losses are medians over five seeds, for one network and 300 steps, about two epochs.
With other seeds and a cap of 10, the wrong order has a loss of 1.1 to 2.4.

**Figure:** logged step sizes of DecSPS and Goldstein, with a cap of 10 (top), and loss
of up to 1.1 against the cap (bottom). Bands hold the middle half of five seeds.
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


# %%
# A rule in ten lines
# -------------------
# ``update`` takes the gradient, or what an earlier part of a chain made of it, and
# returns the step, to be added. ``grad`` is always the gradient itself.
def polyak(cap):
    """Return Polyak's rule with step sizes of at most ``cap``, for losses above 0."""

    def update(updates, state, params=None, *, value, grad, **_):
        ratio = value / optax.tree.norm(grad, squared=True)
        stepsize = jnp.fmin(ratio, cap)  # fmin ignores a NaN, as of 0 / 0
        steps = optax.tree.scale(-stepsize, updates)
        return optax.tree.cast_like(steps, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


# %%
# A rule with a state
# -------------------
# At step k, counted from 0, DecSPS divides the smallest of the cap and all ratios by
# :math:`\sqrt{k + 1}`. The step size is in the state, so that a loop can log it.
# ``cast_like`` keeps the types of a state, as ``scan`` demands.
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


# %%
# A rule that evaluates the loss
# ------------------------------
# A step is too long if the loss falls by less than ``share`` of what the gradient
# predicts, and too short if by more than ``1 - share``.
def search_goldstein(loss_after, stepsize, value, squared_norm, share, cap, maxls):
    """Return the state after a search of at most ``maxls`` rounds."""

    def rescale_if(wrong, factor, size, loss):
        new = jnp.minimum(factor * size, cap)
        return jax.lax.cond(wrong, lambda: (new, loss_after(new)), lambda: (size, loss))

    def rescale(carry):
        stepsize, loss, _, rounds, trials = carry
        fall = value - loss + jnp.finfo(loss.dtype).eps
        too_long = ~(fall >= stepsize * share * squared_norm)  # also if it is NaN
        stepsize, loss = rescale_if(too_long, 0.8, stepsize, loss)
        too_short = loss < value - stepsize * (1 - share) * squared_norm
        stepsize, loss = rescale_if(too_short, 1.5, stepsize, loss)
        trials += too_long.astype(int) + too_short
        return stepsize, loss, too_long | too_short, rounds + 1, trials

    start = stepsize, loss_after(stepsize), True, 0, 1
    end = jax.lax.while_loop(lambda x: x[2] & (x[3] < maxls), rescale, start)
    return {"learning_rate": end[0], "num_linesearch_steps": end[-1]}


# %%
# It starts from the last step size. ``updates`` must be minus the gradient.
def scale_by_goldstein(maxls, slope_rtol, max_learning_rate):
    """Return Goldstein's rule as a transformation, with at most ``maxls`` rounds."""

    def init(params):
        cap = jnp.array(max_learning_rate, optax.tree.dtype(params, "highest"))
        return {"learning_rate": cap, "num_linesearch_steps": jnp.array(0)}

    def update(updates, state, params, *, value, grad, value_fn, **_):
        def scaled(stepsize):
            return optax.tree.cast_like(optax.tree.scale(stepsize, updates), updates)

        def loss_after(stepsize):
            return value_fn(optax.apply_updates(params, scaled(stepsize)))

        start = state["learning_rate"], value, optax.tree.norm(grad, squared=True)
        new = search_goldstein(loss_after, *start, slope_rtol, max_learning_rate, maxls)
        return scaled(new["learning_rate"]), new

    return optax.GradientTransformationExtraArgs(init, update)


# %%
# Rules in a chain
# ----------------
# ``optax.ema(0.9)`` averages over about ten steps. One chain has this average after the
# rule, and one before it.
goldstein = partial(scale_by_goldstein, 20, 0.1)  # maxls, slope_rtol
SOLVERS = {
    "Polyak": polyak,
    "DecSPS": dec_sps,
    "Goldstein": lambda cap: optax.chain(optax.sgd(1.0), goldstein(cap)),
    "Polyak, average": lambda cap: optax.chain(polyak(cap), optax.ema(0.9)),
    "average, Polyak": lambda cap: optax.chain(optax.ema(0.9), polyak(cap)),
}
CAPS = np.array([0.1, 1.0, 10.0, 100.0])


# %%
# The loop
# --------
# The loop passes everything that a rule may ask for. ``optax.tree.get`` finds a field
# by its name in the state. ``vmap`` takes all caps at once, and ``map`` seed by seed.
@partial(jax.jit, static_argnums=(0, 1))
def train_and_log(make_solver, net, starts, train):
    """Return final losses (seeds, caps) and step sizes (seeds, caps, steps)."""

    def run(cap, params, minibatches):
        solver = optax.with_extra_args_support(make_solver(cap))

        def step(carry, minibatch):
            params, state = carry
            images, labels = minibatch
            loss = partial(cross_entropy, net, images=images, labels=labels)
            value, grad = jax.value_and_grad(loss)(params)
            extra = {"value": value, "grad": grad, "value_fn": loss}
            updates, state = solver.update(grad, state, params, **extra)
            stepsize = optax.tree.get(state, "learning_rate", jnp.nan)
            return (optax.apply_updates(params, updates), state), stepsize

        start = params, solver.init(params)
        (params, _), stepsizes = jax.lax.scan(step, start, minibatches)
        return cross_entropy(net, params, *train), stepsizes

    run_caps = jax.vmap(run, in_axes=(0, None, None))
    return jax.lax.map(lambda start: run_caps(CAPS, *start), starts)


# %%
# Tests that a rule deserves
# --------------------------
# Check a rule by hand. A loss ten times as large should hardly change x. A gradient of
# zero should not move x. A search should skip trials whose loss is NaN (last case).
def print_cases():
    """Print a row for each case: x after one step of each rule, with a cap of 4."""
    cases = {
        "x² / 2 from 1": (lambda x: x**2 / 2, 1.0),
        "5 x² from 1": (lambda x: 5 * x**2, 1.0),
        "x² / 2 from 0": (lambda x: x**2 / 2, 0.0),
        "x² - log x from 2": (lambda x: x**2 - jnp.log(x), 2.0),
    }
    print("\nChecks by hand: x after one step, with a cap of 4:")
    print("case               Polyak  DecSPS  Goldstein")
    print("-----------------  ------  ------  ---------")
    for case, (loss, start) in cases.items():
        x, ends = jnp.array(start), []
        value, grad = jax.value_and_grad(loss)(x)
        extra = {"value": value, "grad": grad, "value_fn": loss}
        for rule in (polyak(4.0), dec_sps(4.0), SOLVERS["Goldstein"](4.0)):
            step, _ = rule.update(grad, rule.init(x), x, **extra)
            ends.append(x + step)
        print("{:17}{:8.2f}{:8.2f}{:11.2f}".format(case, *ends))


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
# The data is that of the page about step sizes: 10,000 images of 14x14 pixels.
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
    integer("num_seeds", 5, "runs of each solver with each cap", 1, 20)
    integer("num_steps", 300, "steps of a run", 1, 10_000)
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
# The first table has medians over the seeds.
def print_losses(results):
    """Print a row for each solver, from {solver: (losses, stepsizes)}."""
    print("Training loss after the last step:")
    print("solver           cap 0.1  cap 1  cap 10  cap 100")
    print("---------------  -------  -----  ------  -------")
    for name, (losses, _) in results.items():
        cells = np.median(losses, axis=0)
        print("{:15}{:9.2f}{:7.2f}{:8.2f}{:9.2f}".format(name, *cells))


# %%
# A solver has the same colour and dashes on all pages. Losses above 1.1 are left out.
STYLES = {
    "Polyak": {"color": "#0072b2", "linestyle": "-"},
    "DecSPS": {"color": "#000000", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    "Goldstein": {"color": "#882255", "linestyle": (0, (6, 1, 1, 1))},
    "Polyak, average": {"color": "#56b4e9", "linestyle": (0, (3, 1))},
    "average, Polyak": {"color": "#d55e00", "linestyle": (0, (1, 2))},
}


def plot_band(ax, x, rows, **style):
    """Plot the median of ``rows`` (seeds, points), and a band between quartiles."""
    lower, median, upper = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    ax.plot(x, median, **style)
    ax.fill_between(x, lower, upper, color=style["color"], alpha=0.2, linewidth=0)


def plot_rules(results):
    """Plot losses against caps, and logged step sizes against iterations."""
    fig, (step_ax, loss_ax) = plt.subplots(2, 1, figsize=(5.4, 5), layout="constrained")
    for name, (losses, stepsizes) in results.items():
        style = STYLES[name] | {"label": name}
        plot_band(loss_ax, CAPS, losses, **style)
        if not np.isnan(stepsizes).any():
            steps = np.arange(stepsizes.shape[-1])
            plot_band(step_ax, steps, stepsizes[:, CAPS == 10][:, 0], **style)
    loss_ax.set(xscale="log", xlabel="cap", ylabel="training loss", ylim=(0.5, 1.1))
    step_ax.legend(handles=loss_ax.lines, ncols=2, handlelength=3)
    step_ax.set(yscale="log", xlabel="iteration", ylabel="step size")
    fig.suptitle("Losses and step sizes of own rules")


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
# Five solvers, four caps
# -----------------------
# For each seed, all solvers get the same minibatches and the same initial parameters.
def main(argv):
    """Train with each solver and cap; return {solver: (losses, stepsizes)}."""
    settings = parse_flags(argv)
    (images, labels), _ = load("fashion_mnist", "train", 10_000)
    train = shrink(images), labels
    net = nn.Sequential((nn.Dense(32), nn.relu, nn.Dense(10)))
    keys = jax.vmap(jax.random.key)(np.arange(settings.num_seeds))
    params = jax.vmap(net.init, in_axes=(0, None))(keys, train[0][:1])
    starts = params, draw_steps(*train, settings)
    results = {}
    for name, make_solver in SOLVERS.items():
        losses, stepsizes = train_and_log(make_solver, net, starts, train)
        results[name] = np.nan_to_num(losses, nan=1e9, posinf=1e9), np.array(stepsizes)
    print_losses(results)
    print_cases()
    plot_rules(results)
    return results


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# **Why the order matters.** A rule measures the gradient. Scaling an average of
# gradients gives the step a length that suits another direction. Weight decay of 0.1
# before Polyak is scaled by the step size: on x² / 2, 1 becomes 0.45. After Polyak, it
# is not, and needs a minus: with ``add_decayed_weights(-0.1)``, 1 becomes 0.4.
#
# **Schedules know no loss.** ``optax.inject_hyperparams`` puts a step size into the
# state, but a schedule in it gets only the step count. No rule helps if the gradient is
# NaN: ``optax.apply_if_finite(rule, 10)`` skips up to ten such steps in a row.
#
# **A limitation:** this is one small network, on one device.
#
# **Next:** :doc:`What a line search does inside one step <plot_line_search_anatomy>`.
# DecSPS helps :doc:`on least squares <plot_interpolation>`. Try ``--num_steps=1000``.
#
# .. rubric:: References
#
# .. [1] Loizou et al., 2021, `arXiv:2002.10542 <https://arxiv.org/abs/2002.10542>`__.
# .. [2] Orvieto et al., 2022, `OpenReview <https://openreview.net/forum?id=lUyAaz-iA4u>`__.
