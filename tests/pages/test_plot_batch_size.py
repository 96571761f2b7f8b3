"""Floors and the minibatch: gaps, data, runs, table, figure, and what is said."""

import contextlib
import io
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from helpers import ROOT, load, plotted, printed, read_table

PAGE = ROOT / "examples/deep_learning/plot_batch_size.py"
POLYAK = ["Polyak, cap 0.01", "Polyak, cap 1", "Polyak, f_min"]
SOLVERS = ["SGD, 0.003", "SGD, 0.01", *POLYAK, "Armijo"]
SIZES = [1, 2, 8, 32, 128]
SMALL = ["--num_seeds=3", "--num_steps=20"]


@pytest.fixture(scope="module")
def page():
    return load(PAGE)


@pytest.fixture(scope="module")
def run_page(page):
    """Return a function that runs ``main`` and tells all that came of it."""

    def run(*flags):
        with contextlib.redirect_stdout(io.StringIO()) as log:
            floors = page.main(["page", *flags])
        figure = plt.gcf()
        plt.close(figure)
        return SimpleNamespace(log=log.getvalue(), figure=figure, floors=floors)

    return run


@pytest.fixture(scope="module")
def small(page, run_page):
    """Return a run that solves nothing: its floors follow from what it is given."""
    order = list(page.SOLVERS)

    def stub(name, features, labels, indices):
        return (1 + order.index(name)) * labels[0] ** 2 / indices.shape[1] ** 0.5

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "measure_floor", stub)
        return run_page(*SMALL)


@pytest.fixture
def few_sizes(page, monkeypatch):
    """Minibatches of one example and of 16, since each size takes time to compile."""
    monkeypatch.setattr(page, "BATCH_SIZES", np.array([1] * 4 + [16]))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def drawn(page, seed, *flags):
    return page.draw_examples(page.parse_flags(["page", *flags]), seed)


def loss_of(params, features, labels):
    return np.mean((features @ params - labels) ** 2) / 2


def best_of(features, labels):
    return np.linalg.lstsq(features, labels)[0]


# Data


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_linear_with_noise(page, seed):
    """So ``f_min`` of the page, 0.12, is the least loss: half of 0.25 * 950 / 1000."""
    features, labels, indices = drawn(page, seed, "--num_steps=100")
    assert features.shape == (1000, 50) and labels.shape == (1000,)
    assert indices.shape == (100, 128)
    assert set(indices.flat) == set(range(1000))
    best = best_of(features, labels)
    assert loss_of(best, features, labels) == pytest.approx(0.119, rel=0.1)
    noise = labels - features @ best
    assert noise.std() * (1000 / 950) ** 0.5 == pytest.approx(0.5, rel=0.05)
    assert features.std() == pytest.approx(1, rel=0.02)
    assert best @ best == pytest.approx(1, abs=0.5)


def test_a_seed_draws_the_same_twice(page):
    first, again, other = (drawn(page, seed, "--num_steps=9") for seed in (3, 3, 4))
    for one, same, another in zip(first, again, other, strict=True):
        assert np.array_equal(one, same)
        assert not np.array_equal(one, another)


def test_every_solver_gets_the_same_minibatches(page, run_page, monkeypatch):
    """A smaller one has the first examples of a larger one, of the same seed."""

    def watched(name, features, labels, indices):
        padding = (0, 0), (0, 128 - indices.shape[1])
        rows = jnp.pad(indices, padding, constant_values=-1)
        return jnp.concatenate([features.sum(axis=1), labels, rows.ravel()])

    monkeypatch.setattr(page, "measure_floor", watched)
    for name in ("print_floors", "plot_floors"):
        monkeypatch.setattr(page, name, lambda *_: None)
    flags = "--num_seeds=2", "--num_steps=4"
    results = run_page(*flags).floors
    assert list(results) == SOLVERS
    for seed in range(2):
        features, labels, indices = drawn(page, seed, *flags)
        for i, size in enumerate(SIZES):
            rows = np.where(np.arange(128) < size, indices, -1)
            seen = np.concatenate([features.sum(axis=1), labels, rows.ravel()])
            for given in results.values():
                np.testing.assert_allclose(given[seed, i], seen, atol=1e-10)


# Gaps and floors


@pytest.fixture(scope="module")
def tiny():
    """Return features (20, 6), labels (20,), and the rows of 81 minibatches of 4."""
    random = np.random.default_rng(0)
    features = random.normal(size=(20, 6)) / 2
    return features, random.normal(size=20), random.integers(20, size=(81, 4))


def test_gaps_are_losses_minus_the_least_loss(page, x64, tiny):
    """They are zero at the best parameters, and above zero at all others."""
    features, labels, _ = tiny
    best = best_of(features, labels)
    path = np.random.default_rng(1).normal(size=(7, 6))
    path[2], path[3] = best, best + 1e-3
    gaps = page.gaps(jnp.array(path), jnp.array(features), jnp.array(labels))
    losses = np.array([loss_of(params, features, labels) for params in path])
    least = loss_of(best, features, labels)
    np.testing.assert_allclose(gaps, losses - least, rtol=1e-8, atol=1e-14)
    assert np.all(gaps >= 0)
    assert gaps[2] < 1e-28 and gaps[3] > 1e-8


