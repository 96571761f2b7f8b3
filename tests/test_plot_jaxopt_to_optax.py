"""The page on leaving JAXopt: its rows, steps, prose, tables and figure.

The day that JAXopt cannot be imported, the tests of golden paths still hold: they need
what its solvers did, not JAXopt. The fixture ``page`` and what uses it do need it.
"""

import json
import sys
from types import ModuleType

import jax
import numpy as np
import pytest
from golden import make
from jax.flatten_util import ravel_pytree

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


def golden_stepsizes(golden, row):
    """Return the step sizes that made a path, from its steps and the gradients."""
    problem, momentum = golden["problem"], 0.9 if row == MOMENTUM else 0
    flat, unravel = ravel_pytree(make.make_start())
    path = np.concatenate([[flat], golden["paths"][row]])
    steps = np.diff(path, axis=0)
    steps[1:] -= momentum * np.diff(path[:-1], axis=0)
    gradient, stepsizes = jax.jit(jax.grad(make.fun)), []
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
