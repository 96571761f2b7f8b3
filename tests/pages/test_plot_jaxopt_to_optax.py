"""The page on leaving JAXopt: its rows, steps, prose, tables, figure and findings.

The day that JAXopt cannot be imported, the tests of golden paths still hold: they need
what its solvers did, not JAXopt. The fixture ``page`` and what uses it do need it.
"""

import contextlib
import inspect
import io
import json
import os
import re
import sys
import textwrap
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
import tensorflow_datasets as tfds
from flax import nnx
from jax.flatten_util import ravel_pytree

from environment import CAME
from golden import make
from helpers import read_table

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


def parabola(stepsize):
    """Return x^2 / 2 after a step from 1 along its gradient."""
    return (1 - stepsize) ** 2 / 2


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
        value, squared_norm = jnp.array(0.5), jnp.array(1.0)
        limits = 0.1, cap, maxls
        state = page.search_goldstein(parabola, rate, value, squared_norm, *limits)
        found = state["learning_rate"]
        assert found.dtype == rate.dtype
    assert float(found) == pytest.approx(expected, rel=1e-12 if double else 1e-6)


@pytest.mark.parametrize(
    "aggressiveness, ends", [(0.9, True), (0.7, True), (0.5, False), (0.4, False)]
)
def test_a_search_ends_if_aggressiveness_is_above_a_half(page, aggressiveness, ends):
    """Else, it goes on changing the step size, as long as ``maxls`` allows."""

    def search(start, maxls):
        limits = 1 - aggressiveness, 10.0, maxls
        arguments = jnp.array(start), jnp.array(0.5), jnp.array(1.0)
        state = page.search_goldstein(parabola, *arguments, *limits)
        return float(state["learning_rate"])

    for start in (0.01, 0.3, 0.9, 1.7, 10.0):
        assert (search(start, 20) == search(start, 19)) == ends


def test_sps_plus_makes_no_step_uphill(page):
    """Below the minimum that it assumes, zero, it stays where it is."""
    row = make.make_rows(page, lambda x: x**2 - 1)["PolyakSGD, SPS+"]
    assert page.step_once(*row, jnp.array(0.5)) == (0.5, 0.5)


@pytest.mark.parametrize("row", SEARCHES)
def test_searches_tolerate_rounding(page, row):
    """A decrease lost in the rounding of the loss is enough if little was asked."""
    search = make.make_rows(page, lambda x: 1 + x**2 / 2, 1.0, 0.9)[row]
    assert page.step_once(*search, jnp.array(1e-5)) == (0, 0)


@pytest.mark.parametrize("double", [False, True])
def test_the_state_of_goldstein_is_the_step_size(page, double):
    """It begins at the cap, and the next search with what the one before has found."""
    with jax.enable_x64(double):
        x = {"a": jnp.array([4.0]), "b": jnp.array([3.0])}
        goldstein = page.scale_by_goldstein(20, 0.1, 4.0)
        solver = optax.chain(optax.sgd(1.0), goldstein)
        start = optax.tree.get(solver.init(x), "learning_rate")

        def fun(x, slope):
            return slope * optax.tree.norm(x, squared=True) / 2

        update = page.make_update(fun, solver)
        y, state = update(x, solver.init(x), 1.0)
        z, last = update(y, state, 0.5)
        rate, same = (optax.tree.get(x, "learning_rate") for x in (state, last))
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
    solver, transformation = make.make_rows(page)[GOLDSTEIN]
    old = count_evaluations(
        solver.init_state,
        lambda fun: jax.jit(make.make_rows(page, fun)[GOLDSTEIN][0].update),
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


def prose():
    return re.sub("(?m)^# ?", "", make.PAGE.read_text())


def test_the_two_loops(page, jaxopt, golden):
    """What they define makes the same steps, and does make steps."""
    (code,) = re.findall(
        r"(?m)^\.\. code-block:: python\n\n((?: {3}.*\n|\n)+)", prose()
    )
    _, in_jaxopt, in_optax = re.split("(?=update = )", textwrap.dedent(code))
    problem = map(np.array, golden["problem"].values())
    first, *minibatches = zip(*problem, strict=True)
    names = {"jax": jax, "make_update": page.make_update, "loss_fun": make.fun}
    names |= {"minibatch": first}
    ends = []
    polyak = jaxopt.PolyakSGD(make.fun), optax.polyak_sgd()
    for code, solver in zip((in_jaxopt, in_optax), polyak, strict=True):
        space = names | {"params": make.make_start(), "solver": solver}
        exec(code, space)
        for space["minibatch"] in minibatches:
            exec("params, state = update(params, state, *minibatch)", space)
        ends.append(ravel_pytree(space["params"])[0])
    assert "``params, state = update(params, state, *minibatch)`` is a step" in prose()
    assert np.array_equal(*ends)
    assert np.abs(ends[0]).max() > 0.1


# The loop in Flax NNX


class Network(nnx.Module):
    """The network of the page, where it is wide enough and drops nothing."""

    def __init__(self, width=16, dropout=0.0, classes=10):
        rngs = nnx.Rngs(0)
        self.hidden = nnx.Linear(28 * 28, width, rngs=rngs)
        self.average = nnx.BatchNorm(width, rngs=rngs) if dropout else None
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.last = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, images):
        hidden = self.hidden(images)
        hidden = self.average(hidden) if self.average else hidden
        return self.last(self.dropout(nnx.relu(hidden)))

    def layers(self):
        return {"layers_0": self.hidden, "layers_2": self.last}


