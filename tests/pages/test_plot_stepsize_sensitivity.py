"""How wrong a step size may be: data, runs, good ranges, figure, and what is said.

And what the devices send each other if they share the step sizes.
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
import tensorflow_datasets as tfds
from matplotlib.colors import to_rgb

from environment import CAME
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
def small_images(page):
    """Return a function that loads images and labels of a split."""

    def load_split(split):
        (images, labels), _ = page.load("fashion_mnist", split, 10_000)
        return page.shrink(images), labels

    return load_split


@pytest.fixture(scope="module")
def run_page(page):
    """Return a function that runs ``main`` on few images and tells all that came of it.

    ``sweeps`` are the arguments of the calls of ``sweep``.
    """

    def run(*flags):
        sweep, sweeps = page.sweep, []

        def watched(*arguments):
            sweeps.append(arguments)
            return sweep(*arguments)

        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(io.StringIO()) as log,
        ):
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
    (pixels, labels), _ = page.load("fashion_mnist", "train", 6)
    images = page.shrink(pixels)
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
    settings = page.parse_flags(["page", "--num_seeds=3", "--num_steps=40"])
    drawn, of_these = page.draw_steps(images, labels, settings)
    assert drawn.shape == (3, 40, 64, 196) and drawn.dtype == np.float32
    assert of_these.shape == (3, 40, 64)
    assert np.array_equal(drawn, np.repeat(of_these[..., None], 196, axis=3))
    for seed in range(3):
        assert set(of_these[seed].flat) == set(range(50))
    assert len({seed.tobytes() for seed in of_these}) == 3


def test_more_seeds_change_no_earlier_one(page, small_images):
    data = small_images("test")
    one, three = (
        page.draw_steps(*data, page.parse_flags(["page", number, "--num_steps=4"]))
        for number in ("--num_seeds=1", "--num_seeds=3")
    )
    assert all(map(np.array_equal, one, (leaf[:1] for leaf in three)))


def test_number_of_parameters(page):
    images = jnp.zeros((1, 196))
    params = jax.eval_shape(page.make_network(32).init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 6634
    assert page.parse_flags(["page"]).num_features == 32
    assert "6,634" in PAGE.read_text()


@jax.jit
def plain_logits(params, images):
    first, second = params["params"]["layers_0"], params["params"]["layers_2"]
    hidden = jnp.maximum(images @ first["kernel"] + first["bias"], 0)
    return hidden @ second["kernel"] + second["bias"]


@jax.jit
def plain_loss(params, images, labels):
    """The definition of the multiclass logistic loss."""
    logits = plain_logits(params, images)
    picked = logits[jnp.arange(len(labels)), labels]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)


def test_cross_entropy(page, small_run, small_images):
    _, net, _, (params, _), *_ = small_run.sweeps[0]
    params = jax.tree.map(lambda leaf: leaf[0] + 0.1, params)
    images, labels = small_images("test")
    loss = page.cross_entropy(net, params, images, labels)
    assert loss == pytest.approx(float(plain_loss(params, images, labels)), rel=1e-5)


# Solvers and training


def test_step_sizes(page):
    """Powers of ten over five decades, and the middle of each two."""
    assert page.STEPSIZES[::2] == pytest.approx([1e-3, 1e-2, 1e-1, 1, 10, 100])
    middles = np.sqrt(page.STEPSIZES[:-1:2] * page.STEPSIZES[2::2])
    assert page.STEPSIZES[1::2] == pytest.approx(middles)
    assert page.parse_flags(["page"]).num_seeds * len(page.STEPSIZES) == 55


def test_every_solver_has_its_row(page):
    assert list(page.SOLVERS) == list(page.STYLES) == SOLVERS
    assert page.ROWS == ROWS


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
    solver = optax.with_extra_args_support(page.SOLVERS[name](cap))
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
def test_results_are_those_of_a_plain_loop(page, small_run, small_images, name):
    """From each seed, with three step sizes: rounding errors grow with larger ones.

    The loss is that on the images to train on, the accuracy that on those to test on.
    """
    train, test = small_images("train"), small_images("test")
    *_, (params, minibatches), _, _ = small_run.sweeps[SOLVERS.index(name)]
    losses, accuracies = small_run.results[name]
    for seed, i in np.ndindex(3, 3):
        stepsize = jnp.float32(page.STEPSIZES[3 * i])
        now = jax.tree.map(lambda leaf, seed=seed: leaf[seed], params)
        state = PLAIN_SOLVERS[name](stepsize).init(now)
        for images, labels in zip(*(leaf[seed] for leaf in minibatches), strict=True):
            now, state = plain_step(name, stepsize, now, state, images, labels)
        loss = float(plain_loss(now, *train))
        assert losses[seed, 3 * i] == pytest.approx(loss, rel=1e-3)
        hits = np.array(plain_logits(now, test[0])).argmax(axis=1) == test[1]
        assert accuracies[seed, 3 * i] == pytest.approx(hits.mean(), abs=0.01)


def test_every_solver_gets_the_same_starts_and_data(page, small_run, small_images):
    """Seeds differ in their parameters and in their minibatches."""
    _, net, stepsizes, (params, minibatches), *data = small_run.sweeps[0]
    assert stepsizes is page.STEPSIZES
    expected = small_images("train"), small_images("test")
    assert jax.tree.all(jax.tree.map(np.array_equal, tuple(data), expected))
    for make, given in zip(page.SOLVERS.values(), small_run.sweeps, strict=True):
        assert given[:2] == (make, net)
        same = jax.tree.map(np.array_equal, given[2:], small_run.sweeps[0][2:])
        assert jax.tree.all(same)
    settings = page.parse_flags(["page", *SMALL])
    drawn = page.draw_steps(*small_images("train"), settings)
    assert all(map(np.array_equal, minibatches, drawn))
    kernels = np.array(params["params"]["layers_0"]["kernel"])
    assert kernels.shape == (3, 196, 5)
    assert len({kernel.tobytes() for kernel in kernels}) == 3
    for seed, kernel in enumerate(kernels):
        own = jax.jit(net.init)(jax.random.key(seed), jnp.zeros((1, 196)))
        assert kernel == pytest.approx(
            np.array(own["params"]["layers_0"]["kernel"]), abs=1e-6
        )


# Several devices

# Runs the pages in ``sys.argv``. Prints the compiled program and the results of each
# solver on each page, and how many step sizes ``spread`` of the last page takes.
ON_DEVICES = """
import contextlib, importlib.util, json, sys
import jax, numpy as np

