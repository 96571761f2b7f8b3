"""Read what a figure shows, and tell it in words and as a table.

What is not known here is refused: a description that leaves out or misnames a part of
a figure is worse than none for a reader who cannot see it.
"""

import csv
from dataclasses import dataclass, field

import numpy as np
from matplotlib import dates
from matplotlib.axis import Axis
from matplotlib.collections import FillBetweenPolyCollection, PathCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.image import AxesImage
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator
from sphinx.util.rst import escape

FEW = 12  # so many values are told one by one
NAMES = {Line2D: "a line", PathCollection: "a scatter", AxesImage: "an image"}
# What a panel has besides what it shows.
AROUND = Axis, Legend, Spine, Text


@dataclass(eq=False)
class Series:
    """What one call drew in a panel: points of the axes, each array (n,).

    ``kind`` is "line", "points", "bars", "horizontal bars", "vertical line",
    "horizontal line" or "image". ``lowest`` and ``highest`` are the ends of a band or
    of error bars, and ``color`` is what a colour bar tells; both are NaN where there is
    none. ``note`` is what to tell of them.
    """

    ax: object
    kind: str
    label: str
    x: np.ndarray
    y: np.ndarray
    lowest: np.ndarray = field(default=None)
    highest: np.ndarray = field(default=None)
    color: np.ndarray = field(default=None)
    note: str = ""

    def __post_init__(self):
        """Fill what was not given with NaN."""
        self.x, self.y = (np.asarray(a, float) for a in (self.x, self.y))
        for name in ("lowest", "highest", "color"):
            if getattr(self, name) is None:
                setattr(self, name, np.full(len(self.x), np.nan))

    @property
    def is_reference(self):
        """Tell whether this is a line across the whole panel."""
        return self.kind in ("vertical line", "horizontal line")


# Names


def root(ax):
    """Return the whole figure of the panel ``ax``."""
    return ax.get_figure(root=True)


def panel_name(ax):
    """Return how the panel ``ax`` is called: by its title or its vertical axis."""
    title = " ".join(ax.get_title().split())
    name = title or axis_name(ax, "y") or axis_name(ax, "x")
    return name or f"panel {root(ax).axes.index(ax) + 1}"


def axis_name(ax, which):
    """Return the name of the axis ``which`` of ``ax``, "x" or "y", or "".

    Panels that share an axis name it once, and so does a figure for all of them.
    """
    siblings = getattr(ax, f"get_shared_{which}_axes")().get_siblings(ax)
    names = [getattr(other, f"get_{which}label")() for other in (ax, *siblings)]
    names.append(getattr(root(ax), f"get_sup{which}label")())
    return " ".join(next(filter(None, names), "").split())


def refuse(fig, where, what):
    """Raise ValueError for ``what`` a figure has, in one line that names its place."""
    raise ValueError(
        f'The figure "{" ".join(fig.get_suptitle().split())}"{where} {what}'
    )


def refuse_in(ax, what):
    """Raise ValueError for ``what`` the panel ``ax`` has."""
    refuse(root(ax), f', panel "{panel_name(ax)}":', what)


def named(artist):
    """Return how the code calls ``artist``: its kind and, if it has one, its label."""
    label = str(artist.get_label())
    kind = NAMES.get(type(artist), type(artist).__name__)
    has_label = label not in ("", "None") and not label.startswith("_")
    return f"{kind} {label!r}" if has_label else kind


# Reading


def read(fig):
    """Return all that ``fig`` shows, a Series for each call that drew it.

    Raises ValueError for what cannot be told truly.
    """
    for artist in (*fig.lines, *fig.patches, *fig.images, *fig.artists):
        refuse(fig, "", f"has {named(artist)} outside its panels: draw it in one")
    colored = [x for ax in fig.axes for x in (*ax.images, *ax.collections)]
    scales = [x.colorbar for x in colored if x.colorbar is not None]
    panels = [ax for ax in fig.axes if ax.get_visible()]
    panels = [ax for ax in panels if ax not in [scale.ax for scale in scales]]
    found = [series for ax in panels for series in read_panel(ax, scales)]
    if not found:
        refuse(fig, "", "shows no data: draw some, or close it")
    return found