def nnx_loss(model, images, labels):
    logits = model(images)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def make_optimizer(model, solver):
    """Make it with the code in the prose."""
    (code,) = re.findall(r"(?s)``(nnx\.Optimizer\(.*?)``", prose())
    space = {"nnx": nnx, "optax": optax, "model": model, "solver": solver}
    exec(f"optimizer = {code}", space)
    return space["optimizer"]


def take_step(page, model, optimizer, minibatch):
    """Take it with the code in the prose."""
    (code,) = re.findall("``(train_step[(].*?)``", prose())
    names = {"train_step": page.train_step, "loss_fun": nnx_loss, "model": model}
    exec(code, names | {"optimizer": optimizer, "minibatch": minibatch})


@pytest.fixture(scope="module")
def noise():
    """Return minibatches of noise, on which no solver is done soon."""
    random = np.random.default_rng(0)
    images = random.random((4, 32, 28 * 28), np.float32)
    return [*zip(images, random.integers(0, 10, (4, 32)), strict=True)]


def walk_in_both(page, solver, minibatches, steps):
    """Return parameters after each step, of Linen and of NNX, from the same ones."""
    nn = page.nn
    net = nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(10)])
    params, model = net.init(jax.random.key(1), jnp.zeros((1, 28 * 28))), Network()
    for name, layer in model.layers().items():
        nnx.update(layer, params["params"][name])
    update = page.make_update(partial(page.cross_entropy, net), solver)
    state, optimizer = solver.init(params), make_optimizer(model, solver)
    paths = [], []
    for step in range(steps):
        minibatch = minibatches[step % len(minibatches)]
        params, state = update(params, state, *minibatch)
        take_step(page, model, optimizer, minibatch)
        layers = model.layers().items()
        ours = {
            name: {k: getattr(x, k)[...] for k in ("kernel", "bias")}
            for name, x in layers
        }
        paths[0].append(np.array(ravel_pytree(params["params"])[0]))
        paths[1].append(np.array(ravel_pytree(ours)[0]))
    return np.array(paths)


@pytest.fixture(scope="module")
def nnx_solvers(page):
    rows = page.make_optax_solvers(1.0, 0.9)
    searches = {f"search, {name}": rows[name] for name in [*rows][4:]}
    polyak, momo = rows["polyak_sgd"], optax.contrib.momo(1.0)
    others = {
        "sgd": optax.sgd(1.0),
        "adam": optax.adam(1e-3),
        "bare": optax.scale(-0.1),
    }
    return {"polyak": polyak, "momo": momo} | others | searches


SEARCHES_IN_NNX = [f"search, backtracking, factor {factor}" for factor in (1.5, 1.0)]
SEARCHES_IN_NNX += ["search, Goldstein, from this page"]