def plain_path(name, features, labels, rows):
    """Return the parameters after each step of the rule ``name``, and step sizes."""
    params, path, stepsizes = np.zeros(features.shape[1]), [], [np.inf]
    for x, y in zip(features[rows], labels[rows], strict=True):
        residuals = x @ params - y
        f, g = np.mean(residuals**2) / 2, x.T @ residuals / len(y)
        if name.startswith("SGD"):
            s = float(name.split()[1])
        elif name == "Armijo":
            s = min(1.5 * stepsizes[-1], 1)
            while loss_of(params - s * g, x, y) > f - s * g @ g / 2:
                s *= 0.8
        elif name == "Polyak, f_min":
            s = min(max(f - 0.12, 0) / (g @ g), 1)
        else:
            s = min(f / (g @ g), float(name.split()[-1]))
        params = params - s * g
        path.append(params)
        stepsizes.append(s)
    return path, stepsizes[1:]


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps, measured", [(80, 40), (81, 41)])
def test_floors_are_those_of_a_plain_loop(page, x64, tiny, name, steps, measured):
    """The mean is of the gaps after the second half of the steps."""
    features, labels, rows = tiny
    path, _ = plain_path(name, features, labels, rows[:steps])
    losses = [loss_of(params, features, labels) for params in path[-measured:]]
    expected = np.mean(losses) - loss_of(best_of(features, labels), features, labels)
    given = page.measure_floor(name, *map(jnp.array, (*tiny[:2], rows[:steps])))
    assert given == pytest.approx(expected, rel=1e-8)


def test_runs_are_those_of_a_plain_loop(page, run_page, few_sizes):
    """For each seed, solver and size, in double precision; a second run is the same."""
    flags = "--num_seeds=2", "--num_steps=20"
    first, second = run_page(*flags), run_page(*flags)
    assert first.log == second.log
    for seed in range(2):
        features, labels, indices = drawn(page, seed, *flags)
        least = loss_of(best_of(features, labels), features, labels)
        for name, i in [(name, i) for name in SOLVERS for i in (0, 4)]:
            rows = indices[:, : page.BATCH_SIZES[i]]
            path, stepsizes = plain_path(name, features, labels, rows)
            if not (name.startswith("SGD") or (name, i) == ("Polyak, cap 0.01", 4)):
                assert len(set(stepsizes)) > 1, "the rule is not seen"
            losses = [loss_of(params, features, labels) for params in path[10:]]
            expected = pytest.approx(np.mean(losses) - least, rel=1e-8)
            assert first.floors[name][seed, i] == expected


def test_the_precision_is_double_on_this_page_only(page, small):
    """A floor is of the solver, the seed and the size that have its place."""
    assert list(small.floors) == list(page.SOLVERS) == SOLVERS
    assert page.BATCH_SIZES.tolist() == SIZES
    first = np.array([drawn(page, seed, *SMALL)[1][0] for seed in range(3)])
    for i, floors in enumerate(small.floors.values(), 1):
        expected = i * first[:, None] ** 2 / np.array(SIZES) ** 0.5
        np.testing.assert_allclose(floors, expected, rtol=1e-12)
        assert floors.dtype == np.float64
    assert not jax.config.jax_enable_x64
    assert jnp.zeros(1).dtype == np.float32


# Table and figure


def test_table(small):
    """It has the medians of the floors, and the first over the last as their fall."""
    sizes = [int(cell) for cell in small.log.splitlines()[1].split()[1:-1]]
    assert sizes[0] == 1 and sizes[-1] == 128
    rows = read_table(small.log)
    assert [name for name, *_ in rows] == SOLVERS
    for name, *cells, fall in rows:
        medians = dict(zip(SIZES, np.median(small.floors[name], axis=0), strict=True))
        assert cells == [f"{medians[size]:.1e}" for size in sizes]
        assert float(fall) == pytest.approx(medians[1] / medians[128], abs=0.51)


def test_figure(page, small):
    fig = small.figure
    assert fig.get_size_inches()[0] <= 7.2
    (ax,) = fig.axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [line.get_label() for line in ax.lines] == labels == SOLVERS
    for line, band in zip(ax.lines, ax.collections, strict=True):
        floors = small.floors[line.get_label()]
        assert line.get_xdata().tolist() == SIZES
        assert line.get_ydata() == pytest.approx(np.median(floors, axis=0))
        ((path,),) = (band.get_paths(),)
        for size, column in zip(SIZES, floors.T, strict=True):
            here = path.vertices[path.vertices[:, 0] == size, 1]
            quartiles = np.quantile(column, [0.25, 0.75])
            assert [here.min(), here.max()] == pytest.approx(quartiles)
        assert to_rgb(band.get_facecolor()[0]) == to_rgb(line.get_color())