def read_panel(ax, scales):
    """Return all that the panel ``ax`` shows.

    ``scales`` are the colour bars of the figure.
    """
    if ax.name != "rectilinear":
        refuse_in(ax, f"has {ax.name} axes: use rectilinear ones")
    if ax.tables or any(inset.has_data() for inset in ax.child_axes):
        refuse_in(ax, "has a table or a panel inside it: draw a panel of its own")
    groups, found = {}, []
    for group in ax.containers:
        for artist in parts(group):
            groups[artist] = group
    # Error bars of bars are told with them.
    inner = [group.errorbar for group in ax.containers if hasattr(group, "errorbar")]
    fills = [x for x in shown(ax) if type(x) is FillBetweenPolyCollection]
    for artist in dict.fromkeys(groups.get(artist, artist) for artist in shown(ax)):
        if artist not in inner and artist not in fills:
            reader = READERS.get(type(artist))
            if reader is None:
                remedy = "draw lines, bars, points or an image with a colour bar"
                refuse_in(ax, f"cannot tell {named(artist)}: {remedy}")
            found += reader(ax, artist, scales)
    add_bands(ax, [series for series in found if series.kind == "line"], fills)
    # Matplotlib draws nothing of what has no number, such as a step size of no solver.
    found = [x for x in found if x.is_reference or not np.isnan(x.x + x.y).all()]
    name(ax, found)
    return found


def parts(group):
    """Return the artists of a container."""
    flat = []
    for part in group:
        flat += part if isinstance(part, tuple | list) else [part]
    return [part for part in flat if part is not None]


def shown(ax):
    """Return what shows something in the panel ``ax``, in the order it was drawn."""
    others = [ax.patch, *ax.child_axes]
    children = [x for x in ax.get_children() if x not in others and x.get_visible()]
    return [x for x in children if not isinstance(x, AROUND)]


def name(ax, found):
    """Name what has no label, or raise ValueError if that would be a guess.

    A panel that shows one thing is named by its axis. Reference lines need no name, and
    an image has that of its colour bar.
    """
    data = [x for x in found if not x.is_reference and x.kind != "image"]
    for series in found:
        if series.label.startswith("_"):
            if series in data and len(data) > 1:
                kind = "a line" if series.kind == "line" else series.kind
                refuse_in(ax, f"has {kind} without a label: give each its own")
            series.label = ""


def in_data(ax, artist, transform):
    """Raise ValueError unless ``artist`` has its place in the numbers of the axes."""
    if transform is not ax.transData:
        refuse_in(ax, f"has {named(artist)} that is not placed by the axes' numbers")


def read_line(ax, line, scales):
    """Read what ``plot``, ``axhline`` or ``axvline`` drew."""
    x, y = np.ma.filled(line.get_xydata().astype(float), np.nan).T
    label, mark = (
        str(line.get_label()),
        line.get_marker() not in ("None", None, "", " "),
    )
    for kind, values, transform in (
        ("vertical line", x, ax.get_xaxis_transform("grid")),
        ("horizontal line", y, ax.get_yaxis_transform("grid")),
    ):
        if line.get_transform() is transform and len(set(values)) == 1:
            at = values[:1]
            x, y = (at, [np.nan]) if values is x else ([np.nan], at)
            return [Series(ax, kind, label, x, y)]
    in_data(ax, line, line.get_transform())
    has_line = line.get_linestyle() != "None"
    if not (has_line or mark):
        return []
    return [Series(ax, "line" if has_line else "points", label, x, y)]


def read_scatter(ax, points, scales):
    """Read what ``scatter`` drew."""
    in_data(ax, points, points.get_offset_transform())
    if len(np.unique(points.get_sizes())) > 1:
        refuse_in(ax, f"has {named(points)} whose sizes differ, which no axis tells")
    x, y = np.ma.filled(points.get_offsets().astype(float), np.nan).T
    colors, note = points.get_array(), ""
    if colors is not None:
        note = color_name(ax, points, scales)
        colors = np.ma.filled(np.ma.asarray(colors, float), np.nan)
    elif len(np.unique(points.get_facecolors(), axis=0)) > 1:
        refuse_in(ax, f"has {named(points)} of several colours: draw one for each")
    label = str(points.get_label())
    return [Series(ax, "points", label, x, y, color=colors, note=note)]


