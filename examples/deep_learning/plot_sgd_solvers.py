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
constant? Four solvers train the same small image classifier. None uses momentum, and
each runs at one common setting:

- :class:`Polyak SGD <jaxopt.PolyakSGD>` takes the step at which a linear model of the
  minibatch's loss reaches zero, :math:`f / \|\nabla f\|^2`, but never more than a cap
  [1]_;
- :class:`Armijo SGD <jaxopt.ArmijoSGD>` tries step sizes on the minibatch until the
  loss falls by enough [2]_;
- :func:`RMSProp <optax.rmsprop>` divides a constant step size by the root of a running
  mean of the squared gradient, coordinate by coordinate;
- :func:`SGD <optax.sgd>` uses a constant step size.

Each solver runs from five random seeds, to show how much is luck. But each runs at one
setting only, so this compares settings as much as solvers. JAXopt is no longer
maintained: :doc:`another page <plot_jaxopt_to_optax>` shows what replaces it.
"""

# %%
# Settings
# --------
# Settings are flags of the script. They are read before the slow imports, so that a
# typo is reported at once. A ``FlagValues`` of its own lets a notebook run this cell
# twice.
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from absl import flags

FLAGS = flags.FlagValues()
number = partial(flags.DEFINE_float, flag_values=FLAGS)
integer = partial(flags.DEFINE_integer, flag_values=FLAGS)
DATASETS = ["mnist", "kmnist", "emnist", "fashion_mnist", "cifar10", "cifar100"]
_ = flags.DEFINE_enum("dataset", "fashion_mnist", DATASETS, "data", flag_values=FLAGS)
_ = integer("num_seeds", 5, "runs of each solver", 1, 20)
_ = integer("maxiter", 100, "last iteration, counted from 0", 0, 2_000)
_ = integer("batch_size", 128, "examples in a minibatch", 1, 1_000)
_ = integer("net_width", 4, "width multiplier of the network", 1, 100)
_ = number("max_stepsize", 1.0, "cap of Polyak SGD and Armijo SGD", 1e-6, 1e6)
_ = number("aggressiveness", 0.9, "of the line search of Armijo SGD", 1e-6, 0.999)
_ = number("rmsprop_stepsize", 1e-3, "step size of RMSProp", 1e-6, 1e6)
_ = number("gd_stepsize", 1e-1, "constant step size of SGD", 1e-6, 1e6)


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
import jax.numpy as jnp
import jaxopt
import matplotlib.pyplot as plt
import numpy as np
import optax
import requests
import tensorflow_datasets as tfds
from scipy.ndimage import uniform_filter1d


# %%
# Data
# ----
# TensorFlow Datasets would wait forever for a server that does not answer, so we
# download with a time limit. If another process prepares the same data first, we use
# that. We read every example once before training, so that a damaged file is noticed
# now.
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
# Every solver gets the same minibatches in the same order. We store them in a list,
# because a shuffled pipeline changes its order each time it is read.
def draw_minibatches(examples, settings, seed):
    """Return maxiter + 2 pairs: uint8 (batch_size, height, width, channels), labels."""
    examples = examples.repeat().shuffle(10 * settings.batch_size, seed=seed)
    minibatches = examples.batch(settings.batch_size).take(settings.maxiter + 2)
    return list(tfds.as_numpy(minibatches))


# %%
# Model
# -----
# The network has 6,794 parameters. A run trains on 12,928 of 60,000 images,
# 0.22 of an epoch, so we look at the start of training. Convolutions are written as
# matrix products, of a kernel and the windows that it slides over, and the batch is the
# last axis: on a CPU, steps are three times as fast.
class CNN(nn.Module):
    """Map images (batch, height, width, channels) to logits (batch, num_classes)."""

    net_width: int
    num_classes: int

    @nn.compact
    def __call__(self, images):
        x = images.T / 255
        for features in (self.net_width, 2 * self.net_width):
            width, height = x.shape[1:3]
            x = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
            x = jnp.concatenate([x[:, i : i + width] for i in range(3)])
            x = jnp.concatenate([x[:, :, i : i + height] for i in range(3)])
            x = nn.Einsum((len(x), features), "cn,cf->fn")(x.reshape(len(x), -1))
            x = nn.relu(x.reshape(features, width, height, -1))
            x = sum(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
        x = nn.relu(nn.Dense(4 * self.net_width)(x.reshape(-1, len(images)).T))
        return nn.Dense(self.num_classes)(x)


# %%
# The loss is returned twice: the value that a solver reports may be from after its
# update, the auxiliary output is from before.
def loss_fun(net, count, params, images, labels):
    """Count a call; return the mean logistic loss as value and as auxiliary."""
    count[...] += 1
    logits = net.apply(params, images)
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, loss


# %%
# Solvers
# -------
# Each entry has the name of the solver in the log, its label in the figure, and the
# solver.
def make_solvers(fun, settings):
    """Return {name: (label, solver)} for ``fun(params, images, labels)``."""
    cap, stepsize = settings.max_stepsize, settings.rmsprop_stepsize
    polyak = jaxopt.PolyakSGD(fun, max_stepsize=cap, has_aux=True)
    search = {"aggressiveness": settings.aggressiveness, "reset_option": "goldstein"}
    armijo = jaxopt.ArmijoSGD(fun, max_stepsize=cap, maxls=20, has_aux=True, **search)
    rmsprop = jaxopt.OptaxSolver(fun, optax.rmsprop(stepsize), has_aux=True)
    sgd = jaxopt.OptaxSolver(fun, optax.sgd(settings.gd_stepsize), has_aux=True)
    return {
        "Polyak SGD": (f"Polyak max_stepsize={cap}", polyak),
        "Armijo SGD": (f"Armijo aggressiveness={settings.aggressiveness}", armijo),
        "RMSProp": (f"RMSProp {stepsize=}", rmsprop),
        "SGD": (f"SGD stepsize={settings.gd_stepsize:#.3g}", sgd),
    }


# %%
# Training
# --------
# The first minibatch initializes a solver and compiles its update. Each other minibatch
# makes a step. The state of the solver carries what is logged.
def train(solver, count, starts):
    """Train from each (params, minibatches); return logs, parameters and costs.

    Logs are (seeds, steps, 3): error, loss and step size, NaN if there is none, of each
    step. Costs are (2, seeds), means over the steps: evaluations of the loss, which
    ``count`` refers to, and seconds.
    """
    update, device = jax.jit(solver.update), jax.devices()[0]
    logs, ends, costs = [], [], []
    for params, (first, *minibatches) in starts:
        state = solver.init_state(params, *first)
        # On a device, as updated ones are: then one compilation serves all steps.
        params, state = jax.device_put((params, state), device)
        jax.block_until_ready(update(params, state, *first))
        log, count[...], start = [], 0, perf_counter()
        for minibatch in minibatches:
            params, state = update(params, state, *minibatch)
            log.append((state.error, state.aux, getattr(state, "stepsize", np.nan)))
        jax.block_until_ready(params)
        seconds = perf_counter() - start
        costs.append((int(count[...]) / len(log), seconds / len(log)))
        logs.append(log)
        ends.append(params)
    return np.array(logs), ends, np.array(costs).T


# %%
# Results
# -------
# The log is that of the first seed.
def print_log(name, log, seconds):
    """Print every 20th step, and how long all took at ``seconds`` each."""
    for i in range(0, len(log), 20):
        error, loss, stepsize = log[i]
        line = f"[{name}] ({i:4d}), {error=:.3f}, {loss=:.3f}"
        print(line if np.isnan(stepsize) else f"{line}, {stepsize=:.6f}")
    print(f"{len(log)} iterations of {name} took {len(log) * seconds:.2f}s\n")


# %%
# Cost is counted in gradients per step. Every step needs the loss with its gradient
# once. A loss without its gradient costs about a third of that, so each further
# evaluation by a line search adds 1/3.
def accuracy(predict, params, minibatches):
    """Return the share of images whose label has the largest logit."""
    hits = [predict(params, x).argmax(-1) == labels for x, labels in minibatches]
    return np.concatenate(hits).mean()


def print_table(table):
    """Print {name: (accuracies, evaluations, seconds)}, arrays (seeds,)."""
    print("            test accuracy             evaluations        ms")
    print("solver      median  lowest  highest        a step    a step")
    for name, (accuracies, evaluations, seconds) in table.items():
        low, mid, high = np.quantile(accuracies, [0, 0.5, 1])
        cost, ms = 1 + np.median(evaluations - 1) / 3, 1e3 * np.median(seconds)
        print(f"{name:10}{mid:8.3f}{low:8.3f}{high:9.3f}{cost:14.2f}{ms:10.2f}")


# %%
# Figure
# ------
# Lines are medians over seeds, and bands run from the lowest seed to the highest.
# Losses are averaged over five neighbouring steps. Dashes tell the lines apart without
# colour.
def plot_curves(curves, title):
    """Draw {label: logs}, each (seeds, steps, 3): step sizes above, losses below."""
    with plt.style.context("seaborn-v0_8-colorblind"):
        fig, axes = plt.subplots(2, sharex=True, figsize=(5.4, 6), layout="constrained")
    axes[0].set(ylabel="step size", yscale="log")
    axes[1].set(ylabel="training loss", yscale="log", xlabel="iteration")
    axes[1].yaxis.set(major_formatter="{x:g}", minor_formatter="{x:g}")
    for i, (label, logs) in enumerate(curves.items()):
        losses = uniform_filter1d(logs[:, :, 1], 5, mode="nearest")
        for ax, series in zip(axes, (logs[:, :, 2], losses), strict=True):
            low, mid, high = np.quantile(series, [0, 0.5, 1], axis=0)
            ax.plot(mid, ("-", "--", "-.", ":")[i % 4], label=label)
            ax.fill_between(range(len(mid)), low, high, alpha=0.2)
    fig.suptitle(title)
    fig.legend(handles=axes[1].lines, loc="outside lower center", ncols=2)


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
    """Train every solver from every seed; return its logs and its row of the table."""
    settings = parse(argv)
    (examples, test), info = load(settings.dataset, "train", "test")
    test = list(tfds.as_numpy(test.batch(250)))
    net = CNN(settings.net_width, info.features["label"].num_classes)
    count = jax.new_ref(0)
    init, predict = jax.jit(net.init), jax.jit(net.apply)
    solvers = make_solvers(jax.jit(partial(loss_fun, net, count)), settings)
    starts, curves, table = [], {}, {}
    for seed in range(settings.num_seeds):
        minibatches = draw_minibatches(examples, settings, seed)
        params = init(jax.random.key(seed), minibatches[0][0])
        starts.append((params, minibatches))
    for name, (label, solver) in solvers.items():
        curves[label], ends, costs = train(solver, count, starts)
        print_log(name, curves[label][0], costs[1, 0])
        accuracies = [accuracy(predict, params, test) for params in ends]
        table[name] = (accuracies, *costs)
    print_table(table)
    plot_curves(curves, f"Classification on {settings.dataset}")
    return curves, table


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# The line search lowers the loss fastest at first. After 100 steps the median training
# losses are close and the ranges of test accuracy overlap, so these runs do not show
# which solver is best. From iteration 20 on, Armijo's step sizes stay below 0.2. With
# its search, a step costs 1.4 gradients instead of 1. Polyak's step sizes keep varying
# more than tenfold. Its end is as unsteady: a rounding error in the initial parameters
# changes the final accuracy as much as another seed.
#
# One setting can matter more than the solver: with ``--rmsprop_stepsize=0.01``, RMSProp
# has a median accuracy of 0.75, the highest of all. Theory promises fast convergence
# for Polyak and Armijo only if some parameters give every minibatch a loss of zero.
# After 0.22 of an epoch, with losses still near 1, these runs cannot show whether there
# are such parameters. :doc:`Another page <plot_interpolation>` goes where the theory
# applies.
#
# .. rubric:: References
#
# .. [1] Loizou et al., 2021, `arXiv:2002.10542 <https://arxiv.org/abs/2002.10542>`__.
# .. [2] Vaswani et al., 2019, `arXiv:1905.09997 <https://arxiv.org/abs/1905.09997>`__.
