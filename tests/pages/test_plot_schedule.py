"""Schedules: their values, their place in a chain, runs, tables, and what is said."""

import contextlib
import io
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

from helpers import ROOT, load, plotted, printed, read_table, step

PAGE = ROOT / "examples/deep_learning/plot_schedule.py"
SOLVERS = ["SGD", "Polyak", "Armijo", "Adam"]
TITLES = ["constant", "decay", "warm-up"]
SMALL = ["--num_seeds=3", "--num_steps=50", "--batch_size=16"]


@pytest.fixture(scope="module")
def page():
    return load(PAGE)


@pytest.fixture(scope="module")
def run_page(page):
    """Return a function that runs ``main`` on few images and tells all that came of it.

    ``runs`` are the arguments of the calls of ``losses_with_schedule``, and their
    results.
    """

    def run(*flags):
        losses_with_schedule, runs = page.losses_with_schedule, []

        def watched(*arguments):
            losses = losses_with_schedule(*arguments)
            runs.append((arguments, losses))
            return losses

        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(io.StringIO()) as log,
        ):
            patch.setattr(page, "losses_with_schedule", watched)
            results, first = page.main(["page", *flags])
        figure = plt.gcf()
        plt.close(figure)
        return SimpleNamespace(
            log=log.getvalue(),
            figure=figure,
            results=results,
            first=first,
            runs=runs,
        )

    return run


@pytest.fixture(scope="module")
def small(run_page):
    return run_page(*SMALL)


# Schedules


def values(schedule, num_steps):
    return np.array(jax.vmap(schedule(num_steps))(np.arange(num_steps)))


def test_values_of_schedules(page):
    """The first step of decay is whole, the last is short; warm-up takes a tenth."""
    assert list(page.SCHEDULES) == TITLES
    constant, decay, warm_up = (values(x, 50) for x in page.SCHEDULES.values())
    assert constant == pytest.approx(np.ones(50))
    assert decay == pytest.approx(1 - np.arange(50) / 50, abs=1e-6)
    assert warm_up[:6] == pytest.approx(np.arange(6) / 5, abs=1e-6)
    assert warm_up[5:] == pytest.approx(1 - np.arange(45) / 45, abs=1e-6)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_schedule_multiplies_the_steps_of_a_rule(page, name):
    make_solver, _ = page.SOLVERS[name]
    factors, x = jnp.array([1.0, 0.5, 0.1]), jnp.array([1.0, -2.0])
    plain = make_solver(0.3)
    rule = page.with_schedule(plain, lambda count: factors[count])
    state = plain_state = None
    for factor in factors:
        moved, state = step(rule, lambda x: jnp.sum(x**4), x, state)
        alone, plain_state = step(plain, lambda x: jnp.sum(x**4), x, plain_state)
        np.testing.assert_allclose(moved, factor * alone, rtol=1e-5)
        assert np.any(moved != 0)
        x = x + moved


@pytest.mark.parametrize("cap, expected", [(100.0, -0.5 / 0.1), (2.0, -0.1 * 2)])
def test_polyak_after_a_schedule_undoes_it(page, cap, expected):
    """On x² / 2 from 1: its step is 0.5, and 1 / 0.1 times as long, up to the cap."""
    rule = page.with_schedule_first(optax.polyak_sgd(cap), lambda count: 0.1)
    moved, _ = step(rule, lambda x: x**2 / 2, jnp.array(1.0))
    assert float(moved) == pytest.approx(expected)
    rule = page.with_schedule(optax.polyak_sgd(cap), lambda count: 0.1)
    moved, _ = step(rule, lambda x: x**2 / 2, jnp.array(1.0))
    assert float(moved) == pytest.approx(-0.05)


def test_the_schedule_as_a_step_size_is_the_same(page):
    """For Adam, as the discussion says."""
    x, state, other = jnp.array([1.0, -2.0]), None, None
    rule = page.with_schedule(optax.adam(0.02), page.decay(3))
    replaced = optax.adam(optax.linear_schedule(0.02, 0.0, 3))
    for _ in range(3):
        moved, state = step(rule, lambda x: jnp.sum(x**4), x, state)
        same, other = step(replaced, lambda x: jnp.sum(x**4), x, other)
        np.testing.assert_allclose(moved, same, rtol=1e-5)
        x = x + moved


