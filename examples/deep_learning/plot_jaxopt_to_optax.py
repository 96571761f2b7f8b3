# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "flax>=0.10.1", "importlib_resources", "jax>=0.4.38",
#   "jaxopt>=0.8.4", "matplotlib>=3.8.4", "numpy", "optax>=0.2.5", "requests",
#   "tensorflow-datasets", "tensorflow-cpu; platform_machine == 'x86_64'",
#   "tensorflow; platform_machine != 'x86_64'"]
# ///
"""
Moving from JAXopt to Optax
===========================
JAXopt is no longer maintained. What in Optax makes the same steps as its stochastic
solvers do? Each row here is run, both sides on the network and the minibatches of
:doc:`the first page <plot_sgd_solvers>`:

- :class:`jaxopt.PolyakSGD` [1]_ becomes :func:`optax.polyak_sgd`, also as ``SPS+`` and
  with momentum;
- :class:`jaxopt.ArmijoSGD` [2]_ becomes :func:`optax.scale_by_backtracking_linesearch`
  after :func:`optax.sgd`, but for ``reset_option="goldstein"``, which this page adds;
- :class:`jaxopt.OptaxSolver` becomes a loop over what it wraps.

That two runs agree to the last digit holds for jitted updates, on one machine.
"""

# %%
# Settings
# --------
# As on :doc:`the first page <plot_sgd_solvers>`, they are flags.
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from absl import flags

FLAGS = flags.FlagValues()
number = partial(flags.DEFINE_float, flag_values=FLAGS)
integer = partial(flags.DEFINE_integer, flag_values=FLAGS)
_ = integer("num_seeds", 3, "runs of each solver", 1, 20)
_ = integer("maxiter", 16, "last iteration, counted from 0", 0, 2_000)
_ = integer("batch_size", 128, "examples in a minibatch", 1, 1_000)
_ = integer("net_width", 4, "width multiplier of the network", 1, 100)
_ = number("max_stepsize", 1.0, "cap of Polyak SGD and Armijo SGD", 1e-6, 1.0)
_ = number("aggressiveness", 0.9, "of the line search of Armijo SGD", 1e-6, 0.999)


# %%
# A notebook's arguments are for its kernel, so there the defaults hold.
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


# %%
# Data and model
# --------------
# Both are those of :doc:`the first page <plot_sgd_solvers>`, which explains them.
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
# Its convolutions are matrix products.
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
# Minibatches are drawn once for both sides. The loss is the mean over one.
def draw_minibatches(examples, settings, seed):
    """Return maxiter + 2 pairs: uint8 (batch_size, height, width, channels), labels."""
    examples = examples.repeat().shuffle(10 * settings.batch_size, seed=seed)
    minibatches = examples.batch(settings.batch_size).take(settings.maxiter + 2)
    return list(tfds.as_numpy(minibatches))


def mean_loss(net, params, images, labels):
    """Return the mean multiclass logistic loss of a minibatch."""
    logits = net.apply(params, images)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# %%
# The loop
# --------
# A solver of JAXopt knows the loss, and its ``update`` computes the gradient. In Optax
# the loop does that. On both sides a step is ``update(params, state, *minibatch)``:
#
# .. container:: side-by-side
#
#    .. code-block:: python
#
#       # JAXopt
#       solver = jaxopt.PolyakSGD(
#           fun, max_stepsize=1.0)
#       state = solver.init_state(
#           params, *minibatches[0])
#       update = jax.jit(solver.update)
#
#    .. code-block:: python
#
#       # Optax
#       solver = optax.polyak_sgd(
#           max_learning_rate=1.0)
#       state = solver.init(params)
#
#       @jax.jit
#       def update(params, state, *minibatch):
#           value, grad = jax.value_and_grad(
#               fun)(params, *minibatch)
#           updates, state = solver.update(
#               grad, state, params, value=value)
#           return optax.apply_updates(
#               params, updates), state
#
# A Polyak step asks for the value, a line search also for the gradient and for the loss
# as a function. An update that serves every transformation offers all three:
def make_update(fun, solver):
    """Return the jitted ``update(params, state, *minibatch)`` of a transformation."""
    solver = optax.with_extra_args_support(solver)

    @jax.jit
    def update(params, state, *minibatch):
        def value_fn(params):
            return fun(params, *minibatch)

        value, grad = jax.value_and_grad(value_fn)(params)
        extra = {"value": value, "grad": grad, "value_fn": value_fn}
        updates, state = solver.update(grad, state, params, **extra)
        return optax.apply_updates(params, updates), state

    return update


