"""How wrong a step size may be: data, runs, good ranges, figure, and what is said."""

import contextlib
import io
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
import tensorflow_datasets as tfds
from matplotlib.colors import to_rgb

from helpers import ROOT, load, plotted, printed

PAGE = ROOT / "examples/deep_learning/plot_stepsize_sensitivity.py"
ROWS = [
    ["SGD", "Polyak", "Armijo"],
    ["Momentum", "MoMo"],
    ["RMSProp", "Adam", "MoMo-Adam"],
]
SOLVERS = [name for row in ROWS for name in row]
UNCAPPED = ["SGD", "Momentum", "RMSProp", "Adam"]


@pytest.fixture(scope="module")
def page():
    return load(PAGE)


@pytest.fixture(scope="module")
def few(page):
    """Return a function that loads a tenth of as many images to train on."""
    load = page.load
    return lambda name, *splits: load(name, *(x.replace("00]", "0]") for x in splits))


@pytest.fixture(scope="module")
def small_images(page, few):
    """Return a function that makes images and labels of a split so loaded."""
    return lambda split: page.shrink(few("fashion_mnist", split)[0][0])


@pytest.fixture(scope="module")
def run_page(page, few):
    """Return a function that runs ``main`` on few images and tells all that came of it.

    ``sweeps`` are arguments and results of the calls of ``sweep``.
    """

    def run(*flags):
        sweep, sweeps = page.sweep, []

        def watched(*arguments):
            sweeps.append((*arguments, sweep(*arguments)))
            return sweeps[-1][-1]

        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(io.StringIO()) as log,
        ):
            patch.setattr(page, "load", few)
            patch.setattr(page, "sweep", watched)
            results = page.main(["page", *flags])
        figure = plt.gcf()
        plt.close(figure)
        return SimpleNamespace(
            log=log.getvalue(), figure=figure, results=results, sweeps=sweeps
        )

    return run


SMALL = [
    *("--num_seeds=3", "--num_steps=6", "--batch_size=16", "--num_features=5"),
    "--tolerance=0.5",
]


@pytest.fixture(scope="module")
def small_run(run_page):
    return run_page(*SMALL)


# Data and model


def test_images_are_means_of_squares_of_four_pixels(page):
    images, labels = page.shrink(page.load("fashion_mnist", "train[:6]")[0][0])
    assert (images.shape, images.dtype) == ((6, 196), np.float32)
    data = tfds.load("fashion_mnist", split="train[:6]", as_supervised=True)
    pairs = list(tfds.as_numpy(data))
    assert labels.tolist() == [label for _, label in pairs]
    for image, (pixels, _) in zip(images, pairs, strict=True):
        for i, j in np.ndindex(14, 14):
            four = pixels[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].astype(float)
            assert image[14 * i + j] == pytest.approx(four.sum() / 4 / 255, abs=1e-6)


def test_drawn_images_have_their_labels(page):
    labels = np.arange(50)
    images = np.repeat(labels[:, None], 196, axis=1).astype(np.float32)
    settings = page.parse(["page", "--num_seeds=3", "--num_steps=40"])
    drawn, of_these = page.draw_runs(images, labels, settings)
    assert drawn.shape == (3, 40, 64, 196) and drawn.dtype == np.float32
    assert of_these.shape == (3, 40, 64)
    assert np.array_equal(drawn, np.repeat(of_these[..., None], 196, axis=3))
    for seed in range(3):
        assert set(of_these[seed].flat) == set(range(50))
    assert len({seed.tobytes() for seed in of_these}) == 3


def test_more_seeds_change_no_earlier_one(page, small_images):
    data = small_images("test")
    one, three = (
        page.draw_runs(*data, page.parse(["page", f"--num_seeds={n}", "--num_steps=4"]))
        for n in (1, 3)
    )
    assert all(map(np.array_equal, one, (leaf[:1] for leaf in three)))


def test_number_of_parameters(page):
    images = jnp.zeros((1, 196))
    params = jax.eval_shape(page.MLP(32).init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 6634
    assert page.parse(["page"]).num_features == 32
    assert "6,634" in PAGE.read_text()


@jax.jit
def plain_logits(params, images):
    # Flax numbers layers as they are made, and the last one is made first.
    first, second = params["params"]["Dense_1"], params["params"]["Dense_0"]
    hidden = jnp.maximum(images @ first["kernel"] + first["bias"], 0)
    return hidden @ second["kernel"] + second["bias"]


@jax.jit
def plain_loss(params, images, labels):
    """The definition of the multiclass logistic loss."""
    logits = plain_logits(params, images)
    picked = logits[jnp.arange(len(labels)), labels]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)


