# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "flax>=0.10.1", "importlib_resources", "jax>=0.4.38",
#   "matplotlib>=3.8.4", "numpy", "optax>=0.2.5", "requests",
#   "tensorflow-datasets", "tensorflow-cpu; platform_machine == 'x86_64'",
#   "tensorflow; platform_machine != 'x86_64'"]
# ///
r"""
What a line search does inside one step
=======================================
Which step size does a line search choose on a minibatch, and is it a good one for other
images? A line search tries step sizes on the minibatch. It compares the fall of the
loss with the fall that the gradient predicts: step size times squared gradient norm.

- :func:`Armijo <optax.scale_by_backtracking_linesearch>` shrinks the step until the
  loss falls by at least a share of the prediction, here 0.1 or 0.5 [1]_;
- Goldstein also grows it while the fall exceeds 1 - share of the prediction.

.. admonition:: In short

   - **The accepted step is near the edge of stability.** Gradient descent can diverge
     if its step size is above 2 / λ, where λ is the largest curvature of the loss. With
     a share of 0.1, the step size is 1.4 times 2 / λ (Armijo) or 0.9 times (Goldstein).
     Polyak's step size is 1.8 and 5.4 times theirs.
   - **Half the step would be better for other images.** The accepted step raises their
     loss in 41 to 47% of the steps (29 to 58% in other groups of five seeds).
   - **Goldstein needs fewer trials with 0.1, and far more with 0.5.** With 0.1, it
     tries 1.1 step sizes in a step, and Armijo 2.4. With 0.5, it tries 31, Armijo 2.9.

Step sizes are medians over five seeds and every fifth step from 20 to 100. Trials are
means over all steps. The network is small, and λ is that of minibatches of 128 images.

**Figure:** top: loss after a step of up to twice the accepted length. Bottom: step size
relative to 2 / λ, and trials. Bands and error bars hold the middle half.
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
# Two line searches
# -----------------
# The number in a name is ``slope_rtol``, the share of the predicted fall that a search
# demands. Goldstein first tries the last step size, and Armijo 1.5 times this size.
def make_searches():
    """Return a dictionary of transformations that scale an update."""
    backtracking = partial(
        optax.scale_by_backtracking_linesearch,
        max_backtracking_steps=20,  # each multiplies the step size by 0.8
        increase_factor=1.5,
        max_learning_rate=1.0,
    )
    goldstein = partial(scale_by_goldstein, maxls=20, max_learning_rate=1.0)
    return {
        "Armijo 0.1": backtracking(slope_rtol=0.1),
        "Goldstein 0.1": goldstein(slope_rtol=0.1),
        "Armijo 0.5": backtracking(slope_rtol=0.5),
        "Goldstein 0.5": goldstein(slope_rtol=0.5),
    }


# %%
# Goldstein's rule is missing in Optax. A step is too long if the loss falls by less
# than ``share`` of the prediction, and too short if by more than ``1 - share``.
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
# In a chain, ``scale_by_goldstein`` goes where Optax's line search would.
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
# Inside a step
# -------------
# The loss is measured at multiples of the accepted step size. The loss bends more in
# some directions. *Sharpness* λ is the largest curvature: the largest eigenvalue of the
# Hessian, which is the matrix of second derivatives.
MULTIPLES = np.linspace(0, 2, 21)


class Inside(NamedTuple):
    """What is measured in a step. Losses are relative to that before the step."""

    stepsize: jax.Array
    polyak: jax.Array  # the step size at which a linear loss would reach zero
    sharpness: jax.Array
    own_losses: jax.Array
    other_losses: jax.Array


def look_inside(net, params, stepsize, minibatch, others):
    """Measure a step of size ``stepsize`` from ``params``."""
    loss = partial(cross_entropy, net, images=minibatch[0], labels=minibatch[1])
    value, grad = jax.value_and_grad(loss)(params)

    def losses(images, labels):
        def loss_after(multiple):
            moved = optax.tree.add_scale(params, -multiple * stepsize, grad)
            return cross_entropy(net, moved, images, labels)

        after = jax.lax.map(loss_after, MULTIPLES)
        return after / after[0]

    polyak = value / optax.tree.norm(grad, squared=True)
    sharpness = largest_eigenvalue(loss, params, grad)
    return Inside(stepsize, polyak, sharpness, losses(*minibatch), losses(*others))


# %%
# The Hessian's product with a vector is the derivative of the gradient along it.
# Repeated products turn a vector towards the largest curvature (power iteration).
def largest_eigenvalue(loss, params, vector, num_products=10):
    """Return the eigenvalue of largest magnitude of the Hessian of ``loss``."""

    def multiply(vector, _):
        unit = optax.tree.scale(1 / optax.tree.norm(vector), vector)
        _, product = jax.jvp(jax.grad(loss), (params,), (unit,))
        return product, optax.tree.vdot(unit, product)

    _, curvatures = jax.lax.scan(multiply, vector, length=num_products)
    return curvatures[-1]


# %%
# Training
# --------
# A search comes last in a chain and scales the step of SGD. ``optax.tree.get`` finds
# the step size and the number of trials in the state.
@partial(jax.jit, static_argnums=(0, 1))
def record_run(search, net, params, minibatches, others):
    """Return an ``Inside`` of steps 20, 25, ..., and the trials of all steps."""
    solver = optax.chain(optax.sgd(1.0), search)

    def step(carry, minibatch):
        params, state = carry
        images, labels = minibatch
        loss = partial(cross_entropy, net, images=images, labels=labels)
        value, grad = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grad, "value_fn": loss}
        updates, state = solver.update(grad, state, params, **extra)
        names = "learning_rate", "num_linesearch_steps"
        found = [optax.tree.get(state, name) for name in names]
        return (optax.apply_updates(params, updates), state), (params, *found)

    start = params, solver.init(params)
    _, (path, stepsizes, trials) = jax.lax.scan(step, start, minibatches)
    steps = jax.tree.map(lambda leaf: leaf[20::5], (path, stepsizes, minibatches))
    return jax.lax.map(lambda x: look_inside(net, *x, others), steps), trials


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
# Images shrink from 28x28 to 14x14 pixels, as on the page about step sizes.
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


def shrink(images):
    """Return the means of 2x2 pixels, as float32 (images, 196), from 0 to 1."""
    squares = images.reshape(-1, 14, 2, 14, 2)
    means = squares.mean(axis=(2, 4), dtype=np.float32)
    return means.reshape(-1, 196) / 255


# %%
# Settings
# --------
# Flags change the settings, as in ``--num_seeds=1``, and ``--help`` lists all flags.
def parse_flags(argv):
    """Return the settings in ``argv``; exit with one line if one of them is wrong."""
    settings = flags.FlagValues()
    integer = partial(flags.DEFINE_integer, flag_values=settings)
    integer("num_seeds", 5, "runs of each search", 1, 20)
    integer("maxiter", 100, "last step, counted from 0", 20, 2_000)
    integer("num_images", 13_056, "images to train on", 1, 60_000)
    integer("batch_size", 128, "images in a minibatch", 1, 10_000)
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
# *Polyak* is the Polyak step, loss over squared gradient norm. *Best* is the best step
# for other images. *Harms* is how often the accepted step raises their loss.
def print_anatomy(results):
    """Print a row for each search, from {search: (inside, trials)}."""
    print("               step x     middle  Polyak    best   harms  trials")
    print("search          λ / 2       half  / step  / step  others  a step")
    print("-------------  ------  ---------  ------  ------  ------  ------")
    for name, (inside, trials) in results.items():
        products = inside.stepsize * inside.sharpness / 2
        lower, product, upper = np.quantile(products, [0.25, 0.5, 0.75])
        polyak = np.median(inside.polyak / inside.stepsize)
        best = np.median(MULTIPLES[inside.other_losses.argmin(axis=-1)])
        harms = inside.other_losses[..., MULTIPLES == 1] > 1
        row = f"{name:13}{product:8.2f}{f'{lower:.2f}-{upper:.2f}':>11}{polyak:8.1f}"
        print(f"{row}{best:8.2f}{harms.mean():8.2f}{trials.mean():8.1f}")


STYLES = {
    "Armijo 0.1": {"color": "#009e73", "linestyle": "--"},
    "Goldstein 0.1": {"color": "#882255", "linestyle": (0, (6, 1, 1, 1))},
}


def plot_band(ax, x, rows, **style):
    """Plot the median of ``rows`` (seeds, points), and a band between quartiles."""
    lower, median, upper = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    ax.plot(x, median, **style)
    ax.fill_between(x, lower, upper, color=style["color"], alpha=0.2, linewidth=0)


# %%
# A search has the same colour and dashes on all pages. Other images are grey.
def plot_anatomy(results):
    """Plot losses along steps, step sizes and trials of {search: (inside, trials)}."""
    options = {"layout": "constrained", "figsize": (6.4, 4.6)}
    fig, (rays, (product_ax, trials_ax)) = plt.subplots(2, 2, **options)
    for ax, (name, style) in zip(rays, STYLES.items(), strict=True):
        inside, _ = results[name]
        own = np.concatenate(inside.own_losses)
        others = np.concatenate(inside.other_losses)
        plot_band(ax, MULTIPLES, own, **style, label="the minibatch")
        plot_band(ax, MULTIPLES, others, color="0.5", label="other images")
        ax.axvline(1, color="0.5", linewidth=0.8)
        ax.set(title=name, xlabel="step / accepted step", ylabel="loss / loss before")
        ax.legend(loc="upper left")
    names, colors = [*results], [style["color"] for style in STYLES.values()] * 2
    products = [np.ravel(x.stepsize * x.sharpness / 2) for x, _ in results.values()]
    lower, median, upper = np.quantile(products, [0.25, 0.5, 0.75], axis=1)
    ends = median - lower, upper - median
    product_ax.barh(names, median, xerr=ends, color=colors)
    trials_ax.barh(names, [x.mean() for _, x in results.values()], color=colors)
    product_ax.invert_yaxis()
    trials_ax.invert_yaxis()
    product_ax.axvline(1, color="0.5", linewidth=0.8)
    product_ax.set(xlabel="step size times λ / 2")
    trials_ax.set(xlabel="trials in a step")
    fig.suptitle("Inside the steps of a line search")


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
# Four searches, five seeds
# -------------------------
# For each seed, all searches get the same minibatches and the same initial parameters.
def main(argv):
    """Look inside the steps of each search; return {search: (inside, trials)}."""
    settings = parse_flags(argv)
    (images, labels), _ = load("fashion_mnist", "train", settings.num_images)
    images = shrink(images)
    (other_images, other_labels), _ = load("fashion_mnist", "test", 512)
    others = shrink(other_images), other_labels
    net = make_network(settings.num_features)
    starts = []
    for seed in range(settings.num_seeds):
        params = net.init(jax.random.key(seed), images[:1])
        order = np.random.default_rng(seed).permutation(len(labels))
        rows = np.resize(order, (settings.maxiter + 1, settings.batch_size))
        starts.append((params, (images[rows], labels[rows])))
    results = {}
    for name, search in make_searches().items():
        runs = [record_run(search, net, *start, others) for start in starts]
        results[name] = jax.tree.map(lambda *leaves: np.stack(leaves), *runs)
    print_anatomy(results)
    plot_anatomy(results)
    return results


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# **Why near the edge?** With a curvature κ along the gradient, a step of size s lowers
# the loss by about :math:`s (1 - s κ / 2)` times the squared gradient norm. So Armijo
# with a share of 0.1 accepts up to s κ / 2 = 0.9. The gradient mixes directions, so its
# κ is below λ, and Armijo's step size can exceed 2 / λ. With a share of 0.5, only
# s κ / 2 = 0.5 meets both conditions of Goldstein, so it uses up its 20 rounds.
#
# **A full batch behaves differently.** With ``--num_images=2000 --batch_size=2000``,
# the medians of step size times λ / 2 are 0.97 to 1.03. Then λ grows from 8 to 13, the
# steps shrink as it grows, and at most a fifth of them harm other images. Cohen et
# al. [2]_ and Roulet et al. [3]_ study this case.
#
# **A limitation:** ten products find half of all λ within 1%. The worst is 28% low.
#
# **Next:** :doc:`How wrong can my step size be? <plot_stepsize_sensitivity>` varies the
# cap. To see how larger minibatches change a step, try ``--batch_size=1000``.
#
# .. rubric:: References
#
# .. [1] Vaswani et al., 2019, `arXiv:1905.09997 <https://arxiv.org/abs/1905.09997>`__.
# .. [2] Cohen et al., 2021, `arXiv:2103.00065 <https://arxiv.org/abs/2103.00065>`__.
# .. [3] Roulet et al., 2023, `arXiv:2312.00209 <https://arxiv.org/abs/2312.00209>`__.