@pytest.mark.parametrize(
    "name", ["sgd", "adam", "bare", "polyak", "momo", *SEARCHES_IN_NNX]
)
def test_the_loop_in_nnx_is_that_in_linen(page, noise, nnx_solvers, name):
    """To the last digit, for 40 steps that move the parameters."""
    assert "this and ``update`` agree to the last digit" in prose()
    linen, ours = walk_in_both(page, nnx_solvers[name], noise, 40)
    assert linen.shape == (40, 12_730)
    assert np.array_equal(linen, ours)
    assert np.abs(np.diff(linen, axis=0)).max(axis=1).min() > 0
    if name in SEARCHES_IN_NNX:
        # A search that shrinks no step would be SGD with its cap as the step size.
        sgd, _ = walk_in_both(page, nnx_solvers["sgd"], noise, 2)
        assert np.abs(linen[:2] - sgd).max() > 1e-3


def test_a_step_in_nnx_tells_the_loss_of_any_parameters(page, noise):
    """At the parameters, it is the value, with the same dropout; each trial alike.

    A trial changes nothing, and a step moves dropout and averages on by one.
    """

    def update(updates, state, params, *, value, grad, value_fn):
        assert not isinstance(params, nnx.Module)
        doubled = jax.tree.map(lambda x: 2 * x, params)
        trials = jax.lax.map(lambda _: value_fn(params), jnp.arange(2))
        seen = value, *trials, value_fn(doubled), optax.tree.norm(grad)
        return updates, {"seen": jnp.stack(seen)}

    def init(params):
        return {"seen": jnp.zeros(5)}

    recorder = optax.GradientTransformationExtraArgs(init, update)
    model, alone = Network(dropout=0.5), Network(dropout=0.5)
    values = []
    optimizer = make_optimizer(model, recorder)
    for minibatch in noise[:2]:
        nnx.update(alone, nnx.state(model, nnx.Param))
        value, grad = nnx.value_and_grad(nnx_loss)(alone, *minibatch)
        take_step(page, model, optimizer, minibatch)
        seen = optimizer.opt_state["seen"][...]
        assert seen[:3] == pytest.approx(float(value), rel=1e-5)
        assert abs(seen[3] - value) > 1e-3
        assert seen[4] == pytest.approx(float(optax.tree.norm(grad)), rel=1e-4)
        values.append(value)
        for model_or_alone in (model, alone):
            assert model_or_alone.dropout.rngs.count[...] == len(values)
        average = model.average.mean[...], alone.average.mean[...]
        np.testing.assert_allclose(*average, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("c, cap", [(0.5, 1.0), (0.2, 1.0), (2.0, 1.0), (0.5, 0.3)])
def test_the_chain_for_a_constant(page, c, cap):
    """On x^2 from 3, where loss / norm(gradient)^2 is 1 / 4."""
    (code,) = re.findall(r"(?s)``(optax\.chain\(optax\.scale_by_polyak.*?)``", prose())
    space = {"optax": optax, "c": c, "max_stepsize": cap}
    exec(f"solver = {code}", space)
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

    code = "state = optax.tree.set(solver.init(params), learning_rate=cap)"
    assert f"``{code}``" in prose()
    solver, replacement = make.make_rows(page, lambda x: x**2 / 16, cap, 0.9)[row]
    x = jnp.array(16.0)
    with jax.disable_jit():
        old, new = page.step_once(solver, replacement, x)
        assert old == pytest.approx(16 - 2 * cap)
        assert (old == new) == same
        if row != GOLDSTEIN:
            space = {"optax": optax, "solver": replacement, "params": x, "cap": cap}
            exec(code, space)
            new, _ = page.make_update(solver.fun, replacement)(x, space["state"])
            assert old == float(new)


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
    """Return 4 * 0.8^k for the first k whose step decreases the loss enough."""
    rates = 4 * 0.8 ** np.arange(20)
    trials = fun(start - rates * slope)
    return rates[trials <= fun(start) - 0.1 * rates * slope**2][0]


def test_exceptions_by_hand(page):
    """At 2 the slope of x^2 - log(x) is 3.5."""
    with np.errstate(invalid="ignore"):
        rate = armijo_in_optax(lambda x: x**2 - np.log(x), 3.5, 2.0)
    assert rate < 4
    exceptions = page.compare_exceptions()
    expected = {
        "loss of a trial is NaN": (2 - 4 * 3.5, 2 - rate * 3.5),
        "loss, gradient are 0": (np.nan, 0.0),
    }
    assert list(exceptions) == list(expected)
    for case, pair in expected.items():
        assert exceptions[case] == pytest.approx(pair, rel=1e-5, nan_ok=True)


# Training


def test_compare(page):
    """The first minibatch makes the state; each start is followed from itself.

    Differences are the largest of all parameters.
    """

    def fun(params, x):
        return params["a"].sum() + params["b"].sum()

    def update(params, state, x):
        new = {"a": params["a"] - 1, "b": params["b"] - jnp.array([1, 4.0])}
        return jax.tree.map(lambda leaf: leaf - x - state, new), state

    solver = SimpleNamespace(fun=fun, init_state=lambda _, x: x, update=update)
    minibatches = [[(np.float32(x),) for x in row] for row in ([7, 0, 1], [0, 5, 6])]
    starts = [
        ({"a": jnp.full(3, start), "b": jnp.zeros(2)}, minibatches[i])
        for i, start in enumerate((0.0, 8.0))
    ]
    differences = page.compare(solver, optax.sgd(1.0), starts)
    assert np.array_equal(differences, [[10, 21], [8, 17]])


def test_cross_entropy(page):
    """By hand, for a linear network."""
    random = np.random.default_rng(0)
    images, labels = random.random((4, 64)), random.integers(0, 10, 4)
    layer = {"kernel": random.normal(size=(64, 10)), "bias": random.normal(size=10)}
    logits = images @ layer["kernel"] + layer["bias"]
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[range(4), labels]
    net = page.nn.Dense(10)
    loss = page.cross_entropy(net, {"params": layer}, images, labels)
    assert float(loss) == pytest.approx(losses.mean(), rel=1e-5)


# Runs of the page, on small data


def run_page(page, *flags):
    """Run ``main``; tell all that came of it, and what it compared and printed.

    ``settings`` are those that solvers were made with.
    """
    compare, make_optax_solvers = page.compare, page.make_optax_solvers
    compared, settings = [], []

    def watched(*arguments):
        compared.append(arguments)
        return compare(*arguments)

    def watch(*limits):
        settings.append(limits)
        return make_optax_solvers(*limits)

    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as log,
    ):
        patch.setattr(page, "compare", watched)
        patch.setattr(page, "make_optax_solvers", watch)
        differences = page.main(["page", *flags])
    figure = plt.gcf()
    plt.close(figure)
    return SimpleNamespace(
        differences=differences,
        log=log.getvalue(),
        figure=figure,
        compared=compared,
        settings=settings,
    )


