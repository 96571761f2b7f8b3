"""Compare the page's convolutions with Flax's, on whatever device JAX finds.

    python benchmarks/convolutions.py

A step is a jitted step of gradient descent, of the page's network and of the same one
with ``nn.Conv``. Both take turns, ROUNDS times; the table shows medians.
"""

import statistics
import time
from functools import partial

import jax
import numpy as np

import old_loop

ROUNDS, STEPS = 7, 100


def make_step(loss_fun):
    """Return a jitted step of gradient descent."""

    @jax.jit
    def step(params, images, labels):
        gradient, _ = jax.grad(loss_fun, has_aux=True)(params, images, labels)
        return jax.tree.map(lambda x, slope: x - 0.01 * slope, params, gradient)

    return step


def seconds_a_step(step, params, *minibatch):
    """Return what a step takes when all are made and waited for."""
    start = time.perf_counter()
    for _ in range(STEPS):
        params = step(params, *minibatch)
    jax.block_until_ready(params)
    return (time.perf_counter() - start) / STEPS


def compare(page, width, batch_size):
    """Return milliseconds of a step with products, and with ``nn.Conv``."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch_size, 28, 28, 1), np.uint8)
    minibatch = jax.device_put((images, random.integers(0, 10, batch_size)))
    contenders = []
    for network in page.CNN, old_loop.PlainCNN:
        net = network(width, 10)
        step = make_step(partial(old_loop.loss_fun, net))
        params = jax.jit(net.init)(jax.random.key(0), minibatch[0])
        params = jax.block_until_ready(step(params, *minibatch))
        contenders.append(partial(seconds_a_step, step, params, *minibatch))
    rounds = [[run() for run in contenders] for _ in range(ROUNDS)]
    return [1e3 * statistics.median(seconds) for seconds in zip(*rounds, strict=True)]


def main():
    """Print a row for each width of the network and each size of a minibatch."""
    page = old_loop.load_page()
    print(f"JAX {jax.__version__}, {jax.devices()[0].device_kind}, ms a step")
    print("width  batch  products  nn.Conv  ratio")
    for width in 4, 32, 100:
        for batch_size in 128, 1_000:
            products, conv = compare(page, width, batch_size)
            row = f"{width:5}{batch_size:7}{products:10.2f}{conv:9.2f}"
            print(f"{row}{conv / products:7.2f}", flush=True)


if __name__ == "__main__":
    main()
