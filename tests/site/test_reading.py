"""What run/reading.py tells of a figure, in words and as a table, or refuses."""

import csv
import datetime
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from docutils.core import publish_doctree
from scipy.ndimage import uniform_filter1d

from builds import build
from gallery.run import reading
from helpers import PAGE


def told(fig):
    """Return what is told of ``fig``: lines of its description, as they are read."""
    text = publish_doctree(reading.describe(reading.read(fig)))
    return [item.astext() for item in text.findall(lambda x: x.tagname == "list_item")]


def table(fig, folder):
    """Return the table of ``fig``, a list of rows."""
    reading.write(reading.read(fig), folder / "numbers.csv")
    with (folder / "numbers.csv").open(newline="") as file:
        return [*csv.reader(file)]


@pytest.fixture
def draw():
    """Return a function that makes panels, a figure of one by default."""
    yield lambda *size, **options: plt.subplots(*size, **options)
    plt.close("all")


# Lines


@pytest.fixture(scope="module")
def run(run_page):
    return run_page("--batch_size=16", "--maxiter=10", "--num_seeds=3")


def test_numbers_are_those_of_the_curves(run):
    """Medians and quartiles over the seeds; only two solvers have step sizes.

    Losses are told at what they cost.
    """
    labels = [line.get_label() for line in run.figure.axes[1].lines]
    results = dict(zip(labels, run.results.values(), strict=True))
    losses = {
        (1, label): [
            np.interp(
                range(1, 12), x.costs, uniform_filter1d(x.losses, 5, mode="nearest")
            )
            for x in runs
        ]
        for label, runs in results.items()
    }
    steps = {(0, label): [x.stepsizes for x in results[label]] for label in labels[:2]}
    found = {
        (run.figure.axes.index(x.ax), x.label): (x.x, x.y, x.lowest, x.highest)
        for x in reading.read(run.figure)
    }
    assert list(found) == [*steps, *losses]
    for which, series in (steps | losses).items():
        low, mid, high = np.quantile(series, [0.25, 0.5, 0.75], axis=0)
        panel, _ = which
        x = range(panel, panel + 11)
        np.testing.assert_array_equal(found[which], [x, mid, low, high])


def test_lines(draw, tmp_path):
    fig, (above, below, beneath) = draw(3)
    above.plot([0, 5, 10], [3, 1, 2], label="up_")
    above.plot([0, 10], [5, 6], label="flat")
    below.plot([0, 10], [1, 100], label="down")
    below.fill_between([0, 10], [0.5, 90], [2, 110])
    beneath.plot([1, 10], [2, 2], label="same")
    above.set(ylabel="gap", xlabel="time_")
    below.set(yscale="log", title="noisy_", xlabel="time_")
    beneath.set(xscale="log", xlabel="rate", ylabel="loss")
    assert told(fig) == [
        "gap, against time_ from 0 to 10: up_ goes from 3 to 2, always between 1 and "
        "3; flat goes from 5 to 6, always between 5 and 6.",
        "noisy_, on a logarithmic scale, against time_ from 0 to 10: down goes from 1 "
        "to 100, always between 1 and 100 (its band between 0.5 and 110).",
        "loss, against rate from 1 to 10, on a logarithmic scale: same goes from 2 to "
        "2, always between 2 and 2.",
    ]
    # Panels have other names for their axes, so the table has none.
    header, *rows = table(fig, tmp_path)
    assert header == ["panel", "kind", "label", "x", "y", "lowest", "highest"]
    assert rows[0] == ["gap", "line", "up_", "0.0", "3.0", "", ""]
    assert rows[5] == ["noisy_", "line", "down", "0.0", "1.0", "0.5", "2.0"]


def test_names_of_shared_axes(draw):
    """Are those of a panel beside, or of the whole figure, but of no other panel."""
    fig, axes = draw(2, 2, sharex=True, sharey="row")
    for ax in axes.flat:
        ax.plot([1, 2], label="a")
    axes[0, 0].set(ylabel="loss")
    axes[1, 1].set(xlabel="step")
    fig.supylabel("value")
    heads = [line.partition(" from 0 to 1")[0] for line in told(fig)]
    assert heads == ["loss, against step"] * 2 + ["value, against step"] * 2
    fig, (left, right) = draw(1, 2)
    left.plot([1, 2])
    right.plot([1, 2])
    right.set(xlabel="step", ylabel="loss")
    assert told(fig)[0].startswith("panel 1, against x from 0 to 1: the line goes")


