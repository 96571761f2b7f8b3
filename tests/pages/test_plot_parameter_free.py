"""Methods without a learning rate: tuning, states, runs, figure, and what is said."""

import contextlib
import inspect
import io
from statistics import median
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from optax import contrib

from helpers import ROOT, load, plotted, printed, read_table

PAGE = ROOT / "examples/deep_learning/plot_parameter_free.py"
SMALL = ["--num_seeds=3", "--num_steps=10", "--batch_size=16"]
LEARNS = ["Prodigy", "D-Adaptation", "DoG"]


@pytest.fixture(scope="module")
def page():
    return load(PAGE)


@pytest.fixture(scope="module")
def run_page(page):
    """Return a function that runs ``main`` on few images and tells all that came of it.

    ``calls`` are the arguments of the calls of ``record_runs``, by solver.
    """

    def run(*flags):
        record_runs, calls = page.record_runs, []

        def watched(*arguments):
            calls.append(arguments)
            return record_runs(*arguments)

        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(io.StringIO()) as log,
        ):
            patch.setattr(page, "record_runs", watched)
            ratios, runs = page.main(["page", *flags])
        figure = plt.gcf()
        plt.close(figure)
        calls = dict(zip(runs, calls, strict=True))
        return SimpleNamespace(
            log=log.getvalue(), figure=figure, ratios=ratios, runs=runs, calls=calls
        )

    return run


@pytest.fixture(scope="module")
def small(run_page):
    return run_page(*SMALL)


# Tuning


def tune(losses):
    """Return for each seed its loss in the column with the least median of others."""
    found = []
    for seed, row in enumerate(losses):
        others = [x for i, x in enumerate(losses) if i != seed]
        medians = [median(column) for column in zip(*others, strict=True)]
        found.append(row[medians.index(min(medians))])
    return found


@pytest.mark.parametrize(
    "losses, tuned",
    [
        ([[1, 5], [2, 4], [9, 3]], [5, 4, 9]),  # not the best of each seed
        ([[1, 2], [2, 1], [3, 3], [4, 4]], [1, 2, 3, 4]),  # the first of ties
        ([[1e9, 3], [1, 4], [1e9, 5]], [3, 4, 5]),
        ([[1e9, 1e9], [1e9, 1e9]], [1e9, 1e9]),
    ],
    ids=["odd", "ties", "diverged", "all diverged"],
)
def test_tuning_by_hand(page, losses, tuned):
    """A seed has no say in its own step size, and what diverges on most loses."""
    assert page.tune_on_others(np.array(losses, float)).tolist() == tuned


@pytest.mark.parametrize("num_seeds", [2, 3, 4, 5])
def test_tuning_is_that_of_a_plain_loop(page, num_seeds):
    """With ties, and with some losses of 1e9."""
    random = np.random.default_rng(num_seeds)
    for _ in range(50):
        losses = random.choice([1.0, 2, 3, 4, 5, 1e9], (num_seeds, 4))
        assert page.tune_on_others(losses).tolist() == tune(losses.tolist())


def test_ratios_are_over_tuned_adam(page):
    """Solvers have their default, and baselines are tuned for each length."""
    random, runs = np.random.default_rng(0), {}
    for name, (_, rates) in (page.SOLVERS | page.BASELINES).items():
        losses = random.uniform(1, 2, (4, len(rates), 2))
        runs[name] = page.Runs(losses, None, None)
    ratios = page.compare_to_adam(runs)
    assert list(ratios) == list(runs)
    for i in range(2):
        adam = tune(runs["tuned Adam"].losses[..., i])
        for name, found in ratios.items():
            losses = runs[name].losses[..., i]
            row = tune(losses) if name in page.BASELINES else losses[:, 1]
            assert found[:, i] == pytest.approx(np.array(row) / adam)


# Solvers and their states


def test_defaults_are_those_of_optax(page):
    """A tenth, the default and ten times that: Optax's, or 1 for what has none."""
    factors = np.array([0.1, 1, 10])
    known = {
        "Schedule-Free SGD": contrib.schedule_free_sgd,
        "Prodigy": contrib.prodigy,
        "COCOB": contrib.cocob,
        "D-Adaptation": contrib.dadapt_adamw,
        "DoG": contrib.dog,
        "Polyak": optax.polyak_sgd,
        "Schedule-Free AdamW": contrib.schedule_free_adamw,
        "DoWG": contrib.dowg,
    }
    chosen = {"Armijo": 1, "Mechanic SGD": 1, "Mechanic Adam": 1e-3}
    chosen["Adam at 0.001"] = 1e-3
    assert set(page.SOLVERS) == {*known, *chosen} and len(page.SOLVERS) == 12
    for name, solver in known.items():
        assert page.SOLVERS[name][0] is solver
        key = "max_learning_rate" if name == "Polyak" else "learning_rate"
        chosen[name] = inspect.signature(solver).parameters[key].default
        assert chosen[name] == (0.0025 if name == "Schedule-Free AdamW" else 1)
    for name, (_, rates) in page.SOLVERS.items():
        assert rates == pytest.approx(chosen[name] * factors)
    line_search = inspect.signature(optax.scale_by_backtracking_linesearch)
    assert line_search.parameters["max_learning_rate"].default == chosen["Armijo"]