SMALL = [
    *("--num_seeds=2", "--maxiter=3", "--batch_size=16", "--net_width=2"),
    *("--max_stepsize=0.5", "--aggressiveness=0.8"),
]


@pytest.fixture(scope="module")
def small(page):
    return run_page(page, *SMALL)


def check_exact(differences):
    """Check that all rows agree to the last digit, but momentum."""
    assert list(differences) == ROWS
    assert all(np.all(differences[row] == 0) for row in ROWS if row != MOMENTUM)


def test_parity(small):
    check_exact(small.differences)
    assert all(rows.shape == (2, 4) for rows in small.differences.values())
    assert small.differences[MOMENTUM].max() < 1e-6


@pytest.mark.parametrize("row", SEARCHES)
def test_another_aggressiveness(page, small, row):
    """The searches agree with it as well, and are others than by default."""
    solver, _, starts = small.compared[0]
    pairs = [make.make_rows(page, solver.fun, 1.0, a)[row] for a in (0.5, 0.9)]
    for pair in pairs:
        assert np.all(page.compare(*pair, starts) == 0)
    (careful, _), (_, bold) = pairs
    assert np.all(page.compare(careful, bold, starts).max(axis=1) > 1e-3)


def test_rows_differ(page, small):
    """No solver agrees with the replacement of another."""
    solvers = [solver for solver, _, _ in small.compared[:5]]
    _, _, starts = small.compared[0]
    for solver, (_, other, _) in zip(solvers, small.compared[1:6], strict=True):
        assert page.compare(solver, other, starts).max() > 1e-6


def test_all_start_alike(small):
    """Both sides of all rows, from the same parameters and minibatches."""
    starts = [starts for _, _, starts in small.compared]
    assert len(starts) == 7
    assert all(start is starts[0] for start in starts)


def test_rows_are_made_with_the_settings(small):
    assert small.settings == [(0.5, 0.8), (4.0, 0.9)]