def color_name(ax, artist, scales):
    """Return what the colour of ``artist`` tells, as its colour bar says."""
    for bar in scales:
        same = (bar.mappable, artist)
        limits = [(x.norm.vmin, x.norm.vmax, type(x.norm), x.cmap) for x in same]
        if limits[0] == limits[1]:
            name = bar.ax.get_ylabel() or bar.ax.get_xlabel()
            return name or refuse_in(ax, "has a colour bar without a label")
    return refuse_in(
        ax, f"has {named(artist)} without a colour bar that tells its colours"
    )


def read_image(ax, image, scales):
    """Read what ``imshow`` drew: a value for each cell."""
    in_data(ax, image, image.get_transform())
    values = np.ma.filled(np.ma.asarray(image.get_array(), float), np.nan)
    if values.ndim != 2:
        refuse_in(
            ax, f"has {named(image)} of colours: give it numbers and a colour bar"
        )
    note = color_name(ax, image, scales)
    rows, columns = values.shape
    left, right, bottom, top = image.get_extent()
    if image.origin == "upper":
        bottom, top = top, bottom
    x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    y = bottom + (np.arange(rows) + 0.5) * (top - bottom) / rows
    x, y = (grid.ravel() for grid in np.meshgrid(x, y))
    return [Series(ax, "image", "_", x, y, color=values.ravel(), note=note)]


def read_bars(ax, group, scales):
    """Read what ``bar``, ``barh`` or ``hist`` drew."""
    across, along = ("x", "y") if group.orientation == "vertical" else ("y", "x")
    boxes = [patch.get_bbox() for patch in group]
    for patch in group:
        in_data(ax, patch, patch.get_data_transform())
    label = str(group.get_label())
    if not boxes:
        return []
    if any(getattr(box, f"{along}0") != 0 for box in boxes):
        refuse_in(ax, "has bars that do not begin at zero, as stacked ones do not")
    starts, ends = (
        np.array([getattr(box, across + end) for box in boxes]) for end in "01"
    )
    widths, note = ends - starts, ""
    if not np.allclose(widths, widths[0]):
        refuse_in(ax, "has bars of different widths")
    if len(boxes) > 1 and np.allclose(starts[1:], ends[:-1]):
        note = f"each {say(widths[0])} wide"
    ends_of = {"lowest": None, "highest": None}
    values = np.array([getattr(box, f"{along}1") for box in boxes])
    if group.errorbar is not None:
        ends_of = error_bars(ax, group.errorbar, along, len(boxes))
    places = {across: (starts + ends) / 2, along: values}
    kind = "bars" if across == "x" else "horizontal bars"
    return [Series(ax, kind, label, **places, **ends_of, note=note)]


def read_error_bars(ax, group, scales):
    """Read what ``errorbar`` drew."""
    line = group.lines[0]
    if line is None or (group.has_xerr and group.has_yerr) or group.has_xerr:
        refuse_in(ax, "has error bars without points, or along the horizontal axis")
    (series,) = read_line(ax, line, scales)
    series.label = str(group.get_label())
    ends_of = error_bars(ax, group, "y", len(series.x))
    series.lowest, series.highest = ends_of.values()
    series.note = "error bars"
    return [series]


def error_bars(ax, group, along, number):
    """Return {"lowest": ..., "highest": ...} of ``number`` error bars."""
    _, caps, (bars,) = group.lines
    ends = np.array(bars.get_segments())[:, :, "xy".index(along)]
    if len(ends) != number or {cap.get_marker() for cap in caps} - {"_", "|"}:
        refuse_in(ax, "has error bars that are limits, or not at all points")
    return {"lowest": ends.min(axis=1), "highest": ends.max(axis=1)}


READERS = {
    Line2D: read_line,
    PathCollection: read_scatter,
    AxesImage: read_image,
    BarContainer: read_bars,
    ErrorbarContainer: read_error_bars,
}


