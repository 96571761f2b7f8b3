"""Save the figures of a page: as drawn, recoloured for dark mode, and described.

A page that shows its figures finds a display here, whose windows are closed at once.
"""

import copy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from docutils import nodes
from matplotlib import colors
from matplotlib.collections import Collection
from matplotlib.legend import Legend
from matplotlib.text import Text

from gallery.run import reading

DPI = 100  # pixels of the page that an inch of a figure takes
CARD_INCHES, CARD_DPI = (4, 2.8), 160  # twice the pixels that it takes at most
# What is black and what is white in a light figure, in the colours of the dark theme.
DARK_BLACK, DARK_WHITE = colors.to_rgb("#ced6dd"), colors.to_rgb("#121212")
COLORS = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")

show_windows = plt.show
shown = []  # the figures that the page has shown since its last block

FIGURE = """
.. image-sg:: /{figure}
   :alt: {title}

.. admonition:: What the figure shows
   :collapsible: closed
   :class: figure-description
   :name: {id}

   {description}

   :download:`Download the plotted numbers as CSV </{csv}>`

"""


def darken(fig):
    """Recolour ``fig``: greys, from black to white, become those of the dark theme."""
    changes = []  # all are found before one is made: artists share colours
    for artist in fig.findobj():
        for name in COLORS:
            value = getattr(artist, f"get_{name}", lambda: "none")()
            rgba = colors.to_rgba_array(value)
            grey = np.ptp(rgba[:, :3], axis=1) == 0
            if grey.any():
                white = rgba[grey, :1]
                rgba[grey, :3] = white * DARK_WHITE + (1 - white) * DARK_BLACK
                many = isinstance(artist, Collection)
                changes.append((artist, f"set_{name}", rgba if many else rgba[0]))
    for artist, setter, color in changes:
        getattr(artist, setter)(color)


def stripped(fig):
    """Return a copy of ``fig`` with nothing but what it draws, for the card of a page.

    A card is so small that nobody could read its text, or tell thin lines apart.
    """
    fig = copy.deepcopy(fig)
    fig.set_size_inches(CARD_INCHES)
    fig.legends.clear()  # an invisible one beside the panels would keep its place
    for artist in [*fig.findobj(Text), *fig.findobj(Legend)]:
        artist.set(visible=False, in_layout=False)
    for ax in fig.axes:
        ax.spines[["top", "right"]].set_visible(False)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks([])
            axis.set_ticks([], minor=True)
        for line in ax.lines:
            line.set_linewidth(1.5 * line.get_linewidth())
    return fig


def beside(path, suffix):
    """Return the path of the dark ("_dark") or dense ("_2x") image of one."""
    return path.with_stem(path.stem + suffix)


def description_id(path):
    """Return the id of the description of the figure at ``path``, of either mode."""
    return nodes.make_id(f"about {path.stem.removesuffix('_dark')}")


def save(fig, path, gallery_conf):
    """Save ``fig`` at ``path`` and all else beside it; return the rST that shows it."""
    found, numbers = reading.read(fig), path.with_suffix(".csv")
    reading.write(found, numbers)
    for image in (path, beside(path, "_dark")):
        if image != path:
            darken(fig)
        fig.savefig(image, dpi=DPI)
        fig.savefig(beside(image, "_2x"), dpi=2 * DPI)
        if path.stem.endswith("_001"):
            # Beside the thumbnail that sphinx-gallery makes of the whole figure.
            card = path.parent / "thumb" / image.name.replace("_001", "_card")
            stripped(fig).savefig(card, dpi=CARD_DPI)
    source = Path(gallery_conf["src_dir"])
    return FIGURE.format(
        figure=path.relative_to(source).as_posix(),
        title=" ".join(fig.get_suptitle().split()),
        id=description_id(path),
        description=reading.describe(found).replace("\n", "\n   "),
        csv=numbers.relative_to(source).as_posix(),
    )


def show(**options):
    """Take the open figures and close their windows, in the place of ``plt.show``."""
    shown.extend(plt.figure(number) for number in plt.get_fignums())
    plt.close("all")


def reset(gallery_conf, fname, when):
    """Be the display ``when`` is "before" a page, and no longer "after" it."""
    plt.show = show if when == "before" else show_windows
    shown.clear()


def scrape(block, block_vars, gallery_conf):
    """Save the figures that are shown or open, as an image scraper of sphinx-gallery.

    None is kept even if one is refused, or the next page would have it, too.
    """
    show()
    paths = map(Path, block_vars["image_path_iterator"])
    pairs = zip(shown, paths, strict=False)  # there are always more paths
    try:
        return "".join(save(figure, path, gallery_conf) for figure, path in pairs)
    finally:
        shown.clear()
