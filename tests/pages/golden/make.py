"""Write anew, into ``jaxopt.json`` beside this file, where JAXopt's solvers go.

    python tests/pages/golden/make.py

JAXopt is no longer maintained. What its solvers did while it could be imported is kept
there, so that the page on leaving it can be tested without it: a small problem, and
for each row of the page the parameters after each step on it, in double precision.
Only a change of the page's rows is a reason to write it anew.
"""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

FILE = Path(__file__).with_name("jaxopt.json")
ROOT = Path(__file__).parents[3]
PAGE = ROOT / "examples/deep_learning/plot_jaxopt_to_optax.py"
STEPS, EXAMPLES, FEATURES, CLASSES = 20, 8, 3, 3
CAP, AGGRESSIVENESS = 0.9, 0.8


def load_page():
    """Import the page anew, as a module."""
    spec = importlib.util.spec_from_file_location("plot_jaxopt_to_optax", PAGE)
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    return page


def make_problem():
    """Draw features and labels of all minibatches: one for the first state, too."""
    random, size = np.random.default_rng(3), (STEPS + 1, EXAMPLES)
    classes, others = random.integers(0, CLASSES, (2, *size))
    centers = random.normal(size=(CLASSES, FEATURES))
    # Scales rise twice, so that step sizes shrink, grow and reach their cap. Labels are
    # wrong here and there, lest losses vanish.
    scales = 2.0 ** (np.arange(STEPS + 1) % 11 / 2 - 1)[:, None, None]
    features = scales * (centers[classes] + random.normal(size=(*size, FEATURES)))
    labels = np.where(random.random(size) < 0.3, others, classes)
    # Two digits keep the file short.
    return {"features": features.round(2).tolist(), "labels": labels.tolist()}


def make_start():
    """Return the parameters to start from, in the precision of the moment."""
    return {"kernel": jnp.zeros((FEATURES, CLASSES)), "bias": jnp.zeros(CLASSES)}


def fun(params, features, labels):
    """Return the mean multiclass logistic loss of a linear model."""
    logits = features @ params["kernel"] + params["bias"]
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()


def make_rows(page, fun=fun, cap=CAP, aggressiveness=AGGRESSIVENESS):
    """Return {row: (solver, transformation)} of the page, for the problem."""
    solvers = page.make_jaxopt_solvers(fun, cap, aggressiveness)
    replacements = page.make_optax_solvers(cap, aggressiveness)
    pairs = zip(solvers.values(), replacements.values(), strict=True)
    return dict(zip(solvers, pairs, strict=True))


def walk(init, update, problem):
    """Return the parameters after each step, (steps, number of parameters)."""
    first, *minibatches = zip(*map(np.array, problem.values()), strict=True)
    params = make_start()
    state, path = init(params, *first), []
    for minibatch in minibatches:
        params, state = update(params, state, *minibatch)
        path.append(np.array(ravel_pytree(params)[0]))
    return np.array(path)


def make_paths(page, problem):
    """Return {row: path of JAXopt's solver}."""
    with jax.enable_x64(True):
        return {
            row: walk(solver.init_state, jax.jit(solver.update), problem).tolist()
            for row, (solver, _) in make_rows(page).items()
        }


def write(golden):
    """Write numbers such that they are read as they are, and a step on a line."""
    text = json.dumps(golden).replace("[[", "[\n[").replace("], [", "],\n[")
    FILE.write_text(text.replace('], "', '],\n"') + "\n")


if __name__ == "__main__":
    problem = make_problem()
    write({"problem": problem, "paths": make_paths(load_page(), problem)})