def walk(solver, loss, x, num_steps):
    """Yield the state before a step, the gradient, the step and the state after."""
    solver = optax.with_extra_args_support(solver)
    state = solver.init(x)
    for _ in range(num_steps):
        value, grad = jax.value_and_grad(loss)(x)
        extra = {"value": value, "grad": grad, "value_fn": loss}
        moved, after = solver.update(grad, state, x, **extra)
        yield state, grad, moved, after
        x, state = optax.apply_updates(x, moved), after


@pytest.mark.parametrize("name", ["Polyak", "Armijo"])
@pytest.mark.parametrize("cap", [0.1, 1.0, 10.0])
def test_caps_are_the_largest_step_sizes(page, name, cap):
    """On a line, where each step may be as long as it likes, they are reached."""
    make_solver, _ = page.SOLVERS[name]
    x = jnp.array(100.0)
    steps = [float(moved) for *_, moved, _ in walk(make_solver(cap), lambda x: x, x, 8)]
    assert max(np.negative(steps)) == pytest.approx(cap)


@pytest.mark.parametrize("rate", [0.03, 0.2])
def test_schedule_free_uses_the_average(page, rate):
    """By hand: SGD moves z, x is the running average of z, and y is between them."""
    scale = np.array([1.0, 4.0])
    z = x = y = np.array([3.0, -1.0])
    solver = page.SOLVERS["Schedule-Free SGD"][0](rate)
    params, state = jnp.array(y), solver.init(jnp.array(y))
    for t in range(1, 8):
        z = z - rate * scale * y
        x = (1 - 1 / t) * x + z / t
        y = 0.9 * x + 0.1 * z
        updates, state = solver.update(jnp.array(scale * params), state, params)
        params = optax.apply_updates(params, updates)
        assert params == pytest.approx(y, rel=1e-4, abs=1e-5)
        used = page.params_to_use(state, params)
        assert used == pytest.approx(x, rel=1e-4, abs=1e-5)
    assert abs(x - y).max() > 0.01


def test_others_use_their_parameters(page):
    x = {"a": jnp.ones(2)}
    for name, (make_solver, rates) in (page.SOLVERS | page.BASELINES).items():
        state = make_solver(rates[1]).init(x)
        own = page.params_to_use(state, x) is x
        assert own == (not name.startswith("Schedule-Free"))


@pytest.mark.parametrize(
    "solver",
    [contrib.prodigy(betas=(0.0, 0.0)), contrib.dadapt_adamw(betas=(0.0, 0.999))],
    ids=LEARNS[:2],
)
def test_learned_rates_of_adam_are_those_of_the_next_step(page, solver):
    """Without momentum, on a line, a step is the rate times the sign."""
    slope = jnp.array([1.0, -2.0, 0.5])
    steps = [*walk(solver, lambda x: slope @ x, jnp.ones(3), 12)]
    for state, grad, moved, _ in steps:
        rate = float(page.learned_rate(state))
        assert moved == pytest.approx(-rate * np.sign(grad), rel=1e-3)
    assert page.learned_rate(steps[-1][-1]) > 2e-6  # it grew


def test_learned_rates_of_dog_are_those_of_the_step(page):
    solver = contrib.dog(init_step=("distance", 0.1))
    for *_, grad, moved, state in walk(solver, lambda x: x @ x, jnp.ones(3), 9):
        rate = optax.tree.norm(moved) / optax.tree.norm(grad)
        assert page.learned_rate(state) == pytest.approx(float(rate), rel=1e-5)


def test_other_solvers_learn_no_rate(page):
    for name, (make_solver, rates) in (page.SOLVERS | page.BASELINES).items():
        rate = page.learned_rate(make_solver(rates[1]).init(jnp.ones(2)))
        assert np.isnan(rate) == (name not in LEARNS)


# Runs


COMPARED = [*LEARNS, "Schedule-Free SGD", "Schedule-Free AdamW", "Polyak", "Armijo"]
COMPARED += ["COCOB", "Mechanic Adam", "tuned Momentum"]


