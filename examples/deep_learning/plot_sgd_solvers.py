# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "flax>=0.10.1", "importlib_resources", "jax>=0.7.2",
#   "jaxopt>=0.8.4", "matplotlib>=3.8.4", "numpy", "optax>=0.1.8", "requests", "scipy",
#   "tensorflow-datasets", "tensorflow-cpu; platform_machine == 'x86_64'",
#   "tensorflow; platform_machine != 'x86_64'"]
# ///
r"""
Comparison of different SGD algorithms
======================================
What do you gain when the step size adapts to each minibatch, instead of staying
constant? Four solvers train the same small network on Fashion-MNIST, without momentum:

- :class:`Polyak SGD <jaxopt.PolyakSGD>` has the step size :math:`f / \|\nabla f\|^2`,
  where f is the loss of the minibatch, up to a cap [1]_;
- :class:`Armijo SGD <jaxopt.ArmijoSGD>` tries step sizes on the minibatch until the
  loss falls by enough [2]_;
- :func:`SGD <optax.sgd>` has a constant step size. So has :func:`RMSProp
  <optax.rmsprop>`, which divides each coordinate of the gradient by its recent size.

.. admonition:: In short

   - **Armijo is the fastest of the four early.** After a cost of 30 to 50 gradients,
     its mean loss is 1.2, and those of the other three are at least 1.4.
   - **Armijo spares tuning, but a better direction gains more.** Armijo has an accuracy
     of 0.69. The best of five step sizes gives SGD 0.67, and Adam 0.78.
   - **Polyak is unsteady.** A rounding error in the initial parameters moves its
     accuracy by more than 0.015, those of Armijo and RMSProp by less than 0.006.

These are medians over five seeds, of one network after 101 steps, a fifth of an epoch.
JAXopt is no longer maintained: :doc:`use Optax instead <plot_jaxopt_to_optax>`.

**Figure:** step sizes that vary (top), and training loss after the same cost (bottom).
A step size that Armijo tries costs a third of a gradient. Thin grey lines are of tuned
solvers. Lines are medians over five seeds, and bands hold the middle half of them.
"""

# %%
# Imports
# -------
# ``uv run`` installs the packages that the first lines of the script list.
import os
import sys
from functools import partial
from time import perf_counter
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxopt
import matplotlib.pyplot as plt
import numpy as np
import optax
import requests
import tensorflow_datasets as tfds
from absl import flags
from scipy.ndimage import uniform_filter1d


# %%
# Solvers
# -------
# The four settings are those of JAXopt's example. The cap of 1 and the aggressiveness
# of 0.9 are also JAXopt's defaults. To add a solver, add an entry.
def make_solvers(loss_fun, settings):
    """Return a dictionary of solvers for ``loss_fun(params, images, labels)``."""
    cap = settings.max_stepsize  # the largest step size of Polyak and Armijo
    solver = partial(jaxopt.OptaxSolver, loss_fun, has_aux=True)
    return {
        "Polyak SGD": jaxopt.PolyakSGD(loss_fun, max_stepsize=cap, has_aux=True),
        "Armijo SGD": jaxopt.ArmijoSGD(
            loss_fun,
            max_stepsize=cap,
            # With 0.9, the loss must fall by a tenth of what the gradient predicts.
            # Use 0.7 or more. With 0.5, few step sizes pass both tests of Goldstein.
            aggressiveness=settings.aggressiveness,
            reset_option="goldstein",  # shrinks or grows the last step size
            maxls=20,  # trials in a step, at most
            has_aux=True,
        ),
        "RMSProp": solver(optax.rmsprop(settings.rmsprop_stepsize)),
        "SGD": solver(optax.sgd(settings.gd_stepsize)),
    } | {name: solver(rule) for name, rule in TUNED.items()}


# %%
# Two tuned solvers show what tuning gains. Their step sizes are the best of 0.05, 0.1,
# 0.2, 0.5 and 1 for SGD, and of a tenth of these for Adam. The best has the lowest loss
# over the last 20 steps, as a median of seeds 25 to 29. Each choice took 25 runs.
TUNED = {"SGD 0.2": optax.sgd(0.2), "Adam 0.02": optax.adam(0.02)}