def test_mean_loss(page, small_run, small_images):
    _, net, _, (params, _), _ = small_run.sweeps[0]
    params = jax.tree.map(lambda leaf: leaf[0] + 0.1, params)
    images, labels = small_images("test")
    loss = page.mean_loss(net, params, images, labels)
    assert loss == pytest.approx(float(plain_loss(params, images, labels)), rel=1e-5)


# Solvers and training


def test_step_sizes(page):
    """Powers of ten over five decades, and the middle of each two."""
    assert page.STEPSIZES[::2] == pytest.approx([1e-3, 1e-2, 1e-1, 1, 10, 100])
    middles = np.sqrt(page.STEPSIZES[:-1:2] * page.STEPSIZES[2::2])
    assert page.STEPSIZES[1::2] == pytest.approx(middles)
    assert page.parse(["page"]).num_seeds * len(page.STEPSIZES) == 55


def test_every_solver_has_its_row(page):
    assert {name: row for name, (row, _) in page.SOLVERS.items()} == {
        name: row for row, names in enumerate(ROWS) for name in names
    }


@pytest.mark.parametrize(
    "name, cap, stepsize",
    [
        *[("Polyak", 0.1, 0.1), ("Polyak", 1.0, 0.125), ("Polyak", 100.0, 0.125)],
        *[
            ("Armijo", 0.3, 0.3),
            ("Armijo", 1.0, 0.8**4),
            ("Armijo", 100.0, 1.5 * 0.8**6),
        ],
    ],
)
def test_a_capped_step_by_hand(page, name, cap, stepsize):
    """The loss is 2 norm(x)^2: its Polyak step is 1/8.

    A step s passes the line search if (1 - 4 s)^2 <= 1 - 0.8 s: s <= 0.45. Trials start
    at the cap, at first at most at 1.5, and shrink by 0.8.
    """

    def fun(x):
        return 2 * jnp.sum(x**2)

    x = jnp.array([1.0, -2.0])
    solver = optax.with_extra_args_support(page.SOLVERS[name][1](cap))
    value, grad = jax.value_and_grad(fun)(x)
    extra = {"value": value, "grad": grad, "value_fn": fun}
    updates, _ = solver.update(grad, solver.init(x), x, **extra)
    np.testing.assert_allclose(updates, -stepsize * grad, rtol=1e-5)


def search(cap):
    return optax.scale_by_backtracking_linesearch(
        max_backtracking_steps=30, slope_rtol=0.1, max_learning_rate=cap
    )


PLAIN_SOLVERS = {
    "SGD": lambda s: optax.sgd(learning_rate=s),
    "Polyak": lambda s: optax.polyak_sgd(max_learning_rate=s),
    "Armijo": lambda s: optax.chain(optax.scale(-1.0), search(s)),
    "Momentum": lambda s: optax.chain(optax.trace(decay=0.9), optax.scale(-s)),
    "MoMo": lambda s: optax.contrib.momo(learning_rate=s, beta=0.9),
    "RMSProp": lambda s: optax.rmsprop(learning_rate=s, decay=0.9),
    "Adam": lambda s: optax.adam(learning_rate=s, b1=0.9, b2=0.999),
    "MoMo-Adam": lambda s: optax.contrib.momo_adam(learning_rate=s, b1=0.9, b2=0.999),
}


@partial(jax.jit, static_argnums=0)
def plain_step(name, stepsize, params, state, images, labels):
    solver = optax.with_extra_args_support(PLAIN_SOLVERS[name](stepsize))
    fun = partial(plain_loss, images=images, labels=labels)
    value, grad = jax.value_and_grad(fun)(params)
    extra = {"value": value, "grad": grad, "value_fn": fun}
    updates, state = solver.update(grad, state, params, **extra)
    return optax.apply_updates(params, updates), state


