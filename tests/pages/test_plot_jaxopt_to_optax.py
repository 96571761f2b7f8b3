"""The page on leaving JAXopt: its rows, steps, prose, tables and figure.

The day that JAXopt cannot be imported, the tests of golden paths still hold: they need
what its solvers did, not JAXopt. The fixture ``page`` and what uses it do need it.
"""

import contextlib
import io
import json
import re
import sys
import textwrap
from functools import partial
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from golden import make
from helpers import Linear, plotted, printed

POLYAK = ["PolyakSGD", "PolyakSGD, SPS+", "PolyakSGD, momentum"]
SEARCHES = [f"ArmijoSGD, {how}" for how in ("increase", "conservative", "goldstein")]
ROWS = [*POLYAK, "OptaxSolver", *SEARCHES]
MOMENTUM, GOLDSTEIN = POLYAK[2], SEARCHES[2]


@pytest.fixture(scope="module")
def page():
    return make.load_page()


@pytest.fixture(scope="module")
def jaxopt(page):
    return page.jaxopt


def walk_in_optax(page, transformation, problem):
    update = page.make_update(make.fun, transformation)
    return make.walk(lambda x, *_: transformation.init(x), update, problem)


# Golden paths


@pytest.fixture(scope="module")
def golden():
    return json.loads(make.FILE.read_text())


@pytest.fixture
def page_without_jaxopt(monkeypatch):
    """Import the page where JAXopt is a stand-in that takes anything for nothing."""
    stand_in = ModuleType("jaxopt")
    for name in ("PolyakSGD", "ArmijoSGD", "OptaxSolver"):
        setattr(stand_in, name, lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "jaxopt", stand_in)
    return make.load_page()


def check_path(path, golden_path):
    """Check that two paths are one but for the last digits of double precision."""
    np.testing.assert_allclose(path, golden_path, rtol=1e-9, atol=1e-12)


def test_golden_rows_are_those_of_the_page(page_without_jaxopt, golden):
    assert list(golden["paths"]) == ROWS == list(make.make_rows(page_without_jaxopt))


def test_golden_numbers(golden):
    """Enough steps of all parameters, on as many minibatches and one for the state."""
    problem, paths = golden["problem"], golden["paths"]
    assert np.shape(problem["features"]) == (21, 8, 3)
    assert np.shape(problem["labels"]) == (21, 8)
    assert all(np.shape(path) == (20, 12) for path in paths.values())
    assert all(np.isfinite(path).all() for path in paths.values())
    assert len({json.dumps(path) for path in paths.values()}) == 7


@pytest.mark.parametrize("row", ROWS)
def test_optax_goes_where_jaxopt_went(page_without_jaxopt, golden, row):
    with jax.enable_x64(True):
        solver, transformation = make.make_rows(page_without_jaxopt)[row]
        path = walk_in_optax(page_without_jaxopt, transformation, golden["problem"])
    assert solver is None
    check_path(path, golden["paths"][row])


def test_jaxopt_still_goes_where_it_went(page, golden):
    paths = make.make_paths(page, golden["problem"])
    for row, path in paths.items():
        check_path(path, golden["paths"][row])


def test_golden_file_is_written_as_the_script_writes(golden, tmp_path, monkeypatch):
    file = tmp_path / "jaxopt.json"
    monkeypatch.setattr(make, "FILE", file)
    make.write(golden)
    assert file.read_text() == (make.Path(make.__file__).parent / file.name).read_text()


gradient = jax.jit(jax.grad(make.fun))


def golden_stepsizes(golden, row):
    """Return the step sizes that made a path, from its steps and the gradients."""
    problem, momentum = golden["problem"], 0.9 if row == MOMENTUM else 0
    flat, unravel = ravel_pytree(make.make_start())
    path = np.concatenate([[flat], golden["paths"][row]])
    steps = np.diff(path, axis=0)
    steps[1:] -= momentum * np.diff(path[:-1], axis=0)
    stepsizes = []
    minibatches = list(zip(*map(np.array, problem.values()), strict=True))[1:]
    for params, step, minibatch in zip(path[:-1], steps, minibatches, strict=True):
        g, _ = ravel_pytree(gradient(unravel(params), *minibatch))
        stepsizes.append(-step @ g / (g @ g))
    return np.array(stepsizes)


