"""The flagship as the page it replaced did it, as a baseline.

That page initialized network and solvers without jit, drew its minibatches anew for
each solver, and at every iteration evaluated the loss and its gradient without jit, to
log them, before the solver evaluated them again in its jitted update. It trained from
one seed and did not look at the test split. Solvers and figure are the new page's.
"""

import importlib.util
import os
import sys
import time
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import tensorflow_datasets as tfds

PAGE = Path(__file__).parent.parent / "examples/deep_learning/plot_sgd_solvers.py"


class PlainCNN(nn.Module):
    """The page's network, written with Flax's convolution and pooling."""

    net_width: int
    num_classes: int

    @nn.compact
    def __call__(self, images):
        """Map images (batch, height, width, channels) to logits."""
        x = images / 255
        for features in (self.net_width, 2 * self.net_width):
            x = nn.relu(nn.Conv(features, kernel_size=(3, 3))(x))
            x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(4 * self.net_width)(x.reshape((len(x), -1))))
        return nn.Dense(self.num_classes)(x)


def loss_fun(net, params, images, labels):
    """Return the mean multiclass logistic loss, as value and as auxiliary."""
    logits = net.apply(params, images)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, loss


def steps(fun, update, params, state, minibatches):
    """Yield what a step shows: parameters, state and the loss before it."""
    for minibatch in minibatches:
        value_and_grad = jax.value_and_grad(fun, has_aux=True)
        (loss, _), _ = value_and_grad(params, *minibatch)
        params, state = update(params, state, *minibatch)
        yield params, state, loss


def train(name, solver, params, minibatches):
    """Train and print the log; return it as arrays (steps,)."""
    first, *minibatches = minibatches
    start, log = time.perf_counter(), []
    state = solver.init_state(params, *first)
    trained = steps(solver.fun, jax.jit(solver.update), params, state, minibatches)
    for iteration, (_, state, loss) in enumerate(trained):
        log.append((state.error, loss, getattr(state, "stepsize", np.nan)))
        if iteration % 20 == 0:
            print(f"[{name}] ({iteration:4d}), error={state.error:.3f}, {loss=:.3f}")
    print(f"{len(log)} iterations of {name} took {time.perf_counter() - start:.2f}s\n")
    return np.array(log).T


def draw_minibatches(examples, settings):
    """Return maxiter + 2 minibatches from a shuffled pipeline, which is read anew."""
    examples = examples.repeat().shuffle(10 * settings.batch_size, seed=0)
    minibatches = examples.batch(settings.batch_size).take(settings.maxiter + 2)
    return list(tfds.as_numpy(minibatches))


def load_page(script=PAGE):
    """Import a page as a module."""
    spec = importlib.util.spec_from_file_location("page", script)
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    return page


def main(argv):
    """Train every solver from one seed and draw the curves."""
    page = load_page()
    settings = page.parse_flags(argv)
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    examples, info = tfds.load(
        f"{settings.dataset}:3.*.*", split="train", as_supervised=True, with_info=True
    )
    num_classes = info.features["label"].num_classes
    net = PlainCNN(settings.net_width, num_classes)
    minibatches = draw_minibatches(examples, settings)
    params = net.init(jax.random.key(0), minibatches[0][0])
    results = {}
    solvers = page.make_solvers(partial(loss_fun, net), settings)
    for name, solver in solvers.items():
        if name in page.TUNED:
            continue
        if results:
            minibatches = draw_minibatches(examples, settings)
        curves = train(name, solver, params, minibatches)
        costs = np.arange(1, settings.maxiter + 2)
        results[name] = [page.Run(*curves, costs, params, 0)]
    page.plot_curves(results, settings)


if __name__ == "__main__":
    main(sys.argv)