def test_values_that_are_not_drawn(draw, tmp_path):
    fig, ax = draw()
    ax.plot([1, 2, np.inf, np.nan, 0, 1.5], label="a")
    ax.plot([np.nan] * 6, label="nothing to see")
    ax.set(yscale="log", xlabel="step", ylabel="gap", ylim=(0.5, 3))
    assert told(fig) == [
        "gap, on a logarithmic scale, against step from 0 to 5: a goes from 1 to 1.5, "
        "between 1 and 2 where it is drawn (of 6 values, 3 cannot be drawn: "
        "1 infinite, 1 missing, 1 not above zero, where the line leaves the panel)."
    ]
    assert [row[4] for row in table(fig, tmp_path)[1:]] == [
        *("1.0", "2.0", "inf", "", "0.0", "1.5")
    ]
    ax.set(ylim=(0.5, 1.8))
    assert "scale (only 0.5 to 1.8 is shown), against" in told(fig)[0]
    fig, ax = draw()
    ax.plot([-np.inf, 1, np.inf], label="a")
    text = "a goes from minus infinity to infinity, between 1 and 1 where it is drawn"
    assert text in told(fig)[0]


def test_a_path(draw):
    """It does not go from left to right."""
    fig, ax = draw()
    ax.plot([1, 0, 2], [3, 4, 5], label="a")
    ax.set(xlabel="u", ylabel="v")
    assert "against u from 0 to 2: a goes from (1, 3) to (2, 5), always" in told(fig)[0]


def test_reference_lines(draw, tmp_path):
    fig, ax = draw()
    ax.plot([3, 1], label="a")
    ax.axvline(15, label="switch")
    ax.axhline(4)
    ax.set(xlabel="iteration", ylabel="loss")
    assert told(fig) == [
        "loss, against iteration from 0 to 1: a goes from 3 to 1, always between 1 "
        "and 3; switch, a vertical line at iteration 15; a horizontal line at loss 4."
    ]
    assert table(fig, tmp_path) == [
        ["panel", "kind", "label", "iteration", "loss"],
        ["loss", "line", "a", "0.0", "3.0"],
        ["loss", "line", "a", "1.0", "1.0"],
        ["loss", "vertical line", "switch", "15.0", ""],
        ["loss", "horizontal line", "", "", "4.0"],
    ]


def test_dates(draw, tmp_path):
    fig, ax = draw()
    ax.plot([datetime.date(2026, 1, 1), datetime.date(2026, 3, 1)], [1, 2], label="a")
    ax.set(xlabel="day", ylabel="time")
    (line,) = told(fig)
    assert line.startswith(
        "time, against day from 2026-01-01 to 2026-03-01: a goes from 1"
    )
    assert [row[3] for row in table(fig, tmp_path)] == [
        *("day", "2026-01-01", "2026-03-01")
    ]
    fig, ax = draw()
    ax.plot([datetime.datetime(2026, 1, 1, hour) for hour in (3, 4)], [1, 2], label="a")
    assert "2026-01-01 03:00:00 to 2026-01-01 04:00:00" in told(fig)[0]


def test_categories(draw, tmp_path):
    fig, ax = draw()
    ax.plot(["low", "high"], [1, 3], label="a")
    ax.plot(["low", "high"], [2, 2], "o", label="b")
    ax.set(ylabel="loss", xlabel="noise")
    assert told(fig) == [
        "loss, for each noise: a, a line: low 1, high 3; b, points at (low, 2), "
        "(high, 2)."
    ]
    assert table(fig, tmp_path)[1] == ["loss", "line", "a", "low", "1.0"]


# Bars and points


def test_bars_with_error_bars(draw, tmp_path):
    fig, ax = draw()
    ax.bar(["Polyak", "SGD"], [0.75, 0.5], yerr=[[0.25, 0.125], [0.125, 0]])
    ax.set(ylabel="accuracy", xlabel="solver")
    assert told(fig) == [
        "accuracy, for each solver: bars: Polyak 0.75 (error bar 0.5 to 0.875), "
        "SGD 0.5 (error bar 0.375 to 0.5)."
    ]
    assert table(fig, tmp_path) == [
        ["panel", "kind", "label", "solver", "accuracy", "lowest", "highest"],
        ["accuracy", "bars", "", "Polyak", "0.75", "0.5", "0.875"],
        ["accuracy", "bars", "", "SGD", "0.5", "0.375", "0.5"],
    ]


def test_bars_beside_each_other(draw):
    """They are of the category in whose middle none of them stands."""
    fig, ax = draw()
    ax.bar(np.arange(2) - 0.2, [1, 2], 0.4, label="train")
    ax.bar(np.arange(2) + 0.2, [3, 4], 0.4, label="test")
    ax.set_xticks([0, 1], ["a", "b"])
    ax.set(ylabel="loss")
    assert told(fig) == ["loss: train, bars: a 1, b 2; test, bars: a 3, b 4."]


