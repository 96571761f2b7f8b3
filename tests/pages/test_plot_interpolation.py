"""When Polyak and Armijo steps converge: data, solvers, runs, figure, what is said."""

import contextlib
import io
import re
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from matplotlib.colors import to_rgb

from helpers import ROOT, load, plotted, printed

PAGE = ROOT / "examples/deep_learning/plot_interpolation.py"
SOLVERS = ["Polyak", "Armijo", "DecSPS", "SGD", "SGD with decay"]
WIDE = ["400 parameters, no noise", "400 parameters, label noise"]
NARROW = ["50 parameters, no noise", "50 parameters, label noise"]


@pytest.fixture(scope="module")
def page():
    return load(PAGE)


@pytest.fixture(scope="module")
def run_page(page):
    """Return a function that runs ``main`` and tells all that came of it."""

    def run(*flags):
        with contextlib.redirect_stdout(io.StringIO()) as log:
            results = page.main(["page", *flags])
        figure = plt.gcf()
        plt.close(figure)
        return SimpleNamespace(log=log.getvalue(), figure=figure, results=results)

    return run


SMALL = ["--num_seeds=3", "--maxiter=80", "--batch_size=4"]


@pytest.fixture(scope="module")
def small_run(page, run_page):
    """Return a run that solves nothing: what its gaps are is seen from the problem."""
    order = list(page.SOLVERS.values())

    def gaps(make, features, labels, rows):
        size = (1 + order.index(make)) * labels[0] ** 2
        return size / 10.0 ** jnp.arange(len(rows[::40]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "record_gaps", gaps)
        return run_page(*SMALL)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# Data


def drawn(page, seed, *flags):
    return page.draw_data(page.parse_flags(["page", *flags]), seed)


@pytest.mark.parametrize("number", [50, 399, 400])
def test_labels_depend_on_the_first_features(page, number):
    features, labels, _ = drawn(page, 0, f"--num_relevant={number}")
    assert features.shape == (200, 400) and labels.shape == (200,)

    def unexplained(columns):
        fit = features[:, columns] @ np.linalg.lstsq(features[:, columns], labels)[0]
        return np.abs(labels - fit).max()

    assert unexplained(range(number)) < 1e-10
    if number == 50:
        assert min(unexplained(np.delete(range(50), i)) for i in range(50)) > 1e-4


def test_labels_are_about_as_large_however_many_features_are_relevant(page):
    for number in (10, 50, 400):
        flag = f"--num_relevant={number}"
        sizes = [drawn(page, seed, flag)[1].std() for seed in range(20)]
        assert np.median(sizes) == pytest.approx(1, abs=0.15)


def test_noise_is_all_that_the_noisy_labels_add(page):
    features, clean, noisy = drawn(page, 0)
    assert (noisy - clean).std() == pytest.approx(0.5, rel=0.15)
    same_features, same_clean, noisier = drawn(page, 0, "--noise=2")
    assert np.array_equal(features, same_features)
    assert np.array_equal(clean, same_clean)
    np.testing.assert_allclose(noisier - clean, 4 * (noisy - clean), atol=1e-12)
    _, clean, noisy = drawn(page, 0, "--noise=0")
    assert np.array_equal(clean, noisy)


def test_problems(page):
    """A row of panels has the features in common, a column the labels."""
    problems = page.make_problems(page.parse_flags(["page", "--num_seeds=3"]))
    assert list(problems) == WIDE + NARROW
    for size, titles in (400, WIDE), (50, NARROW):
        for title, which in zip(titles, (1, 2), strict=True):
            features, labels = problems[title]
            assert features.shape == (3, 200, size) and labels.shape == (3, 200)
            for seed in range(3):
                data = drawn(page, seed)
                assert np.array_equal(features[seed], data[0][:, :size])
                assert np.array_equal(labels[seed], data[which])
    features, labels = problems[WIDE[0]]
    assert len({x.tobytes() for x in features}) == 3
    assert len({x.tobytes() for x in labels}) == 3


def test_indices(page):
    rows = page.draw_indices(
        page.parse_flags(["page", "--maxiter=399", "--batch_size=7"]), 0
    )
    assert rows.shape == (400, 7)
    assert set(rows.flat) == set(range(200))
    again, other = (
        page.draw_indices(page.parse_flags(["page"]), seed) for seed in (0, 1)
    )
    assert again.shape == (4001, 10)
    assert not np.array_equal(again, other)


def test_mean_square_by_hand(page):
    """Residuals are 1 and -3: half of (1 + 9) / 2."""
    features = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    assert page.mean_square(jnp.array([2.0, 3.0]), features, jnp.array([1, 8])) == 2.5


# Solvers


def test_dec_sps_is_the_recursion_of_the_paper(page, x64):
    """c_k gamma_k = min{f / norm(g)^2, c_{k-1} gamma_{k-1}}, with c_k = sqrt(k + 1)."""
    random = np.random.default_rng(0)
    values, grads = random.exponential(2, size=12), random.normal(size=(12, 3))
    ratios = values / np.sum(grads**2, axis=1)
    assert np.any(np.diff(ratios) > 0) and np.any(np.diff(ratios) < 0)
    for cap in (np.max(ratios) + 1, np.median(ratios)):
        gammas = [min(ratios[0], cap)]
        for k in range(1, 12):
            last = np.sqrt(k) * gammas[-1]
            gammas.append(min(ratios[k], last) / np.sqrt(k + 1))
        solver = page.dec_sps(cap)
        state = solver.init(jnp.zeros(3))
        for value, grad, gamma in zip(values, grads, gammas, strict=True):
            grad = jnp.array(grad)
            updates, state = solver.update(grad, state, value=value, grad=grad)
            np.testing.assert_allclose(updates, -gamma * grad, rtol=1e-12)


def test_dec_sps_goes_on_after_a_zero_gradient(page, x64):
    solver, grad = page.dec_sps(1.0), jnp.array([3.0, 4.0])
    _, state = solver.update(grad, solver.init(grad), value=5.0, grad=grad)
    updates, state = solver.update(0 * grad, state, value=0.0, grad=0 * grad)
    assert np.all(updates == 0)
    updates, state = solver.update(grad, state, value=50.0, grad=grad)
    np.testing.assert_allclose(updates, -5 / 25 / np.sqrt(3) * grad)


@pytest.mark.parametrize("value, stepsize", [(12.5, 0.5), (100, 1)])
def test_a_polyak_step_by_hand(page, value, stepsize):
    solver, grad = page.SOLVERS["Polyak"](None), jnp.array([3.0, 4.0])
    updates, _ = solver.update(grad, solver.init(grad), grad, value=value)
    np.testing.assert_allclose(updates, -stepsize * grad)


@pytest.mark.parametrize(
    "name, stepsizes",
    [
        ("SGD", [1 / 8] * 4),
        ("SGD with decay", [1 / 8, 1 / 8 / 2**0.5, 1 / 8 / 3**0.5, 1 / 16]),
    ],
)
def test_sgd_steps_by_hand(page, name, stepsizes):
    solver, grad = page.SOLVERS[name](8.0), jnp.array([1.0, -2.0])
    state = solver.init(grad)
    for stepsize in stepsizes:
        updates, state = solver.update(grad, state, grad)
        np.testing.assert_allclose(updates, -stepsize * grad, rtol=1e-6)


def test_the_line_search_accepts_the_first_step_that_promises_half(page, x64):
    """Its trials are 0.8 times the one before, the first 1.5 times the last step."""
    random = np.random.default_rng(0)
    solver = page.SOLVERS["Armijo"](None)

    @jax.jit
    def update(params, state, features):
        fun = partial(page.mean_square, features=features, labels=jnp.ones(3))
        value, grad = jax.value_and_grad(fun)(params)
        extra = {"value": value, "grad": grad, "value_fn": fun}
        return *solver.update(grad, state, params, **extra), grad

    params, last, tried = random.normal(size=8), np.inf, set()
    state = solver.init(jnp.array(params))
    for _ in range(30):
        features = random.normal(size=(3, 8)) * random.exponential(2)

        def loss(params, features=features):
            return np.mean((features @ params - 1) ** 2) / 2

        updates, state, grad = update(params, state, features)
        updates, grad = np.array(updates), np.array(grad)
        stepsize = -updates[0] / grad[0]
        np.testing.assert_allclose(updates, -stepsize * grad, atol=1e-14)
        shrinks = np.log(stepsize / min(1.5 * last, 1)) / np.log(0.8)
        assert shrinks == pytest.approx(round(shrinks), abs=1e-6)
        for trial in stepsize / 0.8 ** np.arange(round(shrinks) + 1):
            least = loss(params) - trial * grad @ grad / 2
            assert (loss(params - trial * grad) <= least) == (trial == stepsize)
        tried.add(round(shrinks))
        params, last = params + updates, stepsize
    assert len(tried) > 3


# Training


def plain_run(name, features, labels, rows):
    """Return the path and the step sizes of the rule ``name``, by a plain loop."""
    smoothness = max(example @ example for example in features)
    params, path, stepsizes = np.zeros(features.shape[1]), [], [1.0]
    for k, (x, y) in enumerate(zip(features[rows], labels[rows], strict=True)):
        path.append(params)
        residuals = x @ params - y
        f, g = np.mean(residuals**2) / 2, x.T @ residuals / len(y)
        polyak, last = f / (g @ g), stepsizes[-1]
        if name == "Polyak":
            s = min(polyak, 1)
        elif name == "DecSPS":
            s = min(polyak, np.sqrt(max(k, 1)) * last) / np.sqrt(k + 1)
        elif name == "Armijo":
            s = min(1.5 * last, 1)
            while np.mean((x @ (params - s * g) - y) ** 2) / 2 > f - s * g @ g / 2:
                s *= 0.8
        else:
            s = 1 / smoothness / (np.sqrt(k + 1) if "decay" in name else 1)
        params = params - s * g
        stepsizes.append(s)
    return path, stepsizes[1:]


def least_loss(features, labels):
    fit = features @ np.linalg.lstsq(features, labels)[0]
    return np.mean((fit - labels) ** 2) / 2


def gaps_of(page, name, problem, rows):
    return page.record_gaps(
        page.SOLVERS[name], *map(jnp.array, problem), jnp.array(rows)
    )


@pytest.fixture(scope="module")
def small():
    """Return features (20, 6), labels (20,), and the rows of 81 minibatches of 4."""
    random = np.random.default_rng(0)
    features = random.normal(size=(20, 6)) / 2
    return features, random.normal(size=20), random.integers(20, size=(81, 4))


@pytest.mark.parametrize("name", SOLVERS)
def test_gaps_are_those_of_a_plain_loop(page, x64, small, name):
    """Before steps 0, 40 and 80; the least loss is that of ``numpy``."""
    features, labels, rows = small
    gaps, least = gaps_of(page, name, small[:2], rows), least_loss(features, labels)
    own = page.least_loss(jnp.array(features), jnp.array(labels))
    assert own == pytest.approx(least, rel=1e-12)
    path, _ = plain_run(name, features, labels, rows)
    losses = [np.mean((features @ path[k] - labels) ** 2) / 2 for k in (0, 40, 80)]
    # JAX takes square roots of the 32 bits of a count of Optax in single precision.
    rtol = 1e-6 if "decay" in name else 1e-10
    np.testing.assert_allclose(gaps, np.array(losses) - least, rtol=rtol)
    assert gaps.dtype == np.float64


@pytest.mark.parametrize("length, points", [(1, 1), (40, 1), (41, 2)])
def test_a_gap_is_from_before_its_step(page, x64, small, length, points):
    features, labels, rows = small
    gaps = gaps_of(page, "SGD", small[:2], rows[:length])
    least = least_loss(features, labels)
    assert gaps.shape == (points,)
    assert gaps[0] == pytest.approx(np.mean(labels**2) / 2 - least)


def test_every_solver_gets_the_same_rows_and_data(page, run_page, monkeypatch):
    """And every problem the same rows; seeds have rows and data of their own."""

    def watched(make, features, labels, rows):
        leaves = jnp.sum(features, axis=1), labels, jnp.ravel(rows)
        return jnp.concatenate(leaves)

    monkeypatch.setattr(page, "record_gaps", watched)
    for name in ("print_gaps", "plot_gaps"):
        monkeypatch.setattr(page, name, lambda *_: None)
    flags = "--num_seeds=3", "--maxiter=8", "--batch_size=4"
    results = run_page(*flags).results
    settings = page.parse_flags(["page", *flags])
    rows = [page.draw_indices(settings, seed).ravel() for seed in range(3)]
    assert len({row.tobytes() for row in rows}) == 3
    for title, (features, labels) in page.make_problems(settings).items():
        seen = np.hstack([features.sum(axis=2), labels, rows])
        assert list(results[title]) == SOLVERS
        for given in results[title].values():
            np.testing.assert_allclose(given, seen, atol=1e-10)


# Log and figure


def test_results(page, small_run):
    """A row for each seed, of the solver and the problem that have the names."""
    problems = page.make_problems(page.parse_flags(["page", *SMALL]))
    assert list(small_run.results) == WIDE + NARROW
    for title, curves in small_run.results.items():
        _, labels = problems[title]
        assert list(curves) == SOLVERS
        for i, series in enumerate(curves.values(), 1):
            assert series.dtype == np.float64
            expected = i * labels[:, :1] ** 2 / [1, 10, 100]
            np.testing.assert_allclose(series, expected, rtol=1e-12)


def test_the_precision_is_double_on_this_page_only(small_run):
    assert not jax.config.jax_enable_x64
    assert jnp.zeros(1).dtype == np.float32


def test_table(page, small_run):
    """It has the least losses, and the last gaps as ``main`` returns them."""
    problems = page.make_problems(page.parse_flags(["page", *SMALL]))
    caption, *header = small_run.log.splitlines()[:4]
    rule, *rows = small_run.log.splitlines()[4:]
    assert caption.endswith(":")
    assert len({len(row) for row in (*header, rule, *rows)}) == 1, "not aligned"
    assert max(map(len, [caption, rule])) <= 64
    between = [gap.span() for gap in re.finditer(" +", rule)]
    for row in (*header, *rows):
        assert not any(row[start:end].strip() for start, end in between)
    columns = [re.findall(r"\S(?:.*\S)?", line[14:])[0].split("  ") for line in header]
    columns = [[cell.strip() for cell in line if cell.strip()] for line in columns]
    for title, *parts in zip(small_run.results, *columns, strict=True):
        assert title == "{} {}, {}".format(*parts)
    *rows, least = [(row[:14].strip(), row[14:].split()) for row in rows]
    assert [name for name, _ in rows] == SOLVERS
    for name, cells in rows:
        gaps = [curves[name][:, -1] for curves in small_run.results.values()]
        assert cells == [f"{sorted(series)[1]:.1e}" for series in gaps]
    expected = []
    for features, labels in problems.values():
        losses = [least_loss(x, y) for x, y in zip(features, labels, strict=True)]
        expected.append(f"{sorted(losses)[1]:.3f}")
    assert least == ("least loss", expected)


def test_figure(small_run):
    figure, results = small_run.figure, small_run.results
    assert max(figure.get_size_inches()) <= 7.2
    assert [ax.get_title() for ax in figure.axes] == list(results)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == SOLVERS
    assert (
        figure.get_suptitle() == "Gaps of five solvers on four least-squares problems"
    )
    for ax, curves in zip(figure.axes, results.values(), strict=True):
        assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
        for line, band, (name, series) in zip(
            ax.lines, ax.collections, curves.items(), strict=True
        ):
            assert line.get_label() == name
            assert np.array_equal(line.get_xdata(), [0, 40, 80])
            assert np.array_equal(line.get_ydata(), np.median(series, axis=0))
            ((path,),) = (band.get_paths(),)
            for x, gaps in zip(line.get_xdata(), series.T, strict=True):
                here = path.vertices[path.vertices[:, 0] == x, 1]
                quartiles = np.quantile(gaps, [0.25, 0.75])
                assert [here.min(), here.max()] == pytest.approx(quartiles)


def test_colours_and_dashes(page, small_run):
    """Each solver has its own, in the panels and in the legend."""
    assert list(page.STYLES) == SOLVERS
    colors = [to_rgb(style["color"]) for style in page.STYLES.values()]
    assert len(set(colors)) == 5
    assert len({str(style["linestyle"]) for style in page.STYLES.values()}) == 5
    (legend,) = small_run.figure.legends
    patterns = set()
    for where in (*small_run.figure.axes, legend):
        lines = where.get_lines()
        assert [to_rgb(line.get_color()) for line in lines] == colors
        patterns.add(str([line._unscaled_dash_pattern for line in lines]))
    assert len(patterns) == 1
    for ax in small_run.figure.axes:
        bands = [tuple(band.get_facecolor()[0][:3]) for band in ax.collections]
        assert bands == colors


def test_axes_are_named_and_shared(small_run):
    above, right, below, last = small_run.figure.axes
    assert [ax.get_xlabel() for ax in (below, last)] == ["iteration"] * 2
    assert [ax.get_ylabel() for ax in (above, below)] == ["gap"] * 2
    assert above.get_shared_y_axes().joined(above, right)
    assert not above.get_shared_y_axes().joined(above, below)
    assert above.get_shared_x_axes().joined(above, last)


def test_one_step_from_one_seed(page, run_page, monkeypatch):
    """With one solver, because a gap is from before its step; twice the same."""
    monkeypatch.setattr(page, "SOLVERS", {"Polyak": page.SOLVERS["Polyak"]})
    flags = "--maxiter=0", "--num_seeds=1", "--batch_size=1"
    run, again = run_page(*flags), run_page(*flags)
    series = [x for curves in run.results.values() for x in curves.values()]
    assert {(x.shape, x.dtype) for x in series} == {((1, 1), np.dtype(np.float64))}
    assert min(series) > 0
    assert run.log == again.log
    assert run.log.count("e-") == 4 and "nan" not in run.log


# What the page says of its own numbers, in the figure and the log of the built page


@pytest.fixture(scope="module")
def built_run():
    """Return {title: {solver: rows (step, median, lowest, highest gap)}}."""
    panels = plotted(PAGE)
    assert list(panels) == WIDE + NARROW
    for lines in panels.values():
        assert list(lines) == SOLVERS
        for rows in lines.values():
            assert np.array_equal(rows[:, 0], np.arange(0, 4001, 40))
    return panels


def test_printed_gaps_are_those_plotted(built_run):
    """And printed least losses are those that claims below are of."""
    rows = {row[:14].strip(): row[14:].split() for row in printed(PAGE).splitlines()}
    for name in SOLVERS:
        medians = [lines[name][-1, 1] for lines in built_run.values()]
        assert rows[name] == [f"{median:.1e}" for median in medians]
    for title, least in zip(built_run, map(float, rows["least loss"]), strict=True):
        assert least == 0 if title in WIDE else least > 0.3


def last(built_run, title):
    """Return {solver: (median, lowest, highest)} of the last gaps."""
    return {name: rows[-1, 1:] for name, rows in built_run[title].items()}


# Rounding errors do not grow on these problems: with every feature moved by one part
# in 10^10, medians stayed the same to eight digits. The margins also held in four other
# groups of five seeds (5 to 24).


@pytest.mark.parametrize("title", WIDE)
def test_label_noise_alone_does_not_stop_polyak_and_armijo(built_run, title):
    gaps = last(built_run, title)
    assert max(gaps["Polyak"].max(), gaps["Armijo"].max()) < 2e-10
    assert gaps["SGD"].min() > 2e-5


@pytest.mark.parametrize("title", NARROW)
@pytest.mark.parametrize("name", ["Polyak", "Armijo"])
def test_too_few_parameters_stop_polyak_and_armijo(built_run, title, name):
    median = built_run[title][name][:, 1]
    assert median[0] == pytest.approx(0.2, abs=0.07)
    assert 0.08 < median[-1] < 0.32


@pytest.mark.parametrize("title", WIDE)
@pytest.mark.parametrize("name", ["Polyak", "Armijo"])
def test_they_converge_at_a_steady_rate(built_run, title, name):
    """In the second, third and fourth thousand of steps; the first is faster."""
    median = built_run[title][name][:, 1]
    first, *decades = -np.diff(np.log10(median[::25]))
    assert 2 < min(decades) <= max(decades) < 1.3 * min(decades)
    assert first > max(decades)


def test_least_losses(page):
    """They are zero for 400 parameters, and not for 50."""
    settings = page.parse_flags(["page", "--num_seeds=2"])
    for title, problem in page.make_problems(settings).items():
        for least in map(least_loss, *problem):
            assert least < 1e-25 if title in WIDE else least > 0.2


@pytest.mark.parametrize("title", NARROW)
@pytest.mark.parametrize("name", ["Polyak", "Armijo"])
def test_too_few_parameters_stall_near_the_first_gap(built_run, title, name):
    """Half as high to twice as high, from a quarter of the steps on."""
    median = built_run[title][name][:, 1]
    parts = median[25:] / median[0]
    assert 0.4 < parts.min() <= parts.max() < 2
    assert 0.55 < parts[-1] < 1.5


@pytest.mark.parametrize(
    "demand, wide, narrow",
    [(0.1, (0, 1e-20), (0.6, 1.2)), (0.9, (2e-7, 2e-5), (0.02, 0.05))],
)
def test_the_gap_of_armijo_depends_on_its_demand(page, x64, demand, wide, narrow):
    """Of the decrease that the gradient predicts. It also did so for seeds 5 to 19."""
    line_search = optax.scale_by_backtracking_linesearch(
        max_backtracking_steps=30, slope_rtol=demand
    )
    settings = page.parse_flags(["page"])
    rows = np.stack([page.draw_indices(settings, seed) for seed in range(5)])
    solver = optax.chain(optax.sgd(1.0), line_search)
    run = jax.vmap(partial(page.record_gaps, lambda smoothness: solver))
    for title, problem in page.make_problems(settings).items():
        lowest, highest = wide if title in WIDE else narrow
        assert lowest < np.median(run(*problem, rows)[:, -1]) < highest


@pytest.mark.parametrize("title", NARROW)
def test_zero_is_the_least_loss_of_every_minibatch(page, title):
    settings = page.parse_flags(["page"])
    problem = page.make_problems(settings)[title]
    for seed, (features, labels) in enumerate(zip(*problem, strict=True)):
        for rows in page.draw_indices(settings, seed)[::20]:
            fit = np.linalg.lstsq(features[rows], labels[rows])[0]
            np.testing.assert_allclose(features[rows] @ fit, labels[rows], atol=1e-12)


@pytest.mark.parametrize("title", NARROW)
def test_dec_sps_repairs_this(built_run, title):
    medians = {name: median for name, (median, *_) in last(built_run, title).items()}
    assert min(medians["Polyak"], medians["Armijo"]) > 65 * medians["DecSPS"]
    assert medians["DecSPS"] < 0.0025


@pytest.mark.parametrize("title", NARROW)
def test_constant_sgd_ends_closer_than_polyak_and_armijo(built_run, title):
    medians = {name: median for name, (median, *_) in last(built_run, title).items()}
    assert medians["SGD"] == pytest.approx(0.01, abs=0.006)
    assert min(medians["Polyak"], medians["Armijo"]) > 5 * medians["SGD"]


@pytest.mark.parametrize("title", WIDE)
def test_the_repair_has_a_price(built_run, title):
    gaps = last(built_run, title)
    assert gaps["DecSPS"][0] > 0.024
    assert gaps["SGD"][0] < 0.0005


def test_caps_are_out_of_reach(page):
    """Those of ``SOLVERS`` are one; largest steps are those of the fewest parameters.

    DecSPS takes its cap for its first step only, from where Polyak starts.
    """
    settings = page.parse_flags(["page"])
    for title in NARROW:
        features, labels = page.make_problems(settings)[title]
        rows = page.draw_indices(settings, 0)
        for name in ("Polyak", "Armijo"):
            _, stepsizes = plain_run(name, features[0], labels[0], rows)
            assert max(stepsizes) < 0.5


def test_fifty_parameters_are_enough_for_labels_of_fifty_features(page, x64):
    """Until the labels have noise, as the page says of this flag."""
    settings = page.parse_flags(["page", "--num_relevant=50"])
    rows = np.stack([page.draw_indices(settings, seed) for seed in range(5)])
    problems = page.make_problems(settings)
    for name in ("Polyak", "Armijo"):
        run = jax.vmap(partial(page.record_gaps, page.SOLVERS[name]))
        clean, noisy = (run(*problems[title], rows) for title in NARROW)
        assert np.all(clean[:, -1] < 1e-14)
        assert np.all(noisy[:, -1] > 1e-2)


@pytest.mark.parametrize("title", NARROW)
def test_larger_minibatches_help_armijo(page, x64, built_run, title):
    """As the page says of ``--batch_size=100``; Polyak is at 0.1 to 0.2."""
    settings = page.parse_flags(["page", "--batch_size=100"])
    rows = np.stack([page.draw_indices(settings, seed) for seed in range(5)])
    problem, ends = page.make_problems(settings)[title], {}
    for name in ("Polyak", "Armijo"):
        run = jax.vmap(partial(page.record_gaps, page.SOLVERS[name]))
        ends[name] = np.median(run(*problem, rows)[:, -1])
    assert ends["Armijo"] < 0.4 * last(built_run, title)["Armijo"][0]
    assert 0.08 < ends["Polyak"] < 0.24
