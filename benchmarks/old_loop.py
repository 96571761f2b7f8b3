"""The flagship page with the training loop of the page it replaced, as a baseline.

At every iteration that loop evaluated the loss and its gradient without jit, to log
them, before the solver evaluated them again in its jitted update. All else is the new
page's, though the old page also initialized without jit and drew its data more slowly.
"""

import importlib.util
import math
import sys
import time
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


if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("page", PAGE)
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    page.train = train
    page.main(sys.argv)