def add_bands(ax, lines, fills):
    """Add to ``lines`` their bands: what ``fill_between`` drew, in the same order."""
    if not fills:
        return
    if len(fills) != len(lines):
        what = f"has {len(lines)} lines and {len(fills)} bands"
        refuse_in(ax, f"{what}: call fill_between for each line, or for none")
    for line, fill in zip(lines, fills, strict=True):
        in_data(ax, fill, fill.get_transform())
        paths = [path.vertices for path in fill.get_paths()]
        edges = np.concatenate([np.empty((0, 2)), *paths])
        at = [edges[edges[:, 0] == x, 1] for x in line.x]
        line.lowest, line.highest = (
            np.array([f(y) if len(y) else np.nan for y in at]) for f in (np.min, np.max)
        )
        # A hair, for a median that was rounded.
        slack = 1e-6 * (line.highest - line.lowest)
        outside = (line.y < line.lowest - slack) | (line.y > line.highest + slack)
        if set(edges[:, 0]) - set(line.x) or outside.any():
            what = f"has a band that is not around the line {line.label!r}"
            refuse_in(ax, f"{what}: call fill_between at its points, in its order")
        line.note = "band"


# Telling it


def say(value):
    """Return a number as text."""
    if np.isinf(value):
        return "infinity" if value > 0 else "minus infinity"
    if np.isnan(value):
        return "nothing"
    whole = value == round(value) and abs(value) < 1e5
    return f"{value:.0f}" if whole else f"{value:.3g}"


def names(axis):
    """Return {position: name} of the categories of ``axis``.

    They are the strings that were plotted, or the names that ticks were given; names
    that are the numbers of their places are none.
    """
    locator = axis.get_major_locator()
    converter = type(axis.get_converter()).__module__
    if converter != "matplotlib.category" and not isinstance(locator, FixedLocator):
        return {}
    places = locator()
    texts = axis.get_major_formatter().format_ticks(places)
    pairs = {place: text for place, text in zip(places, texts, strict=True) if text}
    try:
        numbers = [
            float(text.replace("\N{MINUS SIGN}", "-")) for text in pairs.values()
        ]
    except ValueError:
        return pairs
    return {} if np.allclose(numbers, list(pairs)) else pairs


def tell(axis, values, number=say):
    """Return values of ``axis`` as they are called: category, date or number.

    A value is of the nearest category, as bars beside each other are, and has none if
    it is as near to the next.
    """
    found = names(axis)
    if type(axis.get_converter()).__module__ == "matplotlib.dates":
        times = dates.num2date(np.where(np.isfinite(values), values, 0))
        whole = not any(f"{time:%H%M%S%f}".strip("0") for time in times)
        form = "%Y-%m-%d" if whole else "%Y-%m-%d %H:%M:%S"
        pairs = zip(times, values, strict=True)
        return [f"{t:{form}}" if np.isfinite(x) else number(x) for t, x in pairs]
    if not found:
        return [number(x) for x in values]
    places = np.array(sorted(found))
    room = np.diff(places).min() / 2 if len(places) > 1 else 0.5
    nearest = places[np.abs(np.subtract.outer(values, places)).argmin(axis=1)]
    told = []
    for x, place in zip(values, nearest, strict=True):
        told.append(found[place] if abs(x - place) < room else number(x))
    return told


def on_scale(axis):
    """Return what to add to the name of ``axis``."""
    kinds = {"linear": "", "log": ", on a logarithmic scale"}
    return kinds.get(axis.get_scale(), f", on a {axis.get_scale()} scale")


def span(low, high):
    """Return the range of an error bar or a band."""
    return f"{say(low)} to {say(high)}"


def drawn(series):
    """Return which values of a line Matplotlib can draw."""
    there = np.isfinite(series.x) & np.isfinite(series.y)
    return there & (series.y > 0) if series.ax.yaxis.get_scale() == "log" else there


def gaps(series):
    """Return how many values of a line are not drawn, and why."""
    y, missing = series.y, np.isnan(series.x) | np.isnan(series.y)
    counts = {"infinite": np.isinf(y).sum(), "missing": missing.sum()}
    fallen = (~drawn(series) & np.isfinite(y) & ~missing).sum()
    counts["not above zero, where the line leaves the panel"] = fallen
    told = [f"{count} {why}" for why, count in counts.items() if count]
    if not told:
        return ""
    number = sum(counts.values())
    return f" (of {len(y)} values, {number} cannot be drawn: {', '.join(told)})"