# %%
# Goldstein's rule
# ----------------
# JAXopt's third reset option keeps a step size until it is wrong: it shrinks one after
# which the loss has not decreased enough, and grows one after which it has decreased by
# nearly all that the gradient promises. Optax lacks it. This is its search, from the
# loss before the step, ``value``, and the squared norm of the gradient, ``slope``:
def search_goldstein(trial, rate, value, slope, slope_rtol, cap, maxls):
    """Return the step size that suits ``trial(rate)``, the loss after such a step."""

    def scale_if(wrong, factor, rate, loss):
        new = jnp.minimum(factor * rate, cap)
        return jax.lax.cond(wrong, lambda: (new, trial(new)), lambda: (rate, loss))

    def body(carry):
        rate, loss, _, count = carry
        eps = jnp.finfo(loss.dtype).eps
        long = rate * slope_rtol * slope > value - loss + eps
        rate, loss = scale_if(long, 0.8, rate, loss)
        short = loss < value - rate * (1 - slope_rtol) * slope
        rate, loss = scale_if(short, 1.5, rate, loss)
        return rate, loss, long | short, count + 1

    start = rate, trial(rate), True, 0
    return jax.lax.while_loop(lambda x: x[2] & (x[3] < maxls), body, start)[0]


# %%
# It goes where ``optax.scale_by_backtracking_linesearch`` would; its state is a rate.
def scale_by_goldstein(maxls, slope_rtol, max_learning_rate):
    """Return ``jaxopt.ArmijoSGD(reset_option="goldstein")`` as a transformation."""

    def init(params):
        return jnp.array(max_learning_rate, optax.tree.dtype(params))

    def update(updates, rate, params, *, value, grad, value_fn, **_):
        def trial(rate):
            return value_fn(optax.tree.add_scale(params, rate, updates))

        slope = optax.tree.norm(grad, squared=True)
        search = partial(search_goldstein, cap=max_learning_rate, maxls=maxls)
        rate = search(trial, rate, value, slope, slope_rtol)
        return optax.tree.scale(rate, updates), rate

    return optax.GradientTransformationExtraArgs(init, update)


# %%
# Solvers
# -------
# A row is an entry: what JAXopt has, and what takes its place in Optax.
def make_pairs(fun, cap):
    """Return {row: (solver, transformation)} of all but the line searches."""
    return {
        "PolyakSGD": (
            jaxopt.PolyakSGD(fun, max_stepsize=cap, delta=1e-3, fun_min=0.1),
            optax.polyak_sgd(max_learning_rate=cap, eps=1e-3, f_min=0.1),
        ),
        "PolyakSGD, SPS+": (
            jaxopt.PolyakSGD(fun, variant="SPS+"),
            optax.polyak_sgd(max_learning_rate=jnp.inf, variant="sps+"),
        ),
        "PolyakSGD, momentum": (
            jaxopt.PolyakSGD(fun, max_stepsize=cap / 100, momentum=0.9),
            optax.chain(optax.polyak_sgd(cap / 100), optax.trace(0.9)),
        ),
        "OptaxSolver": (jaxopt.OptaxSolver(fun, optax.adam(1e-3)), optax.adam(1e-3)),
    }


# %%
# A line search of Optax scales the step before it in the chain.
def make_searches(fun, cap, aggressiveness, maxls=20):
    """Return {row: (solver, transformation)} of the three reset options."""
    armijo = partial(jaxopt.ArmijoSGD, fun, aggressiveness=aggressiveness)
    armijo = partial(armijo, max_stepsize=cap, maxls=maxls)
    # Computed as JAXopt does: in double precision, 1 - 0.9 is not 0.1.
    coef, eps = 1 - aggressiveness, jnp.finfo(jnp.array(cap)).eps
    search = partial(optax.scale_by_backtracking_linesearch, maxls, slope_rtol=coef)
    search = partial(search, max_learning_rate=cap, atol=eps)
    after = partial(optax.chain, optax.sgd(1.0))
    rules = {
        "increase": after(search(increase_factor=1.5)),
        "conservative": after(search(increase_factor=1.0)),
        "goldstein": after(scale_by_goldstein(maxls, coef, cap)),
    }
    return {f"ArmijoSGD, {x}": (armijo(reset_option=x), rules[x]) for x in rules}


# %%
# Training
# --------
# The first minibatch initializes JAXopt's solvers, the others make the steps of both.
def follow(fun, init, update, starts):
    """Return parameters and loss before each step, leaves (seeds, steps, ...)."""
    paths, compiled = [], None
    for params, (first, *minibatches) in starts:
        path, state = [], init(params, *first)
        # Once for all steps: types of a first state can differ from those of others.
        compiled = compiled or update.lower(params, state, *first).compile()
        for minibatch in minibatches:
            path.append((params, fun(params, *minibatch)))
            params, state = compiled(params, state, *minibatch)
        paths.append(jax.tree.map(lambda *leaves: np.stack(leaves), *path))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *paths)


def compare(starts, pair):
    """Return the largest difference of parameters before each step, and the losses.

    Shapes are (seeds, steps) and (2, seeds, steps).
    """
    solver, transformation = pair
    fun, old_update = solver.fun, jax.jit(solver.update)
    new_init, new_update = transformation.init, make_update(fun, transformation)
    old, old_losses = follow(fun, solver.init_state, old_update, starts)
    new, new_losses = follow(fun, lambda x, *_: new_init(x), new_update, starts)
    leaves = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
    apart = [abs(x - y).max(tuple(range(2, x.ndim))) for x, y in leaves]
    return np.max(apart, axis=0), np.stack([old_losses, new_losses])


