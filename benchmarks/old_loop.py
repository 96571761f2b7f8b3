"""The flagship as the page it replaced did it, as a baseline.

That page initialized network and solvers without jit, drew its minibatches anew for
each solver, and at every iteration evaluated the loss and its gradient without jit, to
log them, before the solver evaluated them again in its jitted update. Network, solvers,
settings and figure are the new page's.
"""

import importlib.util
import math
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np

PAGE = Path(__file__).parent.parent / "examples/deep_learning/plot_sgd_solvers.py"


def train(name, solver, params, minibatches):
    """Train as the old page did, with the arguments and results of the new one."""
    first, *minibatches = minibatches
    start = time.perf_counter()
    state = solver.init_state(params, *first)
    update = jax.jit(solver.update)
    losses, stepsizes = [], []
    for iteration, minibatch in enumerate(minibatches):
        value_and_grad = jax.value_and_grad(solver.fun, has_aux=True)
        (loss, _), _ = value_and_grad(params, *minibatch)
        params, state = update(params, state, *minibatch)
        losses.append(loss)
        stepsizes.append(getattr(state, "stepsize", math.nan))
        if iteration % 20 == 0:
            line = f"({iteration:4d}), error={state.error:.3f}, loss={loss:.3f}"
            print(f"[{name}] {line}")
    seconds = time.perf_counter() - start
    print(f"{len(minibatches)} iterations of {name} took {seconds:.2f}s\n")
    return np.array(losses), np.array(stepsizes)


def main(page, argv):
    """Do what the main function of ``page`` does, the old way."""
    settings = page.parse(argv)
    minibatches, num_classes = page.draw_minibatches(settings)
    net = page.make_net(settings.net_width, num_classes)
    params = net.init(jax.random.key(0), minibatches[0][0] / 255)
    curves = {}
    solvers = page.make_solvers(partial(page.loss_fun, net), settings)
    for name, (label, solver) in solvers.items():
        if curves:
            minibatches, _ = page.draw_minibatches(settings)
        curves[label] = train(name, solver, params, minibatches)
    page.plot_curves(curves, f"Classification on {settings.dataset}")


if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("page", PAGE)
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    main(page, sys.argv)