def test_colours_and_dashes(small):
    """A rule has one colour; each solver has its own dashes and marker."""
    lines = small.figure.axes[0].lines
    families = {(line.get_label()[:3], to_rgb(line.get_color())) for line in lines}
    assert len(families) == len({color for _, color in families}) == 3
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == 6
    assert len({line.get_marker() for line in lines}) == 6


# What the page says of its own numbers, in the built page.
# ``benchmarks/claims_of_others.py`` checks wider margins on other seeds.


@pytest.fixture(scope="module")
def medians():
    """Return {solver: floors (9,)}, the medians that the figure shows."""
    lines = plotted(PAGE)["floor"]
    assert list(lines) == SOLVERS
    assert all(rows[:, 0].tolist() == SIZES for rows in lines.values())
    return {name: rows[:, 1] for name, rows in lines.items()}


@pytest.fixture(scope="module")
def falls():
    """Return {solver: fall}, the last column of the table."""
    return {name: float(cells[-1]) for name, *cells in read_table(printed(PAGE))}


def test_printed_falls_are_those_plotted(medians, falls):
    for name, floors in medians.items():
        assert falls[name] == pytest.approx(floors[0] / floors[-1], abs=0.51)


def test_a_larger_minibatch_helps_sgd(medians, falls):
    """Each doubling helps."""
    assert falls["SGD, 0.003"] == pytest.approx(140, abs=20)
    assert falls["SGD, 0.01"] == pytest.approx(168, abs=25)
    for name in SOLVERS[:2]:
        assert np.all(medians[name][:-1] / medians[name][1:] > 1.7)


@pytest.mark.parametrize("stepsize", [0.003, 0.01])
def test_floors_of_sgd_are_those_of_theory(medians, stepsize):
    """About s d sigma^2 / 4 B, for small steps; with steps of s, more by the divisor.

    It is of Gaussian features, and sigma^2 is twice the least loss.
    """
    for size, floor in zip(SIZES, medians[f"SGD, {stepsize}"], strict=True):
        theory = stepsize * 50 * 0.2375 / 4 / size
        theory /= 1 - stepsize * (size + 51) / (2 * size)
        assert floor == pytest.approx(theory, rel=0.2)


def test_a_smaller_step_size_helps_sgd(medians):
    ratio = medians["SGD, 0.01"] / medians["SGD, 0.003"]
    assert 2.9 < ratio.min() <= ratio.max() < 4.3


def test_a_larger_minibatch_does_not_help_polyak(medians):
    floors = medians["Polyak, cap 1"]
    assert 0.037 < floors.min() <= floors.max() < 0.045


def test_polyak_with_a_small_cap_is_sgd(medians):
    ratio = medians["Polyak, cap 0.01"] / medians["SGD, 0.01"]
    assert ratio[1:] == pytest.approx(1, rel=0.01)
    assert ratio[0] < 0.95


def test_a_larger_minibatch_helps_others_a_little(medians, falls):
    assert falls["Armijo"] == pytest.approx(4.1, abs=0.6)
    assert falls["Polyak, f_min"] == pytest.approx(6, abs=1)
    assert medians["Polyak, f_min"][-1] == pytest.approx(0.005, abs=0.001)
    for name in ("Armijo", "Polyak, f_min"):
        assert np.all(np.diff(medians[name]) < 0)
    for name in set(medians) - {"Armijo"}:
        assert np.all(medians["Armijo"][:4] > 1.1 * medians[name][:4])


def test_nearly_all_step_sizes_of_polyak_are_at_the_small_cap(page):
    """From 2 examples on; of one example, the step size is 1 / 2 norm(x)^2."""
    features, labels, indices = drawn(page, 0, "--num_steps=1000")
    for size, lowest, highest in [(1, 0.3, 0.7), (2, 0.95, 1), (4, 0.95, 1)]:
        rows = indices[:, :size]
        _, stepsizes = plain_path("Polyak, cap 0.01", features, labels, rows)
        assert lowest < np.mean(np.equal(stepsizes, 0.01)) <= highest


@pytest.mark.parametrize("size", [1, 16, 50])
def test_minibatches_of_up_to_fifty_can_be_fitted(page, size):
    features, labels, indices = drawn(page, 0, "--num_steps=20")
    rows = [np.unique(row[:size]) for row in indices]
    for x, y in ((features[row], labels[row]) for row in rows):
        np.testing.assert_allclose(x @ best_of(x, y), y, atol=1e-9)


def test_short_runs_of_sgd_are_far_from_the_floor(page, x64, medians):
    """As the page says of ``--num_steps=2000`` and a step size of 0.003."""
    features, labels, indices = drawn(page, 0, "--num_steps=2000")
    data = jnp.array(features), jnp.array(labels), jnp.array(indices)
    assert page.measure_floor("SGD, 0.003", *data) > 5 * medians["SGD, 0.003"][-1]