# %%
# Training
# --------
# The first minibatch compiles ``update``. Each later minibatch is a call of ``update``.
class Run(NamedTuple):
    """One training run: arrays with an entry for each step, and what it ends with."""

    errors: np.ndarray  # norms of the gradient
    losses: np.ndarray
    stepsizes: np.ndarray  # NaN if the step size is constant
    costs: np.ndarray  # of all steps so far, in gradients: a trial costs a third
    params: dict
    seconds: float


def train(solver, update, evaluations, params, minibatches):
    """Return the run from ``params``; ``evaluations`` counts evaluations of losses."""
    first, *minibatches = minibatches
    state = solver.init_state(params, *first)
    # Put the first state where later ones are. Otherwise ``update`` compiles twice.
    params, state = jax.device_put((params, state), jax.devices()[0])
    jax.block_until_ready(update(params, state, *first))
    evaluations[...] = 0
    steps = []
    start = perf_counter()
    for minibatch in minibatches:
        params, state = update(params, state, *minibatch)
        steps.append((state.error, *state.aux, getattr(state, "stepsize", np.nan)))
    jax.block_until_ready(params)
    seconds = perf_counter() - start
    errors, losses, counts, stepsizes = np.array(steps).T
    gradients = np.arange(1, len(steps) + 1)  # each step needs one
    trials = np.append(counts[1:] - 1, evaluations[...]) - gradients
    return Run(errors, losses, stepsizes, gradients + trials / 3, params, seconds)


# %%
# Model and loss
# --------------
# Here, convolutions are matrix products, with the batch as the last axis. On a CPU, a
# step takes a third of the time that it takes with ``nn.Conv``.
def convolve(x, features):
    """Convolve x (channels, width, height, batch) with 3x3 kernels, padded by zeros."""
    channels, width, height, batch = x.shape
    x = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    x = jnp.concatenate([x[:, i : i + width] for i in range(3)])
    x = jnp.concatenate([x[:, :, i : i + height] for i in range(3)])
    x = nn.Einsum((9 * channels, features), "cn,cf->fn")(x.reshape(9 * channels, -1))
    return x.reshape(features, width, height, batch)


def average_pool(x):
    """Return the means of 2x2 pixels of x (channels, width, height, batch)."""
    x = x[:, 0::2] + x[:, 1::2]
    return (x[:, :, 0::2] + x[:, :, 1::2]) / 4


# %%
# The network has 6,794 parameters.
class CNN(nn.Module):
    """Map images (batch, height, width, channels) to logits (batch, num_classes)."""

    net_width: int
    num_classes: int

    @nn.compact
    def __call__(self, images):
        x = images.T / 255
        x = average_pool(nn.relu(convolve(x, self.net_width)))
        x = average_pool(nn.relu(convolve(x, 2 * self.net_width)))
        x = x.reshape(-1, len(images)).T
        x = nn.relu(nn.Dense(4 * self.net_width)(x))
        return nn.Dense(self.num_classes)(x)


# %%
# Armijo reports the loss after a step. The second loss here is from before it.
def mean_loss(net, evaluations, params, images, labels):
    """Return the mean cross-entropy, and again with the count of evaluations so far."""
    evaluations[...] += 1
    logits = net.apply(params, images)
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (loss, evaluations[...])


# %%
# Data
# ----
# Minibatches are drawn once for each seed, so that all solvers get the same ones.
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