@pytest.mark.parametrize("row", [*POLYAK, *SEARCHES])
def test_golden_step_sizes_shrink_grow_and_reach_their_cap(golden, row):
    """Else the paths would prove little. Conservative ones cannot grow."""
    with jax.enable_x64(True):
        stepsizes = golden_stepsizes(golden, row)
    cap = {MOMENTUM: make.CAP / 100, "PolyakSGD, SPS+": np.inf}.get(row, make.CAP)
    capped = np.isclose(stepsizes, cap)
    assert np.all(capped | (stepsizes < cap)) and not np.all(capped)
    assert np.any(capped) == (cap < np.inf)
    ratios = stepsizes[1:] / stepsizes[:-1]
    assert ratios.min() < 0.7
    assert (ratios.max() > 1.49) == ("conservative" not in row)


# Steps by hand


def run_update(page, fun, transformation, params, *minibatch):
    """Return parameters and state after a step of a transformation."""
    update = page.make_update(fun, transformation)
    return update(params, transformation.init(params), *minibatch)


def test_an_update_offers_value_gradient_and_loss(page):
    """All that a transformation is told is what it should be, and nothing more."""

    def update(updates, state, params, **extra):
        assert set(extra) == {"value", "grad", "value_fn"}
        value, grad = extra["value"], extra["grad"]
        return updates, (value, grad, extra["value_fn"](2 * params), params)

    recorder = optax.GradientTransformationExtraArgs(lambda x: (x,) * 4, update)
    x = jnp.array(3.0)
    new, seen = run_update(page, lambda x, y: x**2 + y, recorder, x, 1.0)
    assert (float(new), *map(float, seen)) == (3 + 6, 10, 6, 37, 3)


@pytest.mark.parametrize(
    "transformation, expected",
    [(optax.sgd(0.25), 1.5), (optax.polyak_sgd(max_learning_rate=0.1), 2.4)],
)
def test_an_update_serves_what_needs_less(page, transformation, expected):
    x, _ = run_update(page, jnp.square, transformation, jnp.array(3.0))
    assert float(x) == pytest.approx(expected)


def test_an_update_serves_lbfgs(page):
    search = optax.scale_by_backtracking_linesearch(10)
    solver, x = optax.lbfgs(linesearch=search), jnp.array(3.0)
    update, state = page.make_update(jnp.square, solver), solver.init(x)
    for _ in range(5):
        x, state = update(x, state)
    assert float(x) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "rate, cap, maxls, expected",
    [
        (1.0, 1.0, 20, 1.0),
        (4.0, 4.0, 20, 4 * 0.8**4),
        (4.0, 4.0, 4, 4 * 0.8**4),
        (4.0, 4.0, 2, 4 * 0.8**2),
        (4.0, 4.0, 0, 4.0),
        (0.01, 1.0, 20, 0.01 * 1.5**8),
        (0.01, 1.0, 3, 0.01 * 1.5**3),
        (0.01, 0.1, 20, 0.1),
        (0.1, 0.1, 20, 0.1),
    ],
)
@pytest.mark.parametrize("double", [False, True])
def test_searches_by_hand(page, rate, cap, maxls, expected, double):
    """On x^2 / 2 from 1, with c = 0.1, step sizes from 0.2 to 1.8 suit.

    The loss decreases by s - s^2 / 2, which is at least c s up to 1.8, and less than
    (1 - c) s from 0.2.
    """
    with jax.enable_x64(double):
        rate = jnp.array(rate)
        value, slope = jnp.array(0.5), jnp.array(1.0)

        def trial(rate):
            return (1 - rate) ** 2 / 2

        found = page.search_goldstein(trial, rate, value, slope, 0.1, cap, maxls)
        assert found.dtype == rate.dtype
    assert float(found) == pytest.approx(expected, rel=1e-12 if double else 1e-6)


def test_sps_plus_makes_no_step_uphill(page):
    """Below the minimum that it assumes, zero, it stays where it is."""
    pair = page.make_pairs(lambda x: x**2 - 1, 1.0)["PolyakSGD, SPS+"]
    assert page.step(0.5, *pair) == (0.5, 0.5)