def load(script):
    spec = importlib.util.spec_from_file_location("page", script)
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    return page

def run(page):
    sweep, programs = page.sweep, []

    def watched(make_solver, net, *arrays):
        compiled = sweep.lower(make_solver, net, *arrays).compile()
        programs.append(compiled.as_text())
        return compiled(*arrays)

    page.sweep = watched
    flags = "--num_seeds=2", "--num_steps=4", "--batch_size=16", "--num_features=5"
    results = page.main(["page", *flags]).items()
    return {
        name: [program, *map(np.ndarray.tolist, arrays)]
        for program, (name, arrays) in zip(programs, results, strict=True)
    }

def fits(number):
    try:
        jax.device_put(np.ones(number), pages[-1].spread)
    except ValueError:
        return False
    return True

assert len(jax.devices()) == 4
with contextlib.redirect_stdout(sys.stderr):
    pages = [load(script) for script in sys.argv[1:]]
    told = [*map(run, pages), [number for number in range(1, 25) if fits(number)]]
print(json.dumps(told))
"""
NUMBER = 12  # of step sizes, of which each device has a quarter


@pytest.fixture(scope="module")
def devices(tmp_path_factory):
    """Return what came of 12 step sizes on one device, and on four as the page says."""
    text = PAGE.read_text()
    (lines,) = re.findall(
        r"(?m)^\.\. code-block:: python\n\n((?: {3}.*\n)+)",
        re.sub("(?m)^# ?", "", text),
    )
    changes = {
        "one.py": f"STEPSIZES = np.logspace(-3, 2, {NUMBER})\n",
        "four.py": textwrap.dedent(lines),
    }
    folder = tmp_path_factory.mktemp("pages")
    for name, new in changes.items():
        changed, number = re.subn(r"(?m)^STEPSIZES = .*\n", new, text)
        assert number == 1
        (folder / name).write_text(changed)
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-c", ON_DEVICES, *(folder / name for name in changes)]
    child = subprocess.run(
        command, env=env, text=True, capture_output=True, timeout=300
    )
    assert child.returncode == 0, child.stderr
    one, four, fits = json.loads(child.stdout)
    return SimpleNamespace(one=one, four=four, fits=fits)


def sizes(program):
    """Return the sizes of all axes of all arrays in a compiled program."""
    shapes = re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", program)
    return {int(size) for shape in shapes for size in shape.split(",")}


def sent(program):
    """Return (shape, name of the operation) of each array that devices send."""
    kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-|send|recv"
    line = rf'(?m)^.*? = (.*?) (?:{kinds})[\w-]*\(.*?(?:op_name="(.*?)".*)?$'
    return re.findall(line, program)


@pytest.mark.parametrize("name", SOLVERS)
def test_each_device_trains_with_its_share_of_the_step_sizes(devices, name):
    one, four = devices.one[name][0], devices.four[name][0]
    assert f"f32[{NUMBER},196,5]" in one, "no weights of all runs"
    assert NUMBER in sizes(one)
    assert f"f32[{NUMBER // 4},196,5]" in four
    assert NUMBER not in sizes(four)


@pytest.mark.parametrize("name", SOLVERS)
def test_devices_send_nothing_but_a_flag_a_trial_for_armijo(devices, name):
    """It is sent in three loops: over seeds, steps, and trials of a line search."""
    assert not sent(devices.one[name][0])
    found = sent(devices.four[name][0])
    if name == "Armijo":
        ((shape, place),) = found
        assert shape == "pred[]"
        assert place.count("/while") == 3
    else:
        assert not found


@pytest.mark.parametrize("name", SOLVERS)
def test_several_devices_give_the_same_results(devices, name):
    one, four = (map(np.array, run[name][1:]) for run in (devices.one, devices.four))
    (losses, expected), accuracies = zip(four, one, strict=True)
    assert losses.shape == (2, NUMBER) and np.ptp(losses) > 0.1
    assert losses == pytest.approx(expected, rel=1e-4)
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.01)


def test_the_number_of_step_sizes_is_a_multiple_of_the_number_of_devices(devices):
    assert devices.fits == [4, 8, 12, 16, 20, 24]


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

    def fake(*_):
        losses = np.array([v_shaped(0.5, 1.0)] * 3)
        losses[0, -1] = losses[:, -2] = np.nan
        losses[1, -2] = np.inf
        return page.Sweep(losses, np.full((3, 11), 0.5))

    monkeypatch.setattr(page, "sweep", fake)
    run = run_page(*SMALL)
    losses, _ = run.results["SGD"]
    highest = 1e9
    assert (losses == highest).sum() == 4 and np.isfinite(losses).all()
    high = 2 * 10**1.5
    assert run.log.splitlines()[5].split()[-1] == f"{high:.3g}"
    for line in run.figure.axes[0].lines:
        assert line.get_ydata()[-2:] == pytest.approx([highest, high])


# Log and figure


def test_results(small_run):
    assert list(small_run.results) == SOLVERS
    for losses, accuracies in small_run.results.values():
        assert losses.shape == accuracies.shape == (3, 11)
        assert np.all(losses > 0)
        right = 310 * accuracies
        assert right == pytest.approx(np.rint(right), abs=1e-3)


def test_table(page, small_run):
    """It says what ``main`` returns, for the tolerance of the flags."""
    caption, *header = small_run.log.splitlines()[:4]
    rule, *rows = small_run.log.splitlines()[4:]
    assert "within 50% of the best loss" in caption and caption.endswith(":")
    assert len({len(row) for row in (header[-1], rule, *rows)}) == 1, "not aligned"
    assert max(map(len, [caption, *header, rule])) <= 64
    between = [gap.span() for gap in re.finditer(" +", rule)]
    for row in (*header, *rows):
        assert not any(row[start:end].strip() for start, end in between)
    for row, (name, results) in zip(rows, small_run.results.items(), strict=True):
        losses, accuracies = results
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
    """Each has the lines of its row, and around them bands between quartiles."""
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
                ends = tuple(np.quantile(column, [0.25, 0.75]))
                assert (here.min(), here.max()) == pytest.approx(ends)


def test_lines_of_a_panel_differ_in_colour_and_dashes(small_run):
    for ax in small_run.figure.axes:
        lines = ax.get_lines()
        assert len({to_rgb(line.get_color()) for line in lines}) == len(lines)
        assert len({str(line._unscaled_dash_pattern) for line in lines}) == len(lines)


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
        assert loss_ax.get_ylim() == (0.4, 8)
        ticks = [text.get_text() for text in loss_ax.get_yticklabels()]
        assert ticks == ["0.5", "1", "2", "4", "8"]
    labels = [ax.get_xlabel() for ax in panels.flat]
    assert labels == [""] * 4 + ["step size or cap"] * 2
    shared = panels[0, 1].get_shared_y_axes()
    assert shared.joined(panels[0, 1], panels[2, 1])


def test_two_runs_print_the_same(run_page, small_run):
    assert run_page(*SMALL).log == small_run.log


def test_one_step_from_one_seed(run_page):
    sizes = "--batch_size=1", "--num_features=5"
    run = run_page("--num_seeds=1", "--num_steps=1", *sizes)
    assert {losses.shape for losses, _ in run.results.values()} == {(1, 11)}
    assert "nan" not in run.log


# What the page says of its own numbers, in the figure and the table of the built page.
# Rounding errors and other seeds move these numbers: the margins below also held for
# parameters moved by one unit in the last place, and in four other groups of five seeds
# (5 to 24).


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
    """Return {solver: median width of its good range}, as in the table."""
    rows = [line.split() for line in printed(PAGE).splitlines()]
    rows = [row for row in rows if row and row[0] in SOLVERS]
    assert [name for name, *_ in rows] == SOLVERS
    return {name: float(row[3]) for name, *row in rows}


@pytest.fixture(scope="module")
def polyak(page):
    """Return the losses of Polyak on the real data, from twenty seeds."""
    folder = CAME.get("TFDS_DATA_DIR", Path.home() / "tensorflow_datasets")
    only = {"Polyak": page.SOLVERS["Polyak"]}
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        patch.setattr(tfds.core.constants, "DATA_DIR", os.fspath(folder))
        patch.setattr(page, "SOLVERS", only)
        patch.setattr(page, "plot_sweep", lambda _: None)
        return page.main(["page", "--num_seeds=20"])["Polyak"].losses


def test_grids_span_five_decades_around_the_best(medians):
    for losses in medians.values():
        first, *inside, last = losses
        assert last / first >= 1e5 * (1 - 1e-6)
        assert min(losses, key=losses.get) in inside


def test_a_step_size_must_be_right_within_a_factor_of_two_to_five(widths):
    """A 4- to 20-fold range: a factor of two to five to either side of the middle."""
    folds = [10 ** widths[name] for name in UNCAPPED]
    assert 3.5 < min(folds) < 6 and 16 < max(folds) < 25


@pytest.mark.parametrize("name", ["Polyak", "Armijo"])
def test_polyak_and_armijo_survive_a_cap_that_is_far_too_large(medians, name):
    losses = medians[name]
    best = min(losses, key=losses.get)
    assert 100 / best > 99
    assert losses[best] == pytest.approx(0.6, abs=0.1)
    assert losses[100.0] < 1.8
    assert min(medians[other][100.0] for other in UNCAPPED) > 20


def test_momo_prevents_divergence_and_not_poor_results(medians):
    for name in ("MoMo", "MoMo-Adam"):
        assert medians[name][100.0] > 2.1 * min(medians[name].values())
    for name in ("Momentum", "Adam"):
        assert medians[name][100.0] > 65 * min(medians[name].values())


def test_step_sizes_can_also_be_too_small(medians):
    losses = list(medians["SGD"].values())
    best = losses.index(min(losses))
    assert losses[best + 2] == pytest.approx(2.3, abs=0.05)
    assert losses[best - 2] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("name", ["Polyak", "Armijo"])
def test_a_small_cap_is_a_small_step_size(medians, name):
    for stepsize, loss in medians["SGD"].items():
        if stepsize < 0.04:
            assert medians[name][stepsize] == pytest.approx(loss, rel=0.01)


def test_the_width_of_polyak_depends_on_the_seed(page, polyak):
    widths = [page.good_width(losses, 0.15) for losses in polyak]
    assert sum(width < 1.2 for width in widths) >= 4
    assert sum(width > 2.1 for width in widths) >= 4


def test_a_looser_measure_favours_armijo(page, medians):
    losses = np.array(list(medians["Armijo"].values()))
    assert losses[-1] < 1.7 * losses.min()
    assert page.good_width(losses, 1.0) > 3.4


def test_best_losses_are_near_a_half(medians):
    for losses in medians.values():
        assert 0.45 < min(losses.values()) < 0.7