# %%
# What differs on purpose
# -----------------------
# Optax is safe where JAXopt is not: where the loss of a trial is not a number, or the
# gradient is zero. Its line search starts from 1, or from 1.5 where it increases: set
# the rate in the first state for a larger cap. Each case is a step of one number.
def step(start, solver, transformation, **changes):
    """Return what ``start`` becomes; ``changes`` are made to the state in Optax."""
    x = jnp.array(start)
    old, _ = solver.update(x, solver.init_state(x))
    state = optax.tree.set(transformation.init(x), **changes)
    new, _ = make_update(solver.fun, transformation)(x, state)
    return float(old), float(new)


def make_exceptions():
    """Return {case: (x after JAXopt's step, x after Optax's)}."""
    log = make_searches(lambda x: x**2 - jnp.log(x), 4.0, 0.9)["ArmijoSGD, increase"]
    flat = make_searches(lambda x: x**2 / 16, 4.0, 0.9)["ArmijoSGD, increase"]
    square = jaxopt.PolyakSGD(jnp.square), optax.polyak_sgd()
    return {
        "loss of a trial is NaN": step(2.0, *log),
        "gradient is zero": step(0.0, *square),
        "cap is 4": step(16.0, *flat),
        "cap is 4, learning_rate=4 is set": step(16.0, *flat, learning_rate=4.0),
    }


# %%
# Results
# -------
# Lines are medians of the seeds: JAXopt's wide and pale, Optax's thin, dashed, on it.
def print_tables(results, exceptions):
    """Print a row for each of {row: (differences, losses)} and of the exceptions."""
    print("largest difference of parameters      median  lowest highest")
    for row, (differences, _) in results.items():
        quantiles = np.quantile(differences.max(axis=1), [0.5, 0, 1])
        cells = [f"{x:8.0e}" if x else "     0.0" for x in quantiles]
        print(f"{row:36}{''.join(cells)}")
    print("\nx after one step                      JAXopt   Optax")
    for case, (old, new) in exceptions.items():
        print(f"{case:36}{old:8.3f}{new:8.3f}")


def plot_losses(results):
    """Draw the losses of {row: (differences, losses)}, a panel for each row."""
    with plt.style.context("seaborn-v0_8-colorblind"):
        fig, axes = plt.subplots(4, 2, figsize=(6.4, 8), layout="constrained")
        *panels, last = axes.flat
        for ax, (row, (_, losses)) in zip(panels, results.items(), strict=True):
            old, new = np.median(losses, axis=1)
            ax.plot(old, label="JAXopt", lw=6, alpha=0.4)
            ax.plot(new, "--", label="Optax", color="black")
            scale = "log" if np.max(losses) > 100 else "linear"
            ax.set(title=row, ylabel="loss", xlabel="iteration", yscale=scale)
    last.axis("off")
    last.legend(handles=ax.lines, loc="center")
    fig.suptitle("Losses by JAXopt and by Optax")


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
# For each seed, all rows get the same minibatches and the same initial parameters.
def main(argv):
    """Compare all pairs from every seed; return the numbers of both tables."""
    settings, starts, (examples,) = parse(argv), [], load("fashion_mnist", "train")[0]
    net = CNN(settings.net_width, 10)
    init, fun = jax.jit(net.init), jax.jit(partial(mean_loss, net))
    for seed in range(settings.num_seeds):
        minibatches = draw_minibatches(examples, settings, seed)
        starts.append((init(jax.random.key(seed), minibatches[0][0]), minibatches))
    cap, aggressiveness = settings.max_stepsize, settings.aggressiveness
    pairs = make_pairs(fun, cap) | make_searches(fun, cap, aggressiveness)
    # Most of the time goes to compiling, which uses one core: two rows at a time.
    with ThreadPoolExecutor(2) as pool:
        exceptions = pool.submit(make_exceptions)
        compared = pool.map(partial(compare, starts), pairs.values())
    results, exceptions = dict(zip(pairs, compared, strict=True)), exceptions.result()
    print_tables(results, exceptions)
    plot_losses(results)
    return results, exceptions


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# Six of seven rows agree to the last digit, in every parameter at every step. Momentum
# may differ by rounding errors, for it adds the same terms in another order.
#
# What a state of JAXopt reports, the loop has: ``error`` is the norm of ``grad``, the
# ``stepsize`` of Optax's line search is ``optax.tree.get(state, "learning_rate")``.
#
# Leave ``scaling`` of ``optax.polyak_sgd`` alone: Optax 0.2.8 divides a Polyak step by
# it and does not multiply. The constant :math:`c` of Loizou et al. [1]_ takes a chain:
#
# .. code-block:: python
#
#    steps = optax.scale_by_polyak(max_learning_rate=c * max_stepsize)
#    solver = optax.chain(steps, optax.scale(-1 / c))
#
# .. rubric:: References
#
# .. [1] Loizou et al., 2021, `arXiv:2002.10542 <https://arxiv.org/abs/2002.10542>`__.
# .. [2] Vaswani et al., 2019, `arXiv:1905.09997 <https://arxiv.org/abs/1905.09997>`__.