@pytest.mark.parametrize("row", SEARCHES)
def test_searches_tolerate_rounding(page, row):
    """A decrease lost in the rounding of the loss is enough if little was asked."""
    search = page.make_searches(lambda x: 1 + x**2 / 2, 1.0, 0.9)[row]
    assert page.step(1e-5, *search) == (0, 0)


@pytest.mark.parametrize("double", [False, True])
def test_the_state_of_goldstein_is_the_step_size(page, double):
    """It begins at the cap, and the next search with what the one before has found."""
    with jax.enable_x64(double):
        x = {"a": jnp.array([4.0]), "b": jnp.array([3.0])}
        goldstein = page.scale_by_goldstein(20, 0.1, 4.0)
        solver = optax.chain(optax.sgd(1.0), goldstein)
        (start,) = jax.tree.leaves(solver.init(x))

        def fun(x, slope):
            return slope * optax.tree.norm(x, squared=True) / 2

        update = page.make_update(fun, solver)
        y, state = update(x, solver.init(x), 1.0)
        z, last = update(y, state, 0.5)
        (rate,), (same,) = map(jax.tree.leaves, (state, last))
        ratio = float(z["a"][0] / y["a"][0])
        assert start.dtype == rate.dtype == same.dtype == x["a"].dtype
    assert (float(start), float(rate)) == (4, pytest.approx(4 * 0.8**4))
    assert float(rate) == float(same)
    assert float(y["b"][0]) == pytest.approx(3 * (1 - 4 * 0.8**4), rel=1e-6)
    assert ratio == pytest.approx(1 - float(rate) / 2, rel=1e-5)


def count_evaluations(init, make_update, problem):
    """Return how often each step evaluates the function that it is made with."""
    seen, counts = [], []

    def watched(*arguments):
        jax.debug.callback(lambda: seen.append(None))
        return make.fun(*arguments)

    update = make_update(watched)

    def counted(*arguments):
        seen.clear()
        new = jax.block_until_ready(update(*arguments))
        jax.effects_barrier()
        counts.append(len(seen))
        return new

    make.walk(init, counted, problem)
    return counts


def test_goldstein_needs_as_many_evaluations_as_in_jaxopt(page, golden):
    def solvers(fun):
        return page.make_searches(fun, make.CAP, make.AGGRESSIVENESS)[GOLDSTEIN]

    solver, transformation = solvers(make.fun)
    old = count_evaluations(
        solver.init_state,
        lambda fun: jax.jit(solvers(fun)[0].update),
        golden["problem"],
    )
    new = count_evaluations(
        lambda x, *_: transformation.init(x),
        lambda fun: page.make_update(fun, transformation),
        golden["problem"],
    )
    assert old == new
    assert len(old) == 20 and min(old) == 2 < max(old)


# What the prose says


@pytest.fixture(scope="module")
def rows(page):
    return make.make_rows(page)


@pytest.fixture(scope="module")
def old_updates(rows):
    """Return {row: jitted update of JAXopt's solver}, compiled once for all tests."""
    return {row: jax.jit(solver.update) for row, (solver, _) in rows.items()}


def snippets():
    """Return the code blocks in the page's prose."""
    text = re.sub("(?m)^# ?", "", make.PAGE.read_text())
    block = r"(?m)^( *)\.\. code-block:: python\n\n((?:\1   .*\n|\n)+)"
    return [textwrap.dedent(code) for _, code in re.findall(block, text)]


def test_the_two_loops_side_by_side(jaxopt, golden):
    """What they define makes the same steps, and does make steps."""
    in_jaxopt, in_optax, _ = snippets()
    problem = map(np.array, golden["problem"].values())
    names = {"fun": make.fun, "minibatches": list(zip(*problem, strict=True))}
    names |= {"jax": jax, "jaxopt": jaxopt, "optax": optax}
    assert in_jaxopt.startswith("# JAXopt\n") and in_optax.startswith("# Optax\n")
    ends = []
    for code in in_jaxopt, in_optax:
        space = names | {"params": make.make_start()}
        exec(code, space)
        for minibatch in space["minibatches"]:
            step = space["update"](space["params"], space["state"], *minibatch)
            space["params"], space["state"] = step
        ends.append(ravel_pytree(space["params"])[0])
    assert np.array_equal(*ends)
    assert np.abs(ends[0]).max() > 0.1