@pytest.mark.parametrize("name", SOLVERS)
def test_runs_are_those_of_a_plain_loop(small_run, name):
    """From each seed, with three step sizes: rounding errors grow with larger ones."""
    *_, stepsizes, (params, minibatches), ends = small_run.sweeps[SOLVERS.index(name)]
    for seed, i in np.ndindex(3, 3):
        stepsize = jnp.float32(stepsizes[3 * i])
        now = jax.tree.map(lambda leaf, seed=seed: leaf[seed], params)
        state = PLAIN_SOLVERS[name](stepsize).init(now)
        for images, labels in zip(*(leaf[seed] for leaf in minibatches), strict=True):
            now, state = plain_step(name, stepsize, now, state, images, labels)
        end = jax.tree.map(lambda leaf, at=(seed, 3 * i): leaf[at], ends)
        close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
        jax.tree.map(close, end, now)


def test_every_solver_gets_the_same_starts(page, small_run, small_images):
    """Seeds differ in their parameters and in their minibatches."""
    _, net, stepsizes, (params, minibatches), _ = small_run.sweeps[0]
    assert net.num_features == 5 and np.array_equal(stepsizes, page.STEPSIZES)
    makes = [make for _, make in page.SOLVERS.values()]
    for make, (*given, starts, _) in zip(makes, small_run.sweeps, strict=True):
        assert given[:2] == [make, net] and np.array_equal(given[2], stepsizes)
        same = jax.tree.map(np.array_equal, starts, (params, minibatches))
        assert jax.tree.all(same)
    settings = page.parse(["page", *SMALL])
    drawn = page.draw_runs(*small_images("train[:10000]"), settings)
    assert all(map(np.array_equal, minibatches, drawn))
    kernels = np.array(params["params"]["Dense_1"]["kernel"])
    assert len({kernel.tobytes() for kernel in kernels}) == 3
    for seed, kernel in enumerate(kernels):
        own = jax.jit(net.init)(jax.random.key(seed), jnp.zeros((1, 196)))
        assert kernel == pytest.approx(
            np.array(own["params"]["Dense_1"]["kernel"]), abs=1e-6
        )


# Good ranges


def v_shaped(center, slope):
    """Return losses of least 2 that grow by ``slope`` decades a decade."""
    return 2 * 10 ** (slope * np.abs(np.log10(page_stepsizes()) - center))


def page_stepsizes():
    return 10 ** np.linspace(-3, 2, 11)


@pytest.mark.parametrize("tolerance", [0.15, 1.0])
@pytest.mark.parametrize("slope", [0.5, 2.0])
def test_good_width_of_a_v(page, slope, tolerance):
    """Either side crosses at log10(1 + tolerance) / slope; at an end there is one."""
    side = np.log10(1 + tolerance) / slope
    middle = page.good_width(v_shaped(0.5, slope), tolerance)
    assert middle == pytest.approx(2 * side, abs=0.003)
    end = page.good_width(v_shaped(2, slope), tolerance)
    assert end == pytest.approx(side, abs=0.003)


def test_good_width_of_a_flat_curve(page):
    assert page.good_width(np.full(11, 0.7, np.float32), 0.15) == 5
    assert page.good_width(np.linspace(0.7, 0.75, 11), 0.15) == 5


def test_good_width_counts_every_part(page):
    """Two valleys, of which the second is 10% higher: both sides of both."""
    losses = np.full(11, 200.0)
    losses[[3, 7]] = 2, 2.2
    sides = np.log10(1.15) / 2 / 2, np.log10(1.15 / 1.1) / np.log10(200 / 2.2) / 2
    width = page.good_width(losses, 0.15)
    assert width == pytest.approx(2 * sum(sides), abs=0.004)


def test_good_width_beside_what_failed(page):
    """There is no straight line to infinity: only the other side counts."""
    losses = v_shaped(0.5, 1.0)
    losses[8:] = np.inf
    width = page.good_width(losses, 0.15)
    assert width == pytest.approx(np.log10(1.15), abs=0.003)


def test_what_is_not_a_number_counts_as_the_highest(page, run_page, monkeypatch):
    """One run of three fails at the largest step size, and all at the one before."""

    def fake(net, params, train, test):
        losses = np.array([v_shaped(0.5, 1.0)] * 3)
        losses[0, -1] = losses[:, -2] = np.nan
        return losses, np.full((3, 11), 0.5)

    monkeypatch.setattr(page, "sweep", lambda *_: None)
    monkeypatch.setattr(page, "evaluate", fake)
    run = run_page(*SMALL)
    losses, _ = run.results["SGD"]
    highest = 1e9
    assert (losses == highest).sum() == 4 and not np.isnan(losses).any()
    high = 2 * 10**1.5
    assert run.log.splitlines()[3].split()[-1] == f"{high:.3g}"
    for line in run.figure.axes[0].lines:
        assert line.get_ydata()[-2:] == pytest.approx([highest, high])


