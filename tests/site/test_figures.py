"""How run/figures.py darkens a figure and makes its card."""

import copy
import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import colors
from matplotlib.legend import Legend
from matplotlib.spines import Spine
from matplotlib.text import Text
from PIL import Image

from gallery.run import figures

DARK_PAGE = "#121212"


@pytest.fixture(scope="module")
def run(run_page):
    return run_page("--batch_size=16", "--maxiter=10", "--num_seeds=3")


def contrast(one, other):
    """Return the ratio of contrast of WCAG 2.2, from 1 to 21."""
    lights = []
    for color in (one, other):
        rgb = np.array(colors.to_rgb(color))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        lights.append(linear @ (0.2126, 0.7152, 0.0722) + 0.05)
    return max(lights) / min(lights)


def test_figures_can_be_seen_in_both_modes(run):
    """As WCAG asks: 4.5 for text, 3 for lines. Data keeps its colours, but for grey."""
    figure = copy.deepcopy(run.figure)
    before = [line.get_color() for ax in figure.axes for line in ax.lines[:4]]
    for page in ("white", DARK_PAGE):
        if page == DARK_PAGE:
            figures.darken(figure)
        assert colors.same_color(figure.get_facecolor(), page)
        for ax in figure.axes:
            assert colors.same_color(ax.get_facecolor(), page)
        for text in figure.findobj(Text):
            assert contrast(text.get_color(), page) >= 4.5
        for spine in figure.findobj(Spine):
            assert contrast(spine.get_edgecolor(), page) >= 4.5
        coloured = [line.get_color() for ax in figure.axes for line in ax.lines[:4]]
        assert coloured == before
        lines = [line.get_color() for ax in figure.axes for line in ax.lines]
        assert min(contrast(color, page) for color in lines) >= 3


@pytest.fixture
def figure():
    """Draw a line in each of two panels, with text wherever there can be some."""
    fig, axes = plt.subplots(2, layout="constrained")
    for ax, color in zip(axes, ("tab:blue", "tab:red"), strict=True):
        ax.plot([1, 2, 3, 4], [1, 9, 5, 7], color=color, label="a line")
        ax.fill_between([1, 4], [1, 6], [2, 9], color=color, alpha=0.2)
        ax.set(title="title", xlabel="x", ylabel="y", yscale="log")
        ax.annotate("text", (2, 5))
        ax.legend()
    axes[0].grid()
    fig.suptitle("suptitle")
    fig.legend(loc="outside lower center")
    yield fig
    plt.close("all")


def pixels(fig, **options):
    """Return ``fig`` as it is saved: (height, width, 3)."""
    file = io.BytesIO()
    fig.savefig(file, **options)
    return np.array(Image.open(file).convert("RGB"))


def test_a_card_is_what_a_figure_draws(figure):
    """Its lines in their places, thicker, and nothing beside its panels."""
    card = figures.stripped(figure)
    image = pixels(card, dpi=figures.CARD_DPI)
    height, width, _ = image.shape
    assert (height, width) == (448, 640)
    assert not [x for x in card.findobj(Text) if x.get_visible() and x.get_text()]
    assert not [x for x in card.findobj(Legend) if x.get_visible()]
    scale = figures.CARD_DPI / card.dpi
    rest = np.ones((height, width), bool)
    for ax, other in zip(card.axes, figure.axes, strict=True):
        assert (ax.get_xlim(), ax.get_ylim()) == (other.get_xlim(), other.get_ylim())
        assert ax.lines[0].get_linewidth() > other.lines[0].get_linewidth()
        for x, y in other.lines[0].get_xydata():
            column, row = scale * ax.transData.transform((x, y))
            color = image[int(height - row), int(column)] / 255
            assert color == pytest.approx(
                colors.to_rgb(ax.lines[0].get_color()), abs=0.02
            )
        (left, bottom), (right, top) = scale * ax.get_window_extent().get_points()
        rows = slice(int(height - top) - 2, int(height - bottom) + 2)
        rest[rows, int(left) - 2 : int(right) + 2] = False
    assert rest.mean() < 0.1
    assert np.all(image[rest] == 255)


def test_cards_leave_the_figure_as_it_is(figure, tmp_path):
    """They are drawn of the first figure of a page, whose images stay the same."""
    (tmp_path / "thumb").mkdir()
    light = pixels(figure, dpi=figures.DPI)
    twin = copy.deepcopy(figure)
    figures.darken(twin)
    dark = pixels(twin, dpi=figures.DPI)
    shown = copy.deepcopy(figure), copy.deepcopy(figure)
    for number, fig in enumerate(shown, 1):
        path = tmp_path / f"page_00{number}.png"
        figures.save(fig, path, {"src_dir": tmp_path})
        for mode, expected in (("", light), ("_dark", dark)):
            image = Image.open(figures.beside(path, mode))
            assert np.array_equal(image.convert("RGB"), expected)
    cards = sorted((tmp_path / "thumb").iterdir())
    assert [card.name for card in cards] == ["page_card.png", "page_card_dark.png"]
    for card, fig in zip(cards, (figure, twin), strict=True):
        expected = pixels(figures.stripped(fig), dpi=figures.CARD_DPI)
        assert np.array_equal(Image.open(card).convert("RGB"), expected)


def test_figures_can_be_read(run):
    """Text has 8 points or more where a figure has its full width, as on a laptop."""
    sizes = [text.get_size() for text in run.figure.findobj(Text) if text.get_text()]
    assert min(sizes) * figures.DPI / 96 >= 8
    assert run.figure.get_size_inches()[0] * figures.DPI <= 688  # the width of a page


def test_colours_are_told_apart_by_all(run):
    """They are of the palette of Okabe and Ito, for every kind of colour vision.

    Those of the tuned solvers are grey, and told apart by their dashes.
    """
    lines = run.figure.axes[1].lines
    assert lines[4].get_linestyle() != lines[5].get_linestyle()
    drawn = [colors.to_hex(line.get_color()) for line in lines[:4]]
    assert len(set(drawn)) == 4
    assert set(drawn) < set(map(colors.to_hex, matplotlib.color_sequences["okabe_ito"]))
