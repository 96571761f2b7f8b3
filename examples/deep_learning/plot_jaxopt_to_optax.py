# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "flax>=0.11.2", "importlib_resources", "jax>=0.6.0",
#   "jaxopt>=0.8.4", "matplotlib>=3.8.4", "numpy", "optax>=0.2.5", "requests",
#   "tensorflow-datasets", "tensorflow-cpu; platform_machine == 'x86_64'",
#   "tensorflow; platform_machine != 'x86_64'"]
# ///
"""
Moving from JAXopt to Optax
===========================
JAXopt is no longer maintained. Which parts of Optax replace its stochastic solvers?

- :class:`PolyakSGD <jaxopt.PolyakSGD>` becomes :func:`optax.polyak_sgd` [1]_;
- :class:`ArmijoSGD <jaxopt.ArmijoSGD>` becomes :func:`optax.sgd` and the line search
  :func:`optax.scale_by_backtracking_linesearch` [2]_;
- :class:`OptaxSolver <jaxopt.OptaxSolver>` becomes a loop with the same optimizer.

.. admonition:: In short

   - **Six of seven replacements are exact.** Of seven settings of JAXopt's solvers,
     six agree with Optax to the last digit after each of 17 steps, from three seeds.
   - **Momentum differs by rounding errors.** The difference is below 1e-7 (3e-8 here).
   - **Goldstein's rule is missing in Optax.** This page adds it in fewer than 50 lines.
     It is one of the six.
   - **Optax handles two cases that break JAXopt.** If loss and gradient are 0, a Polyak
     step of JAXopt ends at NaN. If a trial of the line search has a loss of NaN, JAXopt
     accepts the trial. From 2 on x² - log(x), JAXopt steps to -12, Optax to 0.12.

Comparisons use one small network. The failures use functions of one variable.

**Figure:** largest difference of a parameter after each step, over three seeds. For six
of seven, it is 0.
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
import jax.numpy as jnp
import jaxopt
import matplotlib.pyplot as plt
import numpy as np
import optax
import requests
import tensorflow_datasets as tfds
from absl import flags
from flax import nnx


# %%
# Seven replacements
# ------------------
# JAXopt's solvers minimize ``loss_fun(params, images, labels)``. With momentum, the cap
# (largest step size) is a hundredth. Polyak subtracts ``fun_min`` from the loss, and
# adds ``delta`` to the squared norm. ``maxls`` limits the rounds of a line search.
def make_jaxopt_solvers(loss_fun, cap, aggressiveness):
    """Return a dictionary of solvers."""
    limits = {"aggressiveness": aggressiveness, "max_stepsize": cap, "maxls": 20}
    polyak = partial(jaxopt.PolyakSGD, loss_fun)
    armijo = partial(jaxopt.ArmijoSGD, loss_fun, **limits)
    return {
        "PolyakSGD": polyak(max_stepsize=cap, delta=1e-3, fun_min=0.1),
        "PolyakSGD, SPS+": polyak(variant="SPS+"),
        "PolyakSGD, momentum": polyak(max_stepsize=cap / 100, momentum=0.9),
        "OptaxSolver": jaxopt.OptaxSolver(loss_fun, optax.adam(1e-3)),
        "ArmijoSGD, increase": armijo(reset_option="increase"),
        "ArmijoSGD, conservative": armijo(reset_option="conservative"),
        "ArmijoSGD, goldstein": armijo(reset_option="goldstein"),
    }


# %%
# Here are their replacements. A line search comes last in a chain. ``slope_rtol`` is
# the share of the predicted decrease that it demands, and ``atol`` the rounding error
# it allows. ``cast_like`` gives steps the types of their parameters, as momentum needs.
def make_optax_solvers(cap, aggressiveness):
    """Return a dictionary of transformations."""
    share = 1 - aggressiveness  # not 0.1: JAXopt's 1 - 0.9 rounds differently
    limits = {"slope_rtol": share, "max_learning_rate": cap}
    eps = jnp.finfo(jnp.array(cap)).eps
    search = partial(optax.scale_by_backtracking_linesearch, 20, atol=eps, **limits)
    chain = partial(optax.chain, optax.sgd(1.0))
    momentum = optax.chain(optax.stateless(optax.tree.cast_like), optax.trace(0.9))
    return {
        "polyak_sgd": optax.polyak_sgd(max_learning_rate=cap, eps=1e-3, f_min=0.1),
        "polyak_sgd, sps+": optax.polyak_sgd(jnp.inf, variant="sps+"),
        "polyak_sgd, trace": optax.chain(optax.polyak_sgd(cap / 100), momentum),
        "adam, in a loop": optax.adam(1e-3),
        "backtracking, factor 1.5": chain(search(increase_factor=1.5)),
        "backtracking, factor 1.0": chain(search(increase_factor=1.0)),
        "Goldstein, from this page": chain(scale_by_goldstein(20, **limits)),
    }


# %%
# The loop
# --------
# JAXopt's ``update`` computes the gradient. Optax's does not: ``make_update`` adds it.
# Polyak needs the loss. A line search also needs the gradient and the loss as a
# function. This ``update`` passes all three. ``OptaxSolver`` passes no loss.
# JAXopt's ``state.error`` becomes ``optax.tree.norm(grad)``, and ``state.stepsize`` of
# a search becomes ``optax.tree.get(state, "learning_rate")``. In both libraries,
# ``params, state = update(params, state, *minibatch)`` is a step:
#
# .. code-block:: python
#
#    update = jax.jit(solver.update)  # JAXopt
#    state = solver.init_state(params, *minibatch)
#    update = make_update(loss_fun, solver)  # Optax
#    state = solver.init(params)
def make_update(loss_fun, transformation):
    """Return a jitted ``update(params, state, *minibatch)``."""
    transformation = optax.with_extra_args_support(transformation)

    @jax.jit
    def update(params, state, *minibatch):
        def value_fn(params):
            return loss_fun(params, *minibatch)

        value, grad = jax.value_and_grad(value_fn)(params)
        extra = {"value": value, "grad": grad, "value_fn": value_fn}
        updates, state = transformation.update(grad, state, params, **extra)
        return optax.apply_updates(params, updates), state

    return update


# %%
# The loop in Flax NNX
# --------------------
# ``nnx.Optimizer(model, optax.with_extra_args_support(solver), wrt=nnx.Param)`` makes
# an optimizer. ``train_step(loss_fun, model, optimizer, *minibatch)`` takes a step. Its
# ``loss_fun`` takes a model. A line search has only parameters, so ``value_fn`` puts
# them in a model. From the same start, this and ``update`` agree to the last digit.
@partial(nnx.jit, static_argnums=0)
def train_step(loss_fun, model, optimizer, *minibatch):
    """Change ``model`` and ``optimizer`` by a step on a minibatch."""
    graph, _, rest = nnx.split(nnx.clone(model), nnx.Param, ...)

    def value_fn(params):  # copies, so that trials leave dropout and averages alone
        return loss_fun(nnx.merge(graph, params, rest, copy=True), *minibatch)

    value, grad = nnx.value_and_grad(loss_fun)(model, *minibatch)
    optimizer.update(model, grad, value=value, grad=grad, value_fn=value_fn)


# %%
# Goldstein's rule
# ----------------
# JAXopt's ``goldstein`` shrinks the last step size if the loss falls too little. It
# grows the step size if the loss falls by nearly all that the gradient predicts.
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
# Use ``scale_by_goldstein`` in place of ``scale_by_backtracking_linesearch``, with an
# ``aggressiveness`` of 0.7 or more (:doc:`here is why <plot_line_search_anatomy>`).
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
# The comparison
# --------------
# The network, made in ``main``, has 16 hidden units and 12,730 parameters. The first
# minibatch only initializes JAXopt's solvers. Each later minibatch is one step. Jit
# both sides, on one machine. Otherwise, rounding differs. With momentum, rounding
# differs anyway, because Optax adds terms in another order.
def cross_entropy(net, params, images, labels):
    """Return the mean cross-entropy of a minibatch."""
    logits = net.apply(params, images)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def compare(solver, replacement, starts):
    """Return the largest difference of a parameter, an array (seeds, steps)."""
    jaxopt_update = jax.jit(solver.update)
    optax_update = make_update(solver.fun, replacement)
    differences = []
    for params, (first, *minibatches) in starts:
        in_jaxopt = params, solver.init_state(params, *first)
        in_optax = params, replacement.init(params)
        for minibatch in minibatches:
            in_jaxopt = jaxopt_update(*in_jaxopt, *minibatch)
            in_optax = optax_update(*in_optax, *minibatch)
            leaves = jax.tree.leaves(optax.tree.sub(in_jaxopt[0], in_optax[0]))
            differences.append(max(abs(leaf).max() for leaf in leaves))
    return np.reshape(differences, (len(starts), -1))


# %%
# A step from 2 leaves the domain of x² - log(x). The gradient of x² at 0 is zero.
# JAXopt's line search first tries the cap. To start Optax's at a cap above 1, use
# ``state = optax.tree.set(solver.init(params), learning_rate=cap)``.
def step_once(solver, replacement, x, **start):
    """Return the value of a variable x after one step in each library."""
    jaxopt_x, _ = solver.update(x, solver.init_state(x))
    state = optax.tree.set(replacement.init(x), **start)
    optax_x, _ = make_update(solver.fun, replacement)(x, state)
    return float(jaxopt_x), float(optax_x)


def compare_exceptions():
    """Return a dictionary of the cases in which JAXopt breaks."""
    armijo = jaxopt.ArmijoSGD(lambda x: x**2 - jnp.log(x), max_stepsize=4.0)
    search = make_optax_solvers(4.0, 0.9)["backtracking, factor 1.5"]
    polyak, x = jaxopt.PolyakSGD(jnp.square), jnp.array(2.0)
    return {
        "loss of a trial is NaN": step_once(armijo, search, x, learning_rate=4.0),
        "loss, gradient are 0": step_once(polyak, optax.polyak_sgd(), 0 * x),
    }


# %%
# Data
# ----
# The images are those of Fashion-MNIST. The page reads as many as the steps need.
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
# Settings
# --------
# Flags change the settings, as in ``--num_seeds=1``, and ``--help`` lists all flags.
def parse_flags(argv):
    """Return the settings in ``argv``; exit with one line if one of them is wrong."""
    settings = flags.FlagValues()
    integer = partial(flags.DEFINE_integer, flag_values=settings)
    number = partial(flags.DEFINE_float, flag_values=settings)
    integer("num_seeds", 3, "runs of each solver", 1, 20)
    integer("maxiter", 16, "last step, counted from 0", 0, 2_000)
    integer("batch_size", 128, "images in a minibatch", 1, 1_000)
    integer("net_width", 4, "the network has four times as many hidden units", 1, 100)
    number("max_stepsize", 1.0, "largest step size of Polyak and Armijo", 1e-6, 1.0)
    number("aggressiveness", 0.9, "higher: Armijo accepts longer steps", 1e-6, 0.999)
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
# The vertical axis of the figure is linear below 1e-9, so that it has a zero.
def print_tables(differences, replacements, exceptions):
    """Print a row for each replacement, and one for each exception."""
    print("Largest difference of a parameter, over all seeds and steps:")
    print("JAXopt                   Optax                      difference")
    print("-----------------------  -------------------------  ----------")
    for name, replacement in zip(differences, replacements, strict=True):
        cell = f"{differences[name].max():.0e}" if differences[name].any() else "0.0"
        print(f"{name:25}{replacement:27}{cell:>10}")
    print("\nValue of x after one step, in two cases that break JAXopt:")
    print("case                     JAXopt   Optax")
    print("----------------------  -------  ------")
    for case, (jaxopt_x, optax_x) in exceptions.items():
        print(f"{case:22}{jaxopt_x:9.3f}{optax_x:8.3f}")


# %%
# A thick line shows where both libraries agree.
def plot_differences(differences):
    """Plot the difference with momentum, and the largest of the other six."""
    name, others = "PolyakSGD, momentum", dict(differences)
    momentum, others = others.pop(name), np.max([*others.values()], axis=0)
    fig, ax = plt.subplots(figsize=(5.4, 3), layout="constrained")
    steps = range(momentum.shape[1])
    ax.plot(steps, momentum.max(axis=0), color="#0072b2", lw=6, label=name)
    style = {"color": "#d55e00", "lw": 6, "ls": "--", "label": "the other six"}
    ax.plot(steps, others.max(axis=0), **style)
    ax.set(xlabel="iteration", ylabel="largest difference")
    ax.set_yscale("symlog", linthresh=1e-9)
    ax.legend()
    fig.suptitle("Largest difference between JAXopt and Optax")


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
# Seven solvers, three seeds
# --------------------------
# For each seed, all solvers get the same minibatches and initial parameters.
def main(argv):
    """Compare all solvers from each seed; return the differences."""
    settings = parse_flags(argv)
    if settings.aggressiveness <= 0.5:
        print("--aggressiveness <= 0.5 needs many trials: try 0.7", file=sys.stderr)
    size = (settings.maxiter + 12) * settings.batch_size
    (images, labels), _ = load("fashion_mnist", "train", size)
    images = images.reshape(len(images), -1) / np.float32(255)
    net = nn.Sequential([nn.Dense(4 * settings.net_width), nn.relu, nn.Dense(10)])
    starts = []
    for seed in range(settings.num_seeds):
        params = net.init(jax.random.key(seed), jnp.zeros((1, 28 * 28)))
        order = np.random.default_rng(seed).permutation(len(labels))
        indices = np.resize(order, (settings.maxiter + 2, settings.batch_size))
        starts.append((params, [(images[rows], labels[rows]) for rows in indices]))
    limits = settings.max_stepsize, settings.aggressiveness
    solvers = make_jaxopt_solvers(partial(cross_entropy, net), *limits)
    replacements = make_optax_solvers(*limits)
    pairs = zip(solvers.items(), replacements.values(), strict=True)
    differences = {name: compare(old, new, starts) for (name, old), new in pairs}
    print_tables(differences, replacements, compare_exceptions())
    plot_differences(differences)
    return differences


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# **Do not set** ``scaling`` **in** ``optax.polyak_sgd``. Optax 0.2.8 divides by it, and
# should multiply. From 1 on x² with ``scaling=0.1`` and no cap, one step ends at -4
# instead of 0.95. For the constant :math:`c` of Loizou et al. [1]_, use
# ``optax.chain(optax.scale_by_polyak(max_learning_rate=c * max_stepsize),
# optax.scale(-1 / c))``.
#
# **A limitation:** JAXopt's other solvers, such as L-BFGS, are not compared here.
#
# **Next:** :doc:`Comparison of different SGD algorithms <plot_sgd_solvers>` trains with
# Polyak and Armijo. :doc:`How do I write my own step-size rule in Optax?
# <plot_own_rule>` explains Goldstein. With ``--maxiter=100``, the difference can grow.
#
# .. rubric:: References
#
# .. [1] Loizou et al., 2021, `arXiv:2002.10542 <https://arxiv.org/abs/2002.10542>`__.
# .. [2] Vaswani et al., 2019, `arXiv:1905.09997 <https://arxiv.org/abs/1905.09997>`__.