# Log and figure


def test_results(small_run):
    """What ``sweep`` returned is measured on all of the images."""
    assert list(small_run.results) == SOLVERS
    for losses, accuracies in small_run.results.values():
        assert losses.shape == accuracies.shape == (3, 11)
        assert np.all(losses > 0)
        right = 310 * accuracies
        assert right == pytest.approx(np.rint(right), abs=1e-3)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_result_is_of_its_run(small_run, small_images, name):
    """The loss on the images to train on, the accuracy on those to test on."""
    train, test = small_images("train[:10000]"), small_images("test")
    ends = small_run.sweeps[SOLVERS.index(name)][-1]
    losses, accuracies = small_run.results[name]
    for seed, i in np.ndindex(3, 11):
        end = jax.tree.map(lambda leaf, at=(seed, i): np.array(leaf[at]), ends)
        hits = np.array(plain_logits(end, test[0])).argmax(axis=1) == test[1]
        assert accuracies[seed, i] == pytest.approx(hits.mean(), abs=0.01)
        loss = plain_loss(end, *train)
        assert losses[seed, i] == pytest.approx(float(loss), rel=1e-3)


def test_table(page, small_run):
    """It says what ``main`` returns, for the tolerance of the flags."""
    _, _, header, *rows = small_run.log.splitlines()
    columns = "solver size loss accuracy median lowest highest 100"
    assert header.split() == columns.split()
    assert len({len(row) for row in (header, *rows)}) == 1, "not aligned"
    for row, (name, results) in zip(rows, small_run.results.items(), strict=True):
        losses, accuracies = map(np.array, results)
        best = np.argmin(np.sort(losses, axis=0)[1])
        low, mid, high = sorted(page.good_width(series, 0.5) for series in losses)
        assert row.split() == [
            name,
            f"{page.STEPSIZES[best]:.2g}",
            f"{np.sort(losses[:, best])[1]:.3f}",
            f"{np.sort(accuracies[:, best])[1]:.3f}",
            *(f"{width:.2f}" for width in (mid, low, high)),
            f"{np.sort(losses[:, -1])[1]:.3g}",
        ]