@pytest.mark.parametrize("c, cap", [(0.5, 1.0), (0.2, 1.0), (2.0, 1.0), (0.5, 0.3)])
def test_the_chain_for_a_constant(page, c, cap):
    """On x^2 from 3, where loss / norm(gradient)^2 is 1 / 4."""
    space = {"optax": optax, "c": c, "max_stepsize": cap}
    exec(snippets()[-1], space)
    x, _ = run_update(page, jnp.square, space["solver"], jnp.array(3.0))
    assert float(x) == pytest.approx(3 - 6 * min(1 / (4 * c), cap), abs=1e-6)


@pytest.mark.parametrize("row", SEARCHES[:2])
def test_learning_rate_is_the_step_size(page, rows, old_updates, golden, row):
    solver, transformation = rows[row]
    found = [], []

    def watch(rates, get, update):
        def watched(*arguments):
            params, state = update(*arguments)
            rates.append(float(get(state)))
            return params, state

        return watched

    old = watch(found[0], lambda state: state.stepsize, old_updates[row])
    make.walk(solver.init_state, old, golden["problem"])
    new = page.make_update(make.fun, transformation)
    new = watch(found[1], lambda s: optax.tree.get(s, "learning_rate"), new)
    make.walk(lambda x, *_: transformation.init(x), new, golden["problem"])
    assert found[0] == found[1]
    assert len(set(found[0])) > 3


@pytest.mark.parametrize("row", ROWS)
def test_error_is_the_norm_of_the_gradient(rows, old_updates, golden, row):
    solver, _ = rows[row]
    errors, norms = [], []

    def watched(params, state, *minibatch):
        norms.append(float(optax.tree.norm(gradient(params, *minibatch))))
        params, state = old_updates[row](params, state, *minibatch)
        errors.append(float(state.error))
        return params, state

    make.walk(solver.init_state, watched, golden["problem"])
    assert errors == pytest.approx(norms, rel=1e-5)


def test_a_loop_can_run_what_jaxopt_cannot(page, jaxopt):
    x = jnp.array(3.0)
    solver = jaxopt.OptaxSolver(jnp.square, optax.polyak_sgd())
    with pytest.raises(TypeError, match="value"):
        solver.update(x, solver.init_state(x))
    x, _ = run_update(page, jnp.square, optax.polyak_sgd(), x)
    assert float(x) == pytest.approx(3 - 6 / 4)


@pytest.mark.parametrize("double, most", [(False, 1e-5), (True, 1e-13)])
def test_momentum_differs_by_rounding(page, rows, old_updates, golden, double, most):
    with jax.enable_x64(double):
        solver, transformation = rows[MOMENTUM]
        old = make.walk(solver.init_state, old_updates[MOMENTUM], golden["problem"])
        new = walk_in_optax(page, transformation, golden["problem"])
    assert np.abs(old - new).max() < most


def test_an_update_that_is_not_jitted_rounds_differently(page, golden):
    _, transformation = make.make_rows(page)["PolyakSGD, SPS+"]
    jitted = page.make_update(make.fun, transformation)
    problem = {name: values[:11] for name, values in golden["problem"].items()}
    paths = [
        make.walk(lambda x, *_: transformation.init(x), update, problem)
        for update in (jitted, jitted.__wrapped__)
    ]
    assert 0 < np.abs(np.subtract(*paths)).max() < 1e-4


@pytest.mark.parametrize(
    "row, cap, same",
    [
        *((SEARCHES[0], cap, cap <= 1.5) for cap in (0.5, 1.5, 1.6, 4.0)),
        *((SEARCHES[1], cap, cap <= 1.0) for cap in (0.5, 1.0, 1.1)),
        *((SEARCHES[2], cap, True) for cap in (0.5, 4.0)),
    ],
)
def test_caps_beyond_the_first_step_size(page, row, cap, same):
    """On x^2 / 16 from 16 every step size up to 7.2 * 2 suits, so the cap is taken."""

    def step(**changes):
        search = page.make_searches(lambda x: x**2 / 16, cap, 0.9)[row]
        return page.step(16.0, *search, **changes)

    with jax.disable_jit():
        old, new = step()
        assert old == pytest.approx(16 - 2 * cap)
        assert (old == new) == same
        if row != GOLDSTEIN:
            old, new = step(learning_rate=cap)
            assert old == new


