"""Check what the flagship says of its numbers on seeds that it does not show.

Each claim is checked on seeds 0 to 24 in fives, from the initial parameters of the page
and from rounded ones, each raised to the next number. The page shows seeds 0 to 4.

    JAX_PLATFORMS=cpu .venv/bin/python benchmarks/claims.py

The exit status is 1 if a claim fails. The Python of another environment checks with
another JAX. The data must be prepared.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import old_loop

GROUPS = [range(first, first + 5) for first in range(0, 25, 5)]
TUNED = "RMSProp, 0.01"
FOUR = ["Polyak SGD", "Armijo SGD", "RMSProp", "SGD"]


def make_starts(init, draw):
    """Return {(seed, is_rounded): (initial parameters, minibatches)}."""
    starts = {}
    for seed in np.concatenate(GROUPS):
        minibatches = draw(seed)
        params = init(jax.random.key(seed), minibatches[0][0])
        rounded = jax.tree.map(lambda x: jnp.nextafter(x, jnp.inf), params)
        starts[seed, False] = params, minibatches
        starts[seed, True] = rounded, minibatches
    return starts


def train_all(page):
    """Return {solver: {(seed, is_rounded): (run, accuracy)}}."""
    settings = page.parse_flags(["page"])
    size = (settings.maxiter + 12) * settings.batch_size
    examples, info = page.load(settings.dataset, "train", size)
    (images, labels), _ = page.load(settings.dataset, "test", 1_000_000)
    test = [(images[i::40], labels[i::40]) for i in range(40)]
    net = page.CNN(settings.net_width, info.features["label"].num_classes)
    evaluations = jax.new_ref(0)
    loss_fun = jax.jit(partial(page.mean_loss, net, evaluations))
    draw = partial(page.draw_minibatches, *examples, settings)
    starts = make_starts(jax.jit(net.init), draw)
    predict = jax.jit(net.apply)
    solvers = page.make_solvers(loss_fun, settings)
    tuned = page.parse_flags(["page", "--rmsprop_stepsize=0.01"])
    solvers[TUNED] = page.make_solvers(loss_fun, tuned)["RMSProp"]
    results = {}
    for name, solver in solvers.items():
        print(f"{name}: {len(starts)} runs", file=sys.stderr)
        update = jax.jit(solver.update)
        results[name] = {}
        for key, start in starts.items():
            run = page.train(solver, update, evaluations, *start)
            accuracy = page.accuracy(predict, run.params, test)
            results[name][key] = run, accuracy
    return results


def early_loss(run, _):
    """Return the mean loss over steps 20 to 40."""
    return run.losses[20:40].mean()


def gradients(run, _):
    """Return what a step costs: a trial of a line search is a third of a gradient."""
    return 1 + (run.evaluations - 1) / 3


def accuracy(_, accuracy):
    """Return the test accuracy."""
    return accuracy


def change_of_loss(results, name, seeds):
    """Return how far rounding moves the loss from step 50 on, median over seeds."""
    losses = [
        [results[name][seed, is_rounded][0].losses[50:] for seed in seeds]
        for is_rounded in (False, True)
    ]
    return np.median(np.abs(np.subtract(*losses)).mean(axis=1))


def check(results, seeds):
    """Yield claim, parameters, value, lower and upper bound for a group of seeds."""
    for is_rounded in (False, True):
        start = "rounded" if is_rounded else "plain"

        def medians(measure, names, is_rounded=is_rounded):
            courses = [results[name] for name in names]
            return [
                np.median([measure(*runs[seed, is_rounded]) for seed in seeds])
                for runs in courses
            ]

        (early,) = medians(early_loss, ["Armijo SGD"])
        others = medians(early_loss, set(FOUR) - {"Armijo SGD"})
        (cost,) = medians(gradients, ["Armijo SGD"])
        (tuned,) = medians(accuracy, [TUNED])
        yield "Armijo's loss over steps 20 to 40", start, early, 1.05, 1.155
        yield "the least of the others", start, min(others), 1.55, np.inf
        yield "Armijo's gradients a step", start, cost, 1.35, 1.47
        yield "accuracy of RMSProp at 0.01", start, tuned, 0.745, 0.775
        yield "best of the four", start, max(medians(accuracy, FOUR)), 0, 0.725
    moved = {name: change_of_loss(results, name, seeds) for name in FOUR}
    yield "rounding moves Polyak's loss by", "", moved.pop("Polyak SGD"), 0.2, np.inf
    yield "rounding moves other losses by", "", max(moved.values()), 0, 0.05


def main():
    """Print a row for each claim, group and start; exit with 1 if a claim fails."""
    results = train_all(old_loop.load_page())
    print(f"JAX {jax.__version__}")
    print(f"{'claim':35}{'seeds':8}{'start':9}{'median':>7}")
    failures = 0
    for seeds in GROUPS:
        group = f"{seeds[0]}-{seeds[-1]}"
        for claim, start, value, lowest, highest in check(results, seeds):
            holds = lowest <= value <= highest
            failures += not holds
            row = f"{claim:35}{group:8}{start:9}{value:7.3f}"
            print(row if holds else f"{row}  fails")
    print(f"{failures} fail")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