def test_horizontal_bars(draw, tmp_path):
    fig, ax = draw()
    ax.barh(["a", "b"], [1, 2])
    ax.set(xlabel="ms")
    assert told(fig) == ["ms: horizontal bars: a 1, b 2."]
    assert table(fig, tmp_path)[1] == ["ms", "horizontal bars", "", "1.0", "a"]


def test_histogram(draw, tmp_path):
    fig, ax = draw()
    ax.hist([0, 1, 1, 2, 20], bins=20)
    ax.set(xlabel="error", ylabel="count")
    assert told(fig) == [
        "count, against error from 0.5 to 19.5: 20 bars, from 0 (at 3.5) to 2 "
        "(at 1.5) (each 1 wide, told by the middle of its width)."
    ]
    assert table(fig, tmp_path)[2] == ["count", "bars", "", "1.5", "2.0"]


def test_error_bars(draw, tmp_path):
    fig, ax = draw()
    ax.errorbar([8, 16], [1, 2], yerr=[0.5, 0.25], fmt="o", capsize=2, label="SGD")
    ax.set(xlabel="batch size", ylabel="loss")
    assert told(fig) == [
        "loss, against batch size from 8 to 16: SGD, points: 1 at 8 (error bar 0.5 to "
        "1.5), 2 at 16 (error bar 1.75 to 2.25)."
    ]
    assert table(fig, tmp_path)[1][4:] == ["1.0", "0.5", "1.5"]
    fig, ax = draw()
    ax.errorbar([8, 16], [1, 2], yerr=[0.5, 0.25], label="SGD")
    assert "SGD goes from 1 to 2" in told(fig)[0]
    assert "(its error bars between 0.5 and 2.25)" in told(fig)[0]


def test_scatter(draw, tmp_path):
    fig, ax = draw()
    ax.scatter([1, 2], [0.7, 0.6], label="rules")
    ax.annotate("Armijo", (2, 0.6))
    ax.text(1, 0.7, "0.70")
    ax.set(xlabel="cost", ylabel="accuracy")
    assert told(fig) == [
        "accuracy, against cost from 1 to 2: rules, points at (1, 0.7), (2, 0.6); "
        'the words "Armijo" at (2, 0.6).'
    ]
    fig, ax = draw()
    points = ax.scatter(range(20), range(20), c=range(20))
    fig.colorbar(points, label="loss")
    ax.set(xlabel="u", ylabel="v")
    assert told(fig) == [
        "v, against u from 0 to 19: 20 points, from 0 (at 0) to 19 (at 19), "
        "coloured by loss, from 0 to 19."
    ]
    assert table(fig, tmp_path)[:2] == [
        ["panel", "kind", "label", "u", "v", "loss"],
        ["v", "points", "", "0.0", "0.0", "0.0"],
    ]


@pytest.mark.parametrize("origin", ["upper", "lower"])
def test_image(draw, tmp_path, origin):
    fig, ax = draw()
    values = np.arange(20.0).reshape(4, 5)
    fig.colorbar(ax.imshow(values, origin=origin), label="loss")
    ax.set_xticks(range(5), ["8", "16", "32", "64", "128"])
    ax.set_yticks(range(4), ["0.01", "0.1", "1", "10"])
    ax.set(xlabel="batch size", ylabel="step size")
    assert told(fig) == [
        "loss as colour, in 5 columns (batch size) and 4 rows (step size): "
        "lowest 0 at (8, 0.01), highest 19 at (128, 10)."
    ]
    header, *rows = table(fig, tmp_path)
    assert header == ["panel", "kind", "label", "batch size", "step size", "loss"]
    assert [row[5] for row in rows if row[3:5] == ["32", "1"]] == ["12.0"]


def test_images_with_one_colour_bar(draw):
    fig, axes = draw(1, 2)
    images = [ax.imshow([[0, 1], [2, 3]], vmin=0, vmax=3) for ax in axes]
    fig.colorbar(images[0], ax=axes, label="loss")
    assert [line.count("loss as colour") for line in told(fig)] == [1, 1]


# What is refused


def nothing(ax):
    ax.remove()