def test_optax_still_divides_by_scaling(page):
    """It is to multiply: from 1, on x^2, the step 1 / 4 of Polyak becomes 0.1 / 4."""
    solver = optax.polyak_sgd(max_learning_rate=jnp.inf, scaling=0.1)
    x, _ = run_update(page, jnp.square, solver, jnp.array(1.0))
    assert float(x) == pytest.approx(1 - 2 * 10 / 4, rel=1e-5), (
        f"optax.polyak_sgd(scaling=0.1) leads to {float(x):.2f}, not to -4. If that is "
        "0.95, Optax has mended it: remove the paragraph on `scaling` from the "
        "discussion in plot_jaxopt_to_optax.py, and this test."
    )


# Exceptions


def armijo_in_optax(fun, slope, start):
    """Return 1.5 * 0.8^k for the first k whose step decreases the loss enough."""
    rates = 1.5 * 0.8 ** np.arange(20)
    trials = fun(start - rates * slope)
    return rates[trials <= fun(start) - 0.1 * rates * slope**2][0]


def test_exceptions_by_hand(page):
    """At 2 the slope of x^2 - log(x) is 3.5, at 16 that of x^2 / 16 is 2."""
    with np.errstate(invalid="ignore"):
        rate = armijo_in_optax(lambda x: x**2 - np.log(x), 3.5, 2.0)
    assert rate < 1.5
    exceptions = page.make_exceptions()
    expected = {
        "loss of a trial is NaN": (2 - 4 * 3.5, 2 - rate * 3.5),
        "gradient is zero": (np.nan, 0.0),
        "cap is 4": (16 - 4 * 2, 16 - 1.5 * 2),
        "cap is 4, learning_rate=4 is set": (8, 8),
    }
    assert list(exceptions) == list(expected)
    for case, pair in expected.items():
        assert exceptions[case] == pytest.approx(pair, rel=1e-5, nan_ok=True)


# Training


def test_follow(page):
    """The first minibatch makes the state; each start is followed alone, from itself.

    Parameters grow by what a minibatch says, and by the state, which counts.
    """

    @jax.jit
    def update(params, state, x):
        return {"a": params["a"] + x + state}, state + 1

    def init(params, x):
        return x

    def fun(params, x):
        return 10 * params["a"].sum() + x

    minibatches = [[(np.float32(x),) for x in row] for row in ([100, 1, 2], [0, 5, 6])]
    starts = [({"a": jnp.array([k, 0.0])}, minibatches[k]) for k in range(2)]
    paths, losses = page.follow(fun, init, update, starts)
    assert np.array_equal(paths["a"][0], [[0, 0], [101, 101]])
    assert np.array_equal(paths["a"][1], [[1, 0], [6, 5]])
    assert np.array_equal(losses, [[1, 2022], [15, 116]])


def test_compare(page):
    """Differences are the largest of all parameters, losses those of both sides."""

    def fun(params, x):
        return params["a"].sum() + params["b"].sum()

    def update(params, state, x):
        return {"a": params["a"] - 1, "b": params["b"] - jnp.array([1, 4.0])}, state

    solver = SimpleNamespace(fun=fun, init_state=lambda *_: 0, update=update)
    params = {"a": jnp.zeros(3), "b": jnp.zeros(2)}
    starts = [(params, [(np.float32(0),)] * 4)] * 2
    differences, losses = page.compare(starts, (solver, optax.sgd(1.0)))
    assert np.array_equal(differences, [[0, 3, 6]] * 2)
    assert np.array_equal(losses[0], [[0, -8, -16]] * 2)
    assert np.array_equal(losses[1], [[0, -5, -10]] * 2)