def tell_line(series):
    """Tell where a line begins and ends, and between which values it stays."""
    there = ~(np.isnan(series.x) | np.isnan(series.y))
    x, y = series.x[there], series.y[there]
    seen = series.y[drawn(series)]
    if (np.diff(x) < 0).any():
        text = f"goes from ({say(x[0])}, {say(y[0])}) to ({say(x[-1])}, {say(y[-1])})"
    else:
        text = f"goes from {say(y[0])} to {say(y[-1])}"
    if len(seen):
        between = f"between {say(seen.min())} and {say(seen.max())}"
        all_seen = len(seen) == len(y)
        text += f", always {between}" if all_seen else f", {between} where it is drawn"
    text += gaps(series)
    if (series.lowest < series.highest).any():
        low, high = np.nanmin(series.lowest), np.nanmax(series.highest)
        text += f" (its {series.note} between {say(low)} and {say(high)})"
    return text


def tell_values(series):
    """Tell the values of bars or points, one by one if they are few."""
    ax, across, along = series.ax, "x", "y"
    if series.kind == "horizontal bars":
        across, along = "y", "x"
    axes = getattr(ax, f"{across}axis"), getattr(ax, f"{along}axis")
    places, values = getattr(series, across), getattr(series, along)
    told = list(zip(tell(axes[0], places), tell(axes[1], values), strict=True))
    pairs = series.kind == "points" and series.note != "error bars"
    kind = "band" if series.note == "band" else "error bar"
    if len(told) <= FEW:
        form = "{0} {1}" if names(axes[0]) else "{1} at {0}"
        form = "({}, {})" if pairs else form
        items = [form.format(*both) for both in told]
        for i, (low, high, color) in enumerate(
            zip(series.lowest, series.highest, series.color, strict=True)
        ):
            items[i] += f" ({kind} {span(low, high)})" if not np.isnan(low) else ""
            items[i] += f" (colour {say(color)})" if not np.isnan(color) else ""
        kinds = {"points": "points at" if pairs else "points:", "line": "a line:"}
        text = f"{kinds.get(series.kind, f'{series.kind}:')} {', '.join(items)}"
        if not np.isnan(series.color).all():
            text += f"; the colour is {series.note}"
    else:
        low, high = np.nanargmin(values), np.nanargmax(values)
        text = f"{len(told)} {series.kind}, from {told[low][1]} (at {told[low][0]}) to "
        text += f"{told[high][1]} (at {told[high][0]})"
        if not np.isnan(series.color).all():
            text += f", coloured by {series.note}, from {span(*extremes(series.color))}"
        if not np.isnan(series.lowest).all():
            low, high = np.nanmin(series.lowest), np.nanmax(series.highest)
            text += f", error bars between {say(low)} and {say(high)}"
    if series.note.endswith("wide"):
        text += f" ({series.note}, told by the middle of its width)"
    return text


def extremes(values):
    """Return the lowest and the highest of ``values``."""
    return np.nanmin(values), np.nanmax(values)


def tell_image(series):
    """Tell the lowest and the highest value of an image, and where they are."""
    ax, color = series.ax, series.color
    x, y = tell(ax.xaxis, series.x), tell(ax.yaxis, series.y)
    places = [f"({a}, {b})" for a, b in zip(x, y, strict=True)]
    if len(color) <= FEW:
        pairs = zip(color, places, strict=True)
        return ", ".join(f"{say(value)} at {place}" for value, place in pairs)
    low, high = np.nanargmin(color), np.nanargmax(color)
    text = f"lowest {say(color[low])} at {places[low]}, "
    text += f"highest {say(color[high])} at {places[high]}"
    empty = np.isnan(color).sum()
    return text + (f", {empty} without a value" if empty else "")


def tell_series(series):
    """Tell one Series, with its name, in rST."""
    ax, name = series.ax, escape(" ".join(series.label.split()))
    if series.is_reference:
        axis = "x" if series.kind == "vertical line" else "y"
        (place,) = tell(getattr(ax, f"{axis}axis"), getattr(series, axis))
        name_of = escape(axis_name(ax, axis))
        text = f"a {series.kind} at {name_of} {escape(place)}".replace("  ", " ")
        return f"{name}, {text}" if name else text
    if series.kind == "line" and not (names(ax.xaxis) and len(series.x) <= FEW):
        return f"{name or 'the line'} {tell_line(series)}"
    if series.kind == "image":
        return escape(tell_image(series))
    text = escape(tell_values(series))
    return f"{name}, {text}" if name else text