@pytest.mark.parametrize("name", COMPARED)
def test_runs_are_those_of_a_plain_loop(page, small, name):
    """From each seed, with each rate; Schedule-Free uses the average of all its z."""
    make_solver, net, rates, starts, train = small.calls[name]
    runs = small.runs[name]
    assert runs.losses.shape == runs.losses_in_training.shape == (3, len(rates), 2)
    assert runs.learned.shape == (3, len(rates), 5, 2)

    @jax.jit
    def step(rate, params, state, images, labels):
        def loss(params):
            return page.cross_entropy(net, params, images, labels)

        value, grad = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grad, "value_fn": loss}
        solver = optax.with_extra_args_support(make_solver(rate))
        updates, state = solver.update(grad, state, params, **extra)
        length = optax.tree.norm(updates) / optax.tree.norm(grad)
        return optax.apply_updates(params, updates), state, length

    for seed, i in np.ndindex(3, len(rates)):
        params, minibatches = jax.tree.map(lambda leaf, seed=seed: leaf[seed], starts)
        state, used, learned, losses = make_solver(rates[i]).init(params), [], [], []
        for t, minibatch in enumerate(zip(*minibatches, strict=True)):
            params, state, length = step(rates[i], params, state, *minibatch)
            length = length / rates[i] if name == "DoG" else np.nan
            learned.append(getattr(state, "estim_lr", length))
            used.append(getattr(state, "z", params))
            if t in (1, 9):  # the short run is a fifth of the long one
                average = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *used)
                best = average if name.startswith("Schedule-Free") else params
                ends = [page.cross_entropy(net, x, *train) for x in (best, params)]
                losses.append(ends)
        found = runs.losses[seed, i], runs.losses_in_training[seed, i]
        assert np.transpose(found) == pytest.approx(np.array(losses), rel=1e-3)
        learned = pytest.approx(np.array(learned), rel=1e-3, nan_ok=True)
        assert np.ravel(runs.learned[seed, i]) == learned


def test_all_solvers_get_the_same_starts_and_data(page, small):
    """Those of each seed, and 15 solvers, as the page says."""
    assert len(small.calls) == 15
    first = small.calls["Prodigy"]
    for name, (make_solver, rates) in (page.SOLVERS | page.BASELINES).items():
        call = small.calls[name]
        assert call[0] is make_solver and np.array_equal(call[2], rates)
        assert jax.tree.all(jax.tree.map(np.array_equal, call[3:], first[3:]))
    params, (images, labels) = first[3]
    leaves = jax.tree.leaves(jax.tree.map(lambda leaf: leaf[0], params))
    assert sum(leaf.size for leaf in leaves) == 6634
    assert "6,634" in PAGE.read_text()
    for seed in range(3):
        random = np.random.default_rng(seed)
        drawn = random.integers(len(first[4][1]), size=(10, 16))
        assert np.array_equal(images[seed], first[4][0][drawn])
        assert np.array_equal(labels[seed], first[4][1][drawn])
    assert images.shape == (3, 10, 16, 196)


def test_losses_that_are_no_numbers_lose(page, run_page, monkeypatch):
    """They become a number that is worse than all others."""

    def diverge(make_solver, net, rates, starts, train):
        losses = np.full((3, len(rates), 2), 0.5)
        losses[:, 0] = [[np.nan], [np.inf], [0.1]]
        return page.Runs(losses, losses, np.ones((3, len(rates), 5, 2)))

    monkeypatch.setattr(page, "record_runs", diverge)
    run = run_page(*SMALL)
    for name in page.SOLVERS | page.BASELINES:
        assert run.runs[name].losses[:, 0, 1].tolist() == [1e9, 1e9, 0.1]
        assert np.all(run.ratios[name] == 1)
    table, _ = run.log.split("\n\n")
    assert {row[3] for row in read_table(table)} == {"> 10"}


def test_runs_repeat_and_steps_are_rounded_down(run_page, small):
    """To a multiple of five: 14 steps are 10, and print the same."""
    assert run_page(*SMALL, "--num_steps=14").log == small.log


# Tables and figure


def quantiles(rows):
    """Return the lowest, the median and the highest of each column."""
    return [(min(x), median(x), max(x)) for x in np.transpose(rows).tolist()]


def relative(small, name, i):
    """Return the median loss of the long run over tuned Adam's, with the rate ``i``."""
    adam = small.runs[name].losses[:, 1, 1] / small.ratios[name][:, 1]
    return median((small.runs[name].losses[:, i, 1] / adam).tolist())


def test_table(page, small):
    table, averages = small.log.split("\n\n")
    assert table.splitlines()[1].split() == ["2", "10", "10", "10"]
    rows = read_table(table)
    assert [row[0] for row in rows] == [*page.SOLVERS]
    for name, *cells in rows:
        medians = [x for _, x, _ in quantiles(small.ratios[name])]
        medians += [relative(small, name, 0), relative(small, name, 2)]
        for cell, x in zip(cells, medians, strict=True):
            assert (
                cell == "> 10"
                if x >= 10
                else float(cell) == pytest.approx(x, abs=0.006)
            )
    _, *lines = averages.strip().splitlines()
    for line, name in zip(lines, AVERAGING, strict=True):
        runs = small.runs[name]
        changes = runs.losses_in_training[:, 1] / runs.losses[:, 1]
        short, long = (median(column.tolist()) for column in np.array(changes).T)
        assert line == f"{name}: {short:.3f} and {long:.3f}"