def test_mean_loss(page):
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (4, 8, 8, 1)), random.integers(0, 10, 4)
    net = Linear(1, 10)
    layer = {"kernel": random.normal(size=(64, 10)), "bias": random.normal(size=10)}
    params = {"params": {"Dense_0": layer}}
    logits = images.reshape(4, 64) / 255 @ layer["kernel"] + layer["bias"]
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[range(4), labels]
    loss = page.mean_loss(net, params, images, labels)
    assert float(loss) == pytest.approx(losses.mean(), rel=1e-5)


# Runs of the page, on small data


def run_page(page, *flags):
    """Run ``main``; tell all that came of it, and what each solver started from.

    The network is a linear one, as what is compared here are solvers. ``settings`` are
    those that rows were made with.
    """
    follow, followed, settings = page.follow, [], []

    def watched(fun, init, update, starts):
        followed.append(starts)
        return follow(fun, init, update, starts)

    def watch(make):
        return lambda fun, *given: settings.append(given) or make(fun, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "follow", watched)
        for name in ("make_pairs", "make_searches"):
            patch.setattr(page, name, watch(getattr(page, name)))
        patch.setattr(page, "CNN", Linear)
        with contextlib.redirect_stdout(io.StringIO()) as log:
            results, exceptions = page.main(["page", *flags])
    figure = plt.gcf()
    plt.close(figure)
    return SimpleNamespace(
        results=results,
        exceptions=exceptions,
        log=log.getvalue(),
        figure=figure,
        followed=followed,
        settings=settings,
    )


SMALL = [
    *("--num_seeds=2", "--maxiter=3", "--batch_size=16", "--net_width=2"),
    *("--max_stepsize=0.5", "--aggressiveness=0.8"),
]


@pytest.fixture(scope="module")
def small(page):
    return run_page(page, *SMALL)


def check_parity(results):
    """Check that all rows agree to the last digit, but momentum, to a few."""
    assert list(results) == ROWS
    for row, (differences, losses) in results.items():
        if row == MOMENTUM:
            assert differences.max() < 1e-5
        else:
            assert np.all(differences == 0), row
            assert np.array_equal(*losses)
        assert np.array_equal(*losses[:, :, 0])


def test_parity(small):
    check_parity(small.results)
    for differences, losses in small.results.values():
        assert differences.shape == (2, 4) and losses.shape == (2, 2, 4)
        assert np.all(np.isfinite(losses)) and len(np.unique(losses)) > 4


@pytest.mark.parametrize("row", SEARCHES)
def test_another_aggressiveness(page, small, row):
    """The searches agree with it as well, and are others than by default."""
    fun = jax.jit(partial(page.mean_loss, Linear(2, 10)))
    search = page.make_searches(fun, 1.0, 0.5)[row]
    differences, losses = page.compare(small.followed[0], search)
    assert np.all(differences == 0) and np.array_equal(*losses)
    assert not np.array_equal(losses, small.results[row][1])


def test_all_start_alike(small):
    """Both sides of all rows, from the same parameters and minibatches."""
    first, *others = small.followed
    assert len(others) == 13
    for other in others:
        leaves = map(jax.tree.leaves, (first, other))
        assert all(map(np.array_equal, *leaves))
    losses = [losses[:, :, 0] for _, losses in small.results.values()]
    assert all(np.array_equal(losses[0], loss) for loss in losses)


def test_rows_are_made_with_the_settings(small):
    assert {(0.5,), (0.5, 0.8)} < set(small.settings)


def test_seeds_differ(small):
    (params, minibatches), (other_params, other_minibatches) = small.followed[0]
    assert len(minibatches) == len(other_minibatches) == 3 + 2
    images = [x for x, _ in (*minibatches, *other_minibatches)]
    assert len({x.tobytes() for x in images}) == 10
    assert {x.shape for x in images} == {(16, 28, 28, 1)}
    kernels = [p["params"]["Dense_0"]["kernel"] for p in (params, other_params)]
    assert {kernel.shape for kernel in kernels} == {(784, 2 * 10)}
    assert not np.array_equal(*kernels)