def test_seeds_differ(small):
    _, _, ((params, minibatches), (other_params, other_minibatches)) = small.compared[0]
    assert len(minibatches) == len(other_minibatches) == 3 + 2
    images = [x for x, _ in (*minibatches, *other_minibatches)]
    assert len({x.tobytes() for x in images}) == 10
    assert {x.shape for x in images} == {(16, 28 * 28)}
    kernels = [p["params"]["layers_0"]["kernel"] for p in (params, other_params)]
    assert {kernel.shape for kernel in kernels} == {(784, 4 * 2)}
    assert not np.array_equal(*kernels)


def test_tables(page, capsys):
    """The largest difference of all seeds and steps; exceptions with three digits."""
    differences = {"one": np.array([[0, 9.4e-6], [3e-7, 0]]), "two": np.zeros((2, 2))}
    exceptions = {"a case": (np.nan, -1.25)}
    page.print_tables(differences, {"its": None, "another": None}, exceptions)
    above, below = capsys.readouterr().out.split("\n\n")
    assert read_table(above) == [["one", "its", "9e-06"], ["two", "another", "0.0"]]
    assert read_table(below) == [["a case", "nan", "-1.250"]]


def test_the_table_has_the_pairs_that_are_compared(page, small):
    above, below = map(read_table, small.log.split("\n\n"))
    assert [row[0] for row in above] == ROWS
    assert [row[1] for row in above] == list(page.make_optax_solvers(1.0, 0.9))
    largest = [float(f"{rows.max():.0e}") for rows in small.differences.values()]
    assert [float(row[2]) for row in above] == largest
    assert [row[0] for row in below] == list(page.compare_exceptions())


def test_two_runs_print_the_same(page, small):
    assert run_page(page, *SMALL).log == small.log


def test_figure(small):
    (ax,) = small.figure.axes
    assert small.figure.get_size_inches()[0] <= 7.2
    title = "Largest difference between JAXopt and Optax"
    assert small.figure.get_suptitle() == title
    assert [ax.get_xlabel(), ax.get_ylabel()] == ["iteration", "largest difference"]
    assert ax.get_yscale() == "symlog"
    rows = [small.differences[MOMENTUM], np.zeros((2, 4))]
    for line, series in zip(ax.lines, rows, strict=True):
        assert np.array_equal(line.get_ydata(), series.max(axis=0))
    for line in ax.lines:
        assert np.array_equal(line.get_xdata(), range(4))
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == [line.get_label() for line in ax.lines]
    assert texts == [MOMENTUM, "the other six"]
    for get in ("get_color", "get_linestyle"):
        assert len({getattr(line, get)() for line in ax.lines}) == 2


# What the page says of its own numbers, each finding on the real data. They also held
# for seeds 3 to 14, and where each initial parameter was rounded up.


@pytest.fixture(scope="module")
def real(page):
    folder = CAME.get("TFDS_DATA_DIR", Path.home() / "tensorflow_datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds.core.constants, "DATA_DIR", os.fspath(folder))
        return run_page(page)


def test_six_of_seven_replacements_are_exact(real):
    """To the last digit, at each of 17 steps from three seeds."""
    check_exact(real.differences)
    assert {rows.shape for rows in real.differences.values()} == {(3, 17)}
    # And all parameters are compared.
    _, _, starts = real.compared[0]
    assert {ravel_pytree(params)[0].size for params, _ in starts} == {12_730}


def test_momentum_differs_by_rounding_errors(real):
    """By 3e-8, and 6e-8 over 15 seeds; with newer versions of JAX it may agree."""
    assert real.differences[MOMENTUM].max() < 1e-7


def test_goldsteins_rule_is_missing_in_optax(page):
    """This page adds it in fewer than 50 lines."""
    functions = page.search_goldstein, page.scale_by_goldstein
    lines = [len(inspect.getsource(function).splitlines()) for function in functions]
    assert sum(lines) < 50
    assert not [name for name in dir(optax) if "goldstein" in name.lower()]


def test_optax_handles_two_cases_that_break_jaxopt(real):
    _, below = map(read_table, real.log.split("\n\n"))
    assert below == [
        ["loss of a trial is NaN", "-12.000", "0.121"],
        ["loss, gradient are 0", "nan", "0.000"],
    ]