def draw_minibatches(images, labels, settings, seed):
    """Return maxiter + 2 minibatches, pairs of images and labels, in random order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    indices = np.resize(order, (settings.maxiter + 2, settings.batch_size))
    return [(images[rows], labels[rows]) for rows in indices]


# %%
# Settings
# --------
# Flags change the settings, as in ``--num_seeds=1``, and ``--help`` lists all flags.
def parse_flags(argv):
    """Return the settings in ``argv``; exit with one line if one of them is wrong."""
    settings = flags.FlagValues()
    integer = partial(flags.DEFINE_integer, flag_values=settings)
    number = partial(flags.DEFINE_float, flag_values=settings)
    names = ["mnist", "kmnist", "emnist", "fashion_mnist", "cifar10", "cifar100"]
    flags.DEFINE_enum(
        "dataset", "fashion_mnist", names, "data set", flag_values=settings
    )
    integer("num_seeds", 5, "runs of each solver", 1, 20)
    integer("maxiter", 100, "last step, counted from 0", 0, 2_000)
    integer("batch_size", 128, "images in a minibatch", 1, 1_000)
    integer("net_width", 4, "features of the first convolution", 1, 100)
    number("max_stepsize", 1.0, "largest step size of Polyak and Armijo", 1e-6, 1e6)
    number("aggressiveness", 0.9, "higher: Armijo accepts longer steps", 1e-6, 0.999)
    number("rmsprop_stepsize", 1e-3, "step size of RMSProp", 1e-6, 1e6)
    number("gd_stepsize", 1e-1, "step size of SGD", 1e-6, 1e6)
    settings = read_flags(settings, argv)
    if settings.aggressiveness <= 0.5:
        print("--aggressiveness <= 0.5 needs many trials: try 0.7", file=sys.stderr)
    return settings


# %%
# A wrong flag ends the script with one line.
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
# The log has every 20th step of the first seed: the norm of the gradient (``error``),
# the loss before the step, and the step size.
def print_log(name, run):
    """Print every 20th step of a run, and how long all its steps took."""
    for i in range(0, len(run.losses), 20):
        line = f"[{name}] ({i:4d}), error={run.errors[i]:.3f}, loss={run.losses[i]:.3f}"
        if not np.isnan(run.stepsizes[i]):
            line += f", stepsize={run.stepsizes[i]:.6f}"
        print(line)
    print(f"{len(run.losses)} iterations of {name} took {run.seconds:.2f}s\n")


# %%
# The table has medians over the seeds. ``minus SGD`` is the median of the differences
# from SGD, seed by seed. ``moved by rounding`` is how far the accuracies of the first
# two seeds move if each initial parameter is raised to the next number.
round_up = partial(jax.tree.map, lambda x: jnp.nextafter(x, jnp.inf))


def accuracy(predict, images, labels, params):
    """Return the share of images whose label has the largest logit."""
    parts = [slice(i, None, 40) for i in range(40)]  # all at once take much memory
    hits = [predict(params, images[x]).argmax(axis=1) == labels[x] for x in parts]
    return np.concatenate(hits).mean()


def print_table(results, accuracies):
    """Print a row for each solver; accuracies of rounded starts follow the others."""
    print("                       minus  seeds  moved by  gradients      ms")
    print("solver      accuracy     SGD  ahead  rounding     a step  a step")
    print("----------  --------  ------  -----  --------  ---------  ------")
    for name, runs in results.items():
        plain, rounded = np.split(accuracies[name], [len(runs)])
        ahead = plain - accuracies["SGD"][: len(runs)]
        moved = np.abs(rounded - plain[: len(rounded)])
        costs = [run.costs[-1] / len(run.costs) for run in runs]
        ms = [1_000 * run.seconds / len(run.costs) for run in runs]
        share, lead, move, cost, time = map(np.median, [plain, ahead, moved, costs, ms])
        row = f"{name:10}{share:10.3f}{lead:+8.3f}{sum(ahead > 0):7}{move:10.4f}"
        print(f"{row}{cost:11.2f}{time:8.2f}")


# %%
# A solver has the same colour and dashes on all pages. Tuned solvers are thin and grey.
STYLES = {
    "Polyak SGD": {"color": "#0072b2", "linestyle": "-"},
    "Armijo SGD": {"color": "#009e73", "linestyle": "--"},
    "RMSProp": {"color": "#d55e00", "linestyle": "-."},
    "SGD": {"color": "#cc79a7", "linestyle": ":"},
    "SGD 0.2": {"color": "0.5", "linestyle": ":", "linewidth": 1},
    "Adam 0.02": {"color": "0.5", "linestyle": "-", "linewidth": 1},
}


def plot_band(ax, x, rows, **style):
    """Plot the median of ``rows`` (seeds, points), and a band between quartiles."""
    lower, median, upper = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    ax.plot(x, median, **style)
    ax.fill_between(x, lower, upper, color=style["color"], alpha=0.2, linewidth=0)


# %%
# Losses are averaged over five neighbouring steps.
def plot_curves(results, settings):
    """Plot step sizes by iteration and losses by cost, of {solver: runs}."""
    labels = {
        "Polyak SGD": f"Polyak max_stepsize={settings.max_stepsize}",
        "Armijo SGD": f"Armijo aggressiveness={settings.aggressiveness}",
        "RMSProp": f"RMSProp stepsize={settings.rmsprop_stepsize}",
        "SGD": f"SGD stepsize={settings.gd_stepsize:#.3g}",
    }
    fig, axes = plt.subplots(2, figsize=(5.4, 5.6), layout="constrained")
    for name, runs in results.items():
        style = STYLES.get(name, {"color": "black"}) | {"label": labels.get(name, name)}
        losses = uniform_filter1d([run.losses for run in runs], 5, mode="nearest")
        steps = np.arange(losses.shape[1])
        plot_band(axes[0], steps, [run.stepsizes for run in runs], **style)
        pairs = zip(runs, losses, strict=True)
        at_costs = [np.interp(steps + 1, run.costs, loss) for run, loss in pairs]
        plot_band(axes[1], steps + 1, at_costs, **style)
    axes[0].set(ylabel="step size", yscale="log", xlabel="iteration")
    axes[1].set(ylabel="training loss", yscale="log", xlabel="cost in gradients")
    axes[1].yaxis.set(major_formatter="{x:g}", minor_formatter="{x:g}")
    fig.suptitle(f"Classification on {settings.dataset}")
    fig.legend(handles=axes[1].lines, loc="outside lower center", ncols=2)


# %%
# Without a display, the figure is saved to a file.
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
# Six solvers, five seeds
# -----------------------
# For each seed, all solvers get the same minibatches and the same initial parameters.
def main(argv):
    """Train each solver from each seed; return runs and accuracies of each solver."""
    settings = parse_flags(argv)
    size = (settings.maxiter + 12) * settings.batch_size  # ten minibatches to spare
    examples, info = load(settings.dataset, "train", size)
    test, _ = load(settings.dataset, "test", 1_000_000)
    net = CNN(settings.net_width, info.features["label"].num_classes)
    evaluations = jax.new_ref(0)
    loss_fun = jax.jit(partial(mean_loss, net, evaluations))
    init, score = jax.jit(net.init), partial(accuracy, jax.jit(net.apply), *test)
    starts = []
    for seed in range(settings.num_seeds):
        minibatches = draw_minibatches(*examples, settings, seed)
        starts.append((init(jax.random.key(seed), minibatches[0][0]), minibatches))
    starts += [(round_up(params), minibatches) for params, minibatches in starts[:2]]
    results, accuracies = {}, {}
    for name, solver in make_solvers(loss_fun, settings).items():
        run = partial(train, solver, jax.jit(solver.update), evaluations)
        runs = [run(*start) for start in starts]
        accuracies[name] = np.array([score(run.params) for run in runs])
        results[name] = runs[: settings.num_seeds]
        if name not in TUNED:
            print_log(name, runs[0])
    print_table(results, accuracies)
    plot_curves(results, settings)
    return results, accuracies


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# **Which one should I use?** If you can afford 25 short runs, tune Adam. From each
# seed, its accuracy is 0.05 or more above that of Armijo. :doc:`Fewer runs may do
# <plot_tuning_budget>`. Without tuning, RMSProp is as accurate as Armijo, and a step
# costs less. Only Armijo finds its step size itself, which falls from 1 to below 0.2 in
# 20 steps. SGD with 0.1 or 0.2 ends near Armijo's loss, and with 0.5 has not learnt.
#
# **A limitation:** in theory, Polyak and Armijo converge fast if one setting of the
# parameters gives every minibatch a loss of zero. Here, no loss ends near zero.
#
# **Next:** :doc:`How wrong can my step size be? <plot_stepsize_sensitivity>` tries
# eleven settings of eight solvers. :doc:`What a line search does inside one step
# <plot_line_search_anatomy>` looks into Armijo's steps. Try also ``--maxiter=400``.
#
# .. rubric:: References
#
# .. [1] Loizou et al., 2021, `arXiv:2002.10542 <https://arxiv.org/abs/2002.10542>`__.
# .. [2] Vaswani et al., 2019, `arXiv:1905.09997 <https://arxiv.org/abs/1905.09997>`__.