def test_figure(page, small):
    fig = small.figure
    assert fig.get_size_inches()[0] <= 7.2
    *ratio_axes, rate_ax = fig.axes
    names = [*page.SOLVERS, *page.BASELINES]
    found = [quantiles(small.ratios[name]) for name in names]
    for i, (ax, title) in enumerate(
        zip(ratio_axes, ["2 steps", "10 steps"], strict=True)
    ):
        assert ax.get_title() == title
        assert list(ax.yaxis.units._mapping) == names
        (bars,) = [x for x in ax.containers if hasattr(x, "patches")]
        _, _, (ranges,) = bars.errorbar.lines
        drawn = zip(bars, ranges.get_segments(), found, strict=True)
        for bar, segment, row in drawn:
            low, middle, high = row[i]
            assert bar.get_width() == pytest.approx(middle)
            assert segment[:, 0] == pytest.approx(np.array([low, high]))
    lines = {line.get_label(): line for line in rate_ax.lines}
    assert set(lines) == {*LEARNS, "tuned SGD", "tuned Adam"}
    for name in LEARNS:
        rows = np.reshape(small.runs[name].learned[:, 1], (3, 10))
        medians = [x for _, x, _ in quantiles(rows)]
        assert lines[name].get_ydata() == pytest.approx(medians, rel=1e-5)
    for name in ("tuned SGD", "tuned Adam"):
        medians = [x for _, x, _ in quantiles(small.runs[name].losses[..., 1])]
        best = page.BASELINES[name][1][medians.index(min(medians))]
        assert set(lines[name].get_ydata()) == {best}


# What the page says of its own numbers, in the tables of the built page.


AVERAGING = ["Schedule-Free SGD", "Schedule-Free AdamW"]
MATCH = ["Schedule-Free SGD", "Prodigy"]


@pytest.fixture(scope="module")
def table():
    """Return {solver: losses over tuned Adam's}, where "> 10" is infinite.

    After a short and a long run, and after a long run with other rates.
    """
    rows = read_table(printed(PAGE).strip().split("\n\n")[0])
    return {
        name: [np.inf if x == "> 10" else float(x) for x in cells]
        for name, *cells in rows
    }


def test_two_match_tuned_adam_and_cocob_almost(table):
    for name in MATCH:
        assert all(0.92 <= ratio <= 1.05 for ratio in table[name][:2])
    assert all(1 <= ratio <= 1.22 for ratio in table["COCOB"][:2])


def test_the_length_of_training_changes_the_order(table):
    short, long, tenth, _ = table["D-Adaptation"]
    assert short == pytest.approx(1.05, abs=0.06)
    assert 1.1 <= long <= 1.42
    assert tenth == pytest.approx(1.1, abs=0.06)
    short, long, *_ = table["DoG"]
    assert long < short


def test_others_end_higher(page, table):
    """DoWG is outside the figure, and all else is in it."""
    assert all(ratio > 2 for ratio in table["DoWG"][:2])
    for name in set(page.SOLVERS) - {*MATCH, "COCOB", "D-Adaptation", "DoG", "DoWG"}:
        assert all(1.08 <= ratio <= 1.47 for ratio in table[name][:2])


def test_a_default_is_not_the_best_rate(table):
    """COCOB does not use it."""
    _, default, _, ten_times = table["Schedule-Free AdamW"]
    assert default == pytest.approx(1.2, abs=0.05)
    assert ten_times == pytest.approx(0.87, abs=0.04)
    assert 3 < table["Schedule-Free SGD"][3] < 7
    assert table["COCOB"][2] == pytest.approx(table["COCOB"][3], abs=0.02)


def test_the_average_matters_little():
    """SGD is 1 to 2% higher where gradients are computed, and AdamW 1 to 2% lower."""
    lines = printed(PAGE).strip().splitlines()[-2:]
    for line, name, sign in zip(lines, AVERAGING, (1, -1), strict=True):
        assert line.startswith(f"{name}: ")
        for word in line.removeprefix(f"{name}: ").split(" and "):
            assert 0 < sign * (float(word) - 1) < 0.035


def test_learned_rates():
    """At the end of the long run."""
    lines = plotted(PAGE)["learning rate"]
    for name, rate in (("D-Adaptation", 0.04), ("Prodigy", 0.02), ("DoG", 0.4)):
        assert lines[name][-1, 1] == pytest.approx(rate, rel=0.3)