# Runs


def case(run):
    """Return the length, schedule and solver of a call, by its place in the order."""
    if run == 24:
        return 10, "decay first", "Polyak"
    length, rest = divmod(run, 12)
    title, name = divmod(rest, 4)
    return (10, 50)[length], TITLES[title], SOLVERS[name]


@pytest.mark.parametrize("run", [0, 5, 10, 3, 13, 24])
def test_runs_are_those_of_a_plain_loop(page, small, run):
    """From each seed, with the first and the third step size."""
    length, title, name = case(run)
    (_, make_solver, stepsizes, net, _, starts, train), losses = small.runs[run]
    assert make_solver is page.SOLVERS[name][0]
    assert losses.shape == (3, len(stepsizes))
    first = title.endswith(" first")
    schedule = page.SCHEDULES[title.removesuffix(" first")](length)
    for seed, i in np.ndindex(3, 2):
        i = 2 * i
        params, minibatches = jax.tree.map(lambda leaf, seed=seed: leaf[seed], starts)
        parts = [make_solver(stepsizes[i]), optax.scale_by_schedule(schedule)]
        solver, state = optax.chain(*(parts[::-1] if first else parts)), None
        assert len(minibatches[0]) == length
        for images, labels in zip(*minibatches, strict=True):

            def loss(params, images=images, labels=labels):
                return page.cross_entropy(net, params, images, labels)

            updates, state = step(solver, loss, params, state)
            params = optax.apply_updates(params, updates)
        loss = float(page.cross_entropy(net, params, *train))
        assert losses[seed, i] == pytest.approx(loss, rel=1e-2)


def test_all_solvers_get_the_same_starts_and_data(page, small):
    """The short run has the first minibatches of the long one."""
    assert len(small.runs) == 25
    long_params, long_minibatches = small.runs[12][0][5]
    for i, (arguments, losses) in enumerate(small.runs):
        length, title, name = case(i)
        assert arguments[1] is page.SOLVERS[name][0]
        assert arguments[2] is page.SOLVERS[name][1]
        params, minibatches = arguments[5]
        assert jax.tree.all(jax.tree.map(np.array_equal, params, long_params))
        for found, expected in zip(minibatches, long_minibatches, strict=True):
            assert np.array_equal(found, expected[:, :length])
        known = small.results[length] | {"decay first": {"Polyak": small.first}}
        assert np.array_equal(known[title][name], losses)
    params = jax.tree.map(lambda leaf: leaf[0], long_params)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 6634
    assert "6,634" in PAGE.read_text()


def test_losses_that_are_no_numbers_lose(page, small):
    """They become a number that is worse than all others."""
    arguments, _ = small.runs[0]
    broken = [*arguments]
    broken[2] = np.array([0.1, np.nan])
    losses = page.losses_with_schedule(*broken)
    assert np.all(losses[:, 0] < 100) and np.all(losses[:, 1] == np.float32(1e9))


def test_two_runs_print_the_same(run_page, small):
    assert run_page(*SMALL).log == small.log


# Tables and figure


def test_tables(page, small):
    tuned, caps = map(read_table, small.log.split("\n\n"))
    keys = [(name, length) for name in SOLVERS for length in ("10", "50")]
    assert [tuple(row[:2]) for row in tuned] == keys
    for name, length, *cells, best in tuned:
        stepsizes = page.SOLVERS[name][1]
        for title, cell, stepsize in zip(TITLES, cells, best.split(", "), strict=True):
            losses = small.results[int(length)][title][name]
            expected = np.median(page.tune_on_others(losses))
            assert cell == f"{expected:.3f}"
            medians = np.median(losses, axis=0)
            assert stepsize == f"{stepsizes[medians.argmin()]:g}"
    keys = [(name, title) for title in TITLES[:2] for name in ("Polyak", "Armijo")]
    assert [tuple(row[:2]) for row in caps] == [*keys, ("Polyak", "decay first")]
    for name, title, *cells in caps:
        losses = small.results[10].get(title, {"Polyak": small.first})[name]
        assert page.CAPS_TO_TRY[1:] == pytest.approx([0.5, 1, 3, 10])
        assert cells == [f"{x:.3f}" for x in np.median(losses, axis=0)[1:]]