def test_panels(small_run):
    """Each has the lines of its row, and around them bands from lowest to highest."""
    figure = small_run.figure
    assert max(figure.get_size_inches()[:1]) <= 7.2
    assert figure.get_suptitle() == "Loss and accuracy against step size"
    assert len(figure.axes) == 6
    for i, ax in enumerate(figure.axes):
        assert [line.get_label() for line in ax.lines] == ROWS[i // 2]
        for line, band in zip(ax.lines, ax.collections, strict=True):
            values = small_run.results[line.get_label()][i % 2]
            stepsizes = line.get_xdata()
            assert stepsizes == pytest.approx(page_stepsizes())
            assert line.get_ydata() == pytest.approx(np.median(values, axis=0))
            assert tuple(band.get_facecolor()[0][:3]) == to_rgb(line.get_color())
            ((path,),) = (band.get_paths(),)
            for x, column in zip(stepsizes, values.T, strict=True):
                here = path.vertices[path.vertices[:, 0] == x, 1]
                ends = column.min(), column.max()
                assert (here.min(), here.max()) == pytest.approx(ends)


def test_lines_of_a_panel_differ_in_colour_and_dashes(small_run):
    for ax in small_run.figure.axes:
        lines = ax.get_lines()
        assert len({to_rgb(line.get_color()) for line in lines}) == len(lines)
        assert len({line.get_linestyle() for line in lines}) == len(lines)


def test_axes(small_run):
    panels = np.reshape(small_run.figure.axes, (3, 2))
    for loss_ax, accuracy_ax in panels:
        assert loss_ax.get_xscale() == accuracy_ax.get_xscale() == "log"
        assert (loss_ax.get_yscale(), accuracy_ax.get_yscale()) == ("log", "linear")
        assert loss_ax.get_ylabel() == "final training loss"
        assert accuracy_ax.get_ylabel() == "test accuracy"
        names = [text.get_text() for text in loss_ax.get_legend().get_texts()]
        assert names == [line.get_label() for line in loss_ax.lines]
        assert accuracy_ax.get_legend() is None
        assert loss_ax.get_ylim() == (0.4, 5)
        ticks = [text.get_text() for text in loss_ax.get_yticklabels()]
        assert ticks == [f"{tick:g}" for tick in loss_ax.get_yticks()]
    labels = [ax.get_xlabel() for ax in panels.flat]
    assert labels == [""] * 4 + ["step size, or its cap"] * 2
    shared = panels[0, 1].get_shared_y_axes()
    assert shared.joined(panels[0, 1], panels[2, 1])


def test_two_runs_print_the_same(run_page, small_run):
    assert run_page(*SMALL).log == small_run.log


def test_one_step_from_one_seed(page, run_page, monkeypatch):
    """With a line in each row, all of SGD, which is compiled once."""
    few = {names[0]: (row, optax.sgd) for row, names in enumerate(ROWS)}
    monkeypatch.setattr(page, "SOLVERS", few)
    sizes = "--batch_size=1", "--num_features=5"
    run = run_page("--num_seeds=1", "--num_steps=1", *sizes)
    assert {losses.shape for losses, _ in run.results.values()} == {(1, 11)}
    assert "nan" not in run.log


# What the page says of its own numbers, in the figure and the table of the built page


@pytest.fixture(scope="module")
def medians():
    """Return {solver: {step size: loss}}, as in the figure."""
    losses = plotted(PAGE)["final training loss"]
    assert list(losses) == SOLVERS
    return {
        name: {round(x, 4): loss for x, loss, *_ in rows}
        for name, rows in losses.items()
    }


@pytest.fixture(scope="module")
def widths():
    """Return {solver: (median, lowest, highest)} of good ranges, as in the table."""
    rows = [line.split() for line in printed(PAGE).splitlines()[3:] if line.strip()]
    assert [name for name, *_ in rows] == SOLVERS
    return {name: tuple(map(float, row[3:6])) for name, *row in rows}


def test_grids_span_five_decades_around_the_best(medians):
    for losses in medians.values():
        first, *inside, last = losses
        assert last / first >= 1e5 * (1 - 1e-6)
        assert min(losses, key=losses.get) in inside


@pytest.mark.parametrize("name", ["Polyak", "Armijo"])
def test_a_cap_may_be_three_hundred_times_the_best(medians, name):
    """And the loss is still less than twice the best."""
    losses = medians[name]
    best = min(losses, key=losses.get)
    assert 100 / best > 99
    assert losses[100.0] < 1.8 * losses[best]


def test_a_step_size_may_not_be_ten_times_the_best(medians):
    """SGD guesses then; at 100, all without a cap are far worse than a guess."""
    losses = list(medians["SGD"].values())
    assert losses[losses.index(min(losses)) + 2] > 2.25
    assert min(medians[name][100.0] for name in UNCAPPED) > 15


@pytest.mark.parametrize("name", ["Polyak", "Armijo"])
def test_a_small_cap_is_a_small_step_size(medians, name):
    for stepsize, loss in medians["SGD"].items():
        if stepsize < 0.04:
            assert medians[name][stepsize] == pytest.approx(loss, rel=0.01)


def test_good_ranges(widths):
    """Most are about a decade wide; MoMo does not widen what it starts from by much."""
    middle = {name: width[0] for name, width in widths.items()}
    assert sum(0.5 < width < 1.5 for width in middle.values()) >= 6
    assert middle["MoMo"] < middle["Momentum"] + 0.2
    assert middle["MoMo-Adam"] < middle["Adam"] + 0.4
    _, lowest, highest = widths["Polyak"]
    assert lowest < 1.1 and highest > 2


def test_by_a_looser_measure_two_caps_pay(page, medians):
    """Polyak and Armijo end below twice their best loss over three decades."""
    curves = {name: np.array(list(x.values())) for name, x in medians.items()}
    decades = {name: page.good_width(x, 1.0) for name, x in curves.items()}
    capped = decades.pop("Polyak"), decades.pop("Armijo")
    assert min(capped) > 3.3 and max(decades.values()) < 2.8


def test_a_cap_prevents_the_worst_only(medians):
    assert medians["MoMo-Adam"][100.0] < medians["Adam"][100.0] / 5
    for name in ("MoMo", "MoMo-Adam"):
        assert medians[name][100.0] > 2 * min(medians[name].values())
