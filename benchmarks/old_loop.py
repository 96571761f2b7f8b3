"""The flagship page with the training loop of the page it replaced, as a baseline.

That loop drew its minibatches anew for every solver, initialized the network and the
solver without jit, and evaluated the loss and its gradient without jit at every
iteration, to print them, before the solver evaluated them again in its update.
"""

import runpy
import sys
import time
from functools import partial
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
page = runpy.run_path(str(EXAMPLES / "deep_learning/plot_sgd_solvers.py"))
jax, math, np = page["jax"], page["math"], page["np"]


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


def main(argv):
    """Do what the page's main does, the old way."""
    settings = page["parse"](argv)
    minibatches, num_classes = page["draw_minibatches"](settings)
    net = page["make_net"](settings.net_width, num_classes)
    params = net.init(jax.random.key(0), minibatches[0][0] / 255)
    solvers = page["make_solvers"](partial(page["loss_fun"], net), settings)
    curves = {}
    for name, (label, solver) in solvers.items():
        minibatches, _ = page["draw_minibatches"](settings)
        curves[label] = train(name, solver, params, minibatches)
    page["plot_curves"](curves, f"Classification on {settings.dataset}")


if __name__ == "__main__":
    main(sys.argv)