def words(ax):
    """Return what is written into a panel, except numbers: these are told anyway."""
    found = []
    for text in ax.texts:
        line = " ".join(text.get_text().split())
        if text.get_visible() and line.strip("0123456789.+-\N{MINUS SIGN}% "):
            place = ""
            if getattr(text, "xycoords", "data") == "data":
                at = getattr(text, "xy", text.get_position())
                x, y = tell(ax.xaxis, at[:1])[0], tell(ax.yaxis, at[1:])[0]
                place = f" at ({x}, {y})"
            found.append(f'the words "{line}"{place}')
    return found


def tell_panel(ax, found):
    """Return a line of the description: what the axes are, and all they show.

    Names are spelled as they are in the figure.
    """
    first = found[0]
    across, along = ("y", "x") if first.kind == "horizontal bars" else ("x", "y")
    axes = getattr(ax, f"{across}axis"), getattr(ax, f"{along}axis")
    title, against = " ".join(ax.get_title().split()), axis_name(ax, across)
    head = escape(f"{title} {axis_name(ax, along)}".strip() or panel_name(ax))
    places = [getattr(x, across) for x in found if not x.is_reference]
    places = np.concatenate([np.empty(0), *places])
    places = places[np.isfinite(places)]
    if first.kind == "image":
        rows, columns = len(set(first.y)), len(set(first.x))
        head = f"{title}, {first.note}" if title else first.note
        head = escape(f"{head} as colour, in {columns} columns ({against}) ")
        head += escape(f"and {rows} rows ({axis_name(ax, along)})")
    else:
        head += on_scale(axes[1]) + cut(ax, found)
        if names(axes[0]):
            head += f", for each {escape(against)}" if against else ""
        elif len(places):
            ends = tell(axes[0], [places.min(), places.max()])
            head += f", against {escape(against or 'x')} from {ends[0]} to {ends[1]}"
            head += on_scale(axes[0])
    items = [*map(tell_series, found), *map(escape, words(ax))]
    return f"- {head}: {'; '.join(items)}."


def cut(ax, found):
    """Return which part of the vertical axis a panel shows, if lines leave it."""
    low, high = sorted(ax.get_ylim())
    lines = [x.y[drawn(x)] for x in found if x.kind == "line"]
    outside = any(((y < low) | (y > high)).any() for y in lines)
    return f" (only {say(low)} to {say(high)} is shown)" if outside else ""


def by_panel(found):
    """Return {panel: its Series}."""
    panels = {}
    for series in found:
        panels.setdefault(series.ax, []).append(series)
    return panels


def describe(found):
    """Return what a figure shows as a list in rST, for those who cannot see it.

    ``found`` are its Series.
    """
    return "\n".join(tell_panel(ax, some) for ax, some in by_panel(found).items())


def column(found, which):
    """Return the name of the axis ``which`` if all panels have the same one."""
    names = {axis_name(series.ax, which) for series in found}
    return names.pop() or which if len(names) == 1 else which


def write(found, path):
    """Write ``found``, the Series of a figure, to ``path``: a row for each point."""
    ends = any(not np.isnan(series.lowest).all() for series in found)
    colors = dict.fromkeys(x.note for x in found if not np.isnan(x.color).all())
    header = ["panel", "kind", "label", column(found, "x"), column(found, "y")]
    header += ["lowest", "highest"] * ends + [" or ".join(colors)] * bool(colors)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        for series in found:
            table.writerows(rows(series, ends, bool(colors)))


def rows(series, ends, colors):
    """Return the rows of a Series in the table, with or without some columns."""
    ax = series.ax
    columns = [tell(ax.xaxis, series.x, exactly), tell(ax.yaxis, series.y, exactly)]
    others = [series.lowest, series.highest] * ends + [series.color] * colors
    columns += [map(exactly, values) for values in others]
    start = panel_name(ax), series.kind, series.label
    return [[*start, *row] for row in zip(*columns, strict=True)]


def exactly(value):
    """Return a number with all its digits, or "" for one that there is not."""
    return "" if np.isnan(value) else repr(float(value))