def test_printed_numbers_are_those_returned(small):
    above, below = (table.splitlines() for table in small.log.split("\n\n"))
    title = "largest difference of parameters      median  lowest highest"
    assert above[0] == title
    assert below[0].split() == ["x", "after", "one", "step", "JAXopt", "Optax"]
    for line, (row, (differences, _)) in zip(
        above[1:], small.results.items(), strict=True
    ):
        assert line[:36].strip() == row
        each = differences.max(axis=1)
        numbers = [f"{x:.0e}" for x in (np.median(each), each.min(), each.max())]
        assert [*map(float, line[36:].split())] == [*map(float, numbers)]
    for line, (case, pair) in zip(below[1:], small.exceptions.items(), strict=True):
        assert line[:36].strip() == case
        numbers = [float(x) for x in line[36:].split()]
        assert numbers == pytest.approx(pair, abs=1e-3, nan_ok=True)
    assert {len(line) for line in above} == {60}
    assert {len(line) for line in below} == {52}


def test_tables(page, capsys):
    """Median, lowest and highest of the seeds, of the largest of all steps."""
    differences = np.array([[0, 9e-6, 1e-6], [0, 0, 0], [0, 1e-7, 3e-7]])
    page.print_tables({"a row": (differences, None)}, {"a case": (np.nan, -1.25)})
    above, below = capsys.readouterr().out.split("\n\n")
    assert above.splitlines()[1].split() == ["a", "row", "3e-07", "0.0", "9e-06"]
    assert below.splitlines()[1].split() == ["a", "case", "nan", "-1.250"]


def test_two_runs_print_the_same(page, small):
    assert run_page(page, *SMALL).log == small.log


def test_figure(small):
    *panels, last = small.figure.axes
    assert small.figure.get_size_inches()[0] <= 7.2
    assert small.figure.get_suptitle() == "Losses by JAXopt and by Optax"
    assert [ax.get_title() for ax in panels] == ROWS
    for ax, (_, losses) in zip(panels, small.results.values(), strict=True):
        assert [ax.get_xlabel(), ax.get_ylabel()] == ["iteration", "loss"]
        assert [line.get_label() for line in ax.lines] == ["JAXopt", "Optax"]
        for line, series in zip(ax.lines, losses, strict=True):
            assert np.array_equal(line.get_xdata(), range(4))
            assert line.get_ydata() == pytest.approx(np.median(series, axis=0))
    assert not last.axison and not last.lines
    legend = last.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["JAXopt", "Optax"]
    wide, thin = legend.get_lines()
    assert wide.get_linewidth() > 2 * thin.get_linewidth()
    assert (wide.get_linestyle(), thin.get_linestyle()) == ("-", "--")
    assert wide.get_color() != thin.get_color()


def test_a_panel_whose_losses_leave_the_scale_is_logarithmic(page):
    losses = np.ones((2, 3, 4))
    results = {row: (None, losses) for row in ROWS} | {ROWS[1]: (None, 200 * losses)}
    page.plot_losses(results)
    figure = plt.gcf()
    plt.close(figure)
    scales = [ax.get_yscale() for ax in figure.axes[:-1]]
    assert scales == ["linear", "log", *["linear"] * 5]


# What the page says of its own numbers, in the table and the figure of the built page


@pytest.fixture(scope="module")
def table():
    """Return {row: (median, lowest, highest difference)}; only zero is printed 0.0."""
    _, *rows = printed(make.PAGE).partition("\n\n")[0].splitlines()
    return {row[:36].strip(): tuple(map(float, row[36:].split())) for row in rows}


def test_six_of_seven_rows_agree_to_the_last_digit(table):
    assert list(table) == ROWS
    differ = {row for row, differences in table.items() if any(differences)}
    assert differ <= {MOMENTUM}  # with newer versions of JAX it agrees, too


def test_losses_of_six_rows_agree_to_the_last_digit():
    panels = plotted(make.PAGE)
    assert list(panels) == ROWS
    for row, lines in panels.items():
        old, new = lines["JAXopt"], lines["Optax"]
        assert np.array_equal(old[:, 0], range(17))
        assert row == MOMENTUM or np.array_equal(old, new)


def test_momentum_differs_by_rounding_at_most_on_real_data(table):
    """Far below what a parameter is, near 0.1."""
    assert max(table[MOMENTUM]) < 1e-5