def test_figure(page, small):
    fig = small.figure
    assert fig.get_size_inches()[0] <= 7.2
    assert [ax.get_title() for ax in fig.axes] == TITLES
    for ax in fig.axes:
        assert [line.get_label() for line in ax.lines] == SOLVERS
        for line in ax.lines:
            losses = small.results[10][ax.get_title()][line.get_label()]
            assert line.get_xdata() == pytest.approx(page.SOLVERS[line.get_label()][1])
            assert line.get_ydata() == pytest.approx(np.median(losses, axis=0))
        assert len({str(line._unscaled_dash_pattern) for line in ax.lines}) == 4


# What the page says of its own numbers, in the tables and the figure of the built page.
# ``benchmarks/claims_of_others.py`` checks other seeds.


@pytest.fixture(scope="module")
def tables():
    """Return {(solver, length): losses by schedule}, {...: step sizes} and of caps."""
    tuned, caps = map(read_table, printed(PAGE).strip().split("\n\n"))
    losses = {(name, steps): [*map(float, x)] for name, steps, *x, _ in tuned}
    best = {tuple(row[:2]): [*map(float, row[-1].split(", "))] for row in tuned}
    return losses, best, {tuple(row[:2]): [*map(float, row[2:])] for row in caps}


def test_decay_helps_in_seven_of_eight_cases(tables):
    """By 3 to 8%; Armijo after 300 steps is within 3%."""
    gains = {case: 1 - x[1] / x[0] for case, x in tables[0].items()}
    assert len(gains) == 8
    assert abs(gains.pop(("Armijo", "300"))) < 0.03
    for gain in gains.values():
        assert 0.025 < gain < 0.095


def test_with_decay_a_cap_can_be_too_large(tables):
    """Caps of 1, 3 and 10."""
    caps = {key: row[1:] for key, row in tables[2].items()}
    assert max(caps["Polyak", "decay"]) < 0.6
    assert max(caps["Armijo", "decay"]) == pytest.approx(0.58, abs=0.03)
    constant = caps["Polyak", "constant"] + caps["Armijo", "constant"]
    assert 0.56 < min(constant) < max(constant) < 1
    assert min(constant) > 1.01 * max(caps["Polyak", "decay"] + caps["Armijo", "decay"])


def test_warm_up_helps_further(tables):
    """By 3 to 7%; SGD after 300 steps is 4% worse, and as without a schedule."""
    constant, decay, warm_up = tables[0]["SGD", "300"]
    assert warm_up == pytest.approx(constant, rel=0.03)
    assert warm_up == pytest.approx(1.04 * decay, rel=0.025)
    gains = {case: 1 - x[2] / x[1] for case, x in tables[0].items()}
    del gains["SGD", "300"]
    for gain in gains.values():
        assert 0.01 < gain < 0.1


def test_the_schedule_goes_last(tables):
    assert tables[2]["Polyak", "decay first"][-1] > 1
    assert tables[2]["Polyak", "decay"][-1] == pytest.approx(0.54, abs=0.03)


def test_decay_wants_longer_steps(tables):
    """SGD's best step size doubles, and that of Adam grows."""
    for steps in ("300", "1500"):
        assert tables[1]["SGD", steps][:2] == [0.4, 0.8]
        constant, decay, _ = tables[1]["Adam", steps]
        assert 2 * constant <= decay


def test_what_is_outside_of_the_panels():
    """Losses above 0.9, of SGD alone."""
    for lines in plotted(PAGE).values():
        for name, rows in lines.items():
            assert name == "SGD" or rows[:, 1].max() < 0.95