REFUSED = {
    "no panel": (nothing, "shows no data"),
    "empty panel": (lambda ax: None, "shows no data"),
    "contour": (lambda ax: ax.contour([[1, 2], [3, 4]]), "QuadContourSet"),
    "two unnamed lines": (lambda ax: ax.plot([1, 2], [[1, 2], [3, 4]]), "a line"),
    "an unnamed line": (
        lambda ax: (ax.plot([1, 2]), ax.plot([2, 3], label="a")),
        "a line without a label",
    ),
    "a band too few": (
        lambda ax: (
            [ax.plot([1, 2], label=name) for name in "ab"],
            ax.fill_between([0, 1], [1, 2], [1, 2]),
        ),
        "2 lines and 1 bands: call fill",
    ),
    "a band elsewhere": (
        lambda ax: (ax.plot([1, 2], label="a"), ax.fill_between([0, 1], [3], [4])),
        "a band that is not around the line 'a'",
    ),
    "a band at other points": (
        lambda ax: (ax.plot([1, 2], label="a"), ax.fill_between([0, 3], [1], [4])),
        "a band that is not around the line 'a'",
    ),
    "stacked bars": (lambda ax: ax.bar([1, 2], [1, 2], bottom=1), "begin at zero"),
    "unequal bars": (lambda ax: ax.bar([1, 2], [1, 2], width=[1, 2]), "widths"),
    "steps": (lambda ax: ax.hist([1, 2], histtype="step"), "Polygon"),
    "image": (lambda ax: ax.imshow([[1, 2]]), "an image without a colour bar"),
    "photo": (lambda ax: ax.imshow([[[0.0, 0.5, 1.0]]]), "an image of colours"),
    "mesh": (lambda ax: ax.pcolormesh([[1, 2]]), "QuadMesh"),
    "colours": (lambda ax: ax.scatter([1, 2], [1, 2], c=[1, 2]), "colour bar"),
    "two colours": (lambda ax: ax.scatter([1, 2], [1, 2], c=["r", "b"]), "several"),
    "sizes": (lambda ax: ax.scatter([1, 2], [1, 2], s=[1, 2], label="a"), "'a' whose"),
    "limits": (lambda ax: ax.errorbar([1], [1], yerr=[1], lolims=True), "are limits"),
    "sideways": (lambda ax: ax.errorbar([1], [1], xerr=[1]), "horizontal axis"),
    "ranges alone": (lambda ax: ax.errorbar([1], [1], yerr=1, fmt="none"), "points"),
    "diagonal": (lambda ax: ax.axline((0, 0), slope=1, label="a"), "AxLine 'a'"),
    "shade": (lambda ax: ax.axvspan(0, 1), "Rectangle"),
    "box": (lambda ax: ax.boxplot([1, 2, 3]), "a line without a label"),
    "violin": (lambda ax: ax.violinplot([1, 2, 3]), "LineCollection"),
    "pie": (lambda ax: ax.pie([1, 2]), "Wedge"),
    "stem": (lambda ax: ax.stem([1, 2]), "StemContainer"),
    "arrows": (lambda ax: ax.quiver([1], [1]), "Quiver"),
    "inset": (lambda ax: ax.inset_axes([0, 0, 1, 1]).plot([1, 2]), "inside it"),
    "placed": (lambda ax: ax.plot([1, 2], transform=ax.transAxes), "not placed"),
    "outside": (lambda ax: ax.figure.add_artist(plt.Line2D([0], [1])), "outside"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_told_is_refused(draw, kind):
    """In a line that names figure and, if there is one, panel and artist."""
    fig, ax = draw()
    fig.suptitle("A title")
    ax.set(ylabel="loss")
    call, reason = REFUSED[kind]
    call(ax)
    with pytest.raises(ValueError) as refusal:
        reading.read(fig)
    (line,) = str(refusal.value).splitlines()
    place = "" if "shows" in reason or kind == "outside" else ', panel "loss":'
    assert line.startswith(f'The figure "A title"{place} ')
    assert reason in line


def test_other_axes_are_refused(draw):
    fig, ax = draw(subplot_kw={"projection": "polar"})
    ax.plot([1, 2])
    with pytest.raises(ValueError, match="has polar axes"):
        reading.read(fig)


CONTOUR = """
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
_ = ax.contour([[1, 2], [3, 4]]), ax.set(ylabel="loss"), fig.suptitle("A title")
plt.show()
"""


def test_a_refused_figure_fails_its_page_alone(copy, write_page):
    write_page(CONTOUR)
    other = write_page(name="plot_twin")
    run = build(copy)
    assert run.returncode != 0
    (failed,) = re.findall(r"\w+\.py(?=\S* unexpectedly failed)", run.stderr)
    assert failed == PAGE.name
    assert 'The figure "A title", panel "loss": cannot tell QuadContour' in run.stderr
    assert "sphx-glr-single-img" in other.read_text()
