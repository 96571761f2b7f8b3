"""Check what the flagship says of its numbers on seeds that it does not show.

Each claim is checked on seeds 0 to 24 in fives, from the initial parameters of the page
and from rounded ones, each raised to the next number. The page shows seeds 0 to 4. The
step sizes of the tuned solvers are chosen again, on seeds 25 to 29.

    JAX_PLATFORMS=cpu .venv/bin/python benchmarks/claims.py

The exit status is 1 if a claim fails. The Python of another environment checks with
another JAX. The data must be prepared.
"""

import sys
from functools import partial

import jax
import jaxopt
import numpy as np
import optax

import old_loop

GROUPS = [range(first, first + 5) for first in range(0, 25, 5)]
OTHERS = range(25, 30)
# The four of the page, without Armijo.
THREE = ["Polyak SGD", "RMSProp", "SGD"]
GRIDS = {"SGD": (optax.sgd, 1.0), "Adam": (optax.adam, 0.1)}
SHARES = [0.05, 0.1, 0.2, 0.5, 1.0]


class Trainer:
    """What trains solvers of the page on its data, each start once for all of them."""

    def __init__(self, page):
        """Read the data."""
        self.page, self.settings = page, page.parse_flags(["page"])
        size = (self.settings.maxiter + 12) * self.settings.batch_size
        self.examples, info = page.load(self.settings.dataset, "train", size)
        test, _ = page.load(self.settings.dataset, "test", 1_000_000)
        num_classes = info.features["label"].num_classes
        net = page.CNN(self.settings.net_width, num_classes)
        self.evaluations = jax.new_ref(0)
        self.loss_fun = jax.jit(partial(page.mean_loss, net, self.evaluations))
        self.init = jax.jit(net.init)
        self.score = partial(page.accuracy, jax.jit(net.apply), *test)

    def start(self, seed, is_rounded):
        """Return initial parameters and minibatches."""
        minibatches = self.page.draw_minibatches(*self.examples, self.settings, seed)
        params = self.init(jax.random.key(seed), minibatches[0][0])
        if is_rounded:
            params = self.page.round_up(params)
        return params, minibatches

    def train(self, solver, starts):
        """Return {start: (run, accuracy)} of starts (seed, is_rounded)."""
        update = jax.jit(solver.update)
        results = {}
        for start in starts:
            pair = self.start(*start)
            run = self.page.train(solver, update, self.evaluations, *pair)
            results[start] = run, self.score(run.params)
        return results

    def last_loss(self, rule):
        """Return the median loss over the last 20 steps, of seeds 25 to 29."""
        solver = jaxopt.OptaxSolver(self.loss_fun, rule, has_aux=True)
        results = self.train(solver, [(seed, False) for seed in OTHERS])
        return np.median([run.losses[-20:].mean() for run, _ in results.values()])


def tune(trainer):
    """Print the losses of both grids, and return the names of the best solvers."""
    best = []
    for name, (rule, largest) in GRIDS.items():
        grid = [largest * share for share in SHARES]
        losses = [trainer.last_loss(rule(stepsize)) for stepsize in grid]
        pairs = zip(grid, losses, strict=True)
        print(f"{name}: {', '.join(f'{x:g} {loss:.3f}' for x, loss in pairs)}")
        best.append(f"{name} {grid[np.argmin(losses)]:g}")
    return best


def early_loss(run, _):
    """Return the mean loss at a cost of 30 to 50 gradients."""
    return np.interp(np.arange(30, 51), run.costs, run.losses).mean()


def accuracy(_, accuracy):
    """Return the test accuracy."""
    return accuracy


def check(results, seeds):
    """Yield claim, parameters, value, lower and upper bound for a group of seeds."""
    for is_rounded in (False, True):
        start = "rounded" if is_rounded else "plain"

        def values(measure, name, is_rounded=is_rounded):
            runs = results[name]
            return np.array([measure(*runs[seed, is_rounded]) for seed in seeds])

        def median(measure, name, values=values):
            return np.median(values(measure, name))

        armijo = median(early_loss, "Armijo SGD")
        others = min(median(early_loss, name) for name in THREE)
        yield "Armijo's loss at 30 to 50 gradients", start, armijo, 1.1, 1.385
        yield "least of the others, over Armijo's", start, others / armijo, 1.05, 2
        armijo = values(accuracy, "Armijo SGD")
        ahead = np.median(armijo) - median(accuracy, "SGD 0.2")
        yield "Armijo ahead of tuned SGD by", start, ahead, -0.02, 0.1
        ahead = median(accuracy, "RMSProp") - np.median(armijo)
        yield "RMSProp ahead of Armijo by", start, ahead, -0.005, 0.1
        ahead = values(accuracy, "Adam 0.02") - armijo
        yield "Adam ahead of Armijo, on each seed", start, min(ahead), 0.05, 0.2
        adam = median(accuracy, "Adam 0.02")
        yield "accuracy of Adam", start, adam, 0.765, 0.805
    for name, lowest, highest in (
        ("Polyak SGD", 0.015, 0.14),
        ("Armijo SGD", 0, 0.006),
        ("RMSProp", 0, 0.006),
    ):
        runs = results[name]
        moved = [abs(runs[seed, True][1] - runs[seed, False][1]) for seed in seeds]
        for some, which in ((moved[:2], "first two"), (moved, "all")):
            yield f"{name} moved by rounding", which, np.median(some), lowest, highest


def main():
    """Print a row for each claim, group and start; exit with 1 if a claim fails."""
    page = old_loop.load_page()
    trainer = Trainer(page)
    print(f"JAX {jax.__version__}")
    best = tune(trainer)
    failures = best != list(page.TUNED)
    print(f"the best are {', '.join(best)}{'  fails' if failures else ''}")
    starts = [(seed, flag) for seed in np.concatenate(GROUPS) for flag in (False, True)]
    results = {}
    for name, solver in page.make_solvers(trainer.loss_fun, trainer.settings).items():
        print(f"{name}: {len(starts)} runs", file=sys.stderr)
        results[name] = trainer.train(solver, starts)
    print(f"{'claim':36}{'seeds':8}{'start':10}{'value':>7}")
    for seeds in GROUPS:
        group = f"{seeds[0]}-{seeds[-1]}"
        for claim, start, value, lowest, highest in check(results, seeds):
            holds = lowest <= value <= highest
            failures += not holds
            row = f"{claim:36}{group:8}{start:10}{value:7.4f}"
            print(row if holds else f"{row}  fails")
    print(f"{failures} fail")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
