"""What figures share: colours that colour-blind readers tell apart, a mark for each kind of combination, legends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

FOREGROUND = "#010203"
"""Text, axes and what has no colour of its own: black on paper, and in an SVG the colour of the page's text."""

GREY = "#8a8a8a"  # on a light page and on a dark one
BLUE, VERMILLION, GREEN, PURPLE, ORANGE = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"
"""Of Okabe & Ito 2008, "Color universal design"."""

WIDTH = 5.5
"""Inches: the text of a paper in one column, and readable on a phone."""

SMALL = 7.5
"""Points: annotations; other text is of 9."""

TOOLTIP = "tooltip:"
"""What the gid of an artist begins with that says something when it is pointed at."""

_RC = {
    "font.family": "sans-serif",
    # the first is the widest, and measured here: no other overflows
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.2,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
    **dict.fromkeys(
        ["text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color"], FOREGROUND
    ),
    **dict.fromkeys(["figure.facecolor", "axes.facecolor", "legend.facecolor"], "none"),
}


class Drawn(NamedTuple):
    """A figure with its words.

    title: what is plotted; caption: what to see, how to read it, what it does not show; alt: one sentence for who
    cannot see it.
    """

    figure: Figure
    title: str
    caption: str
    alt: str


class Mark(NamedTuple):
    """How a kind of combination looks, and what it is called."""

    marker: str
    color: str
    label: str


_SIZES = {
    1: Mark("o", BLUE, "one rank"),
    2: Mark("s", VERMILLION, "two ranks"),
    3: Mark("^", GREEN, "three or more"),
}
_KINDS = {
    "none": Mark("D", FOREGROUND, "no ablation"),
    "random": Mark("x", GREY, "control: random"),
    "shuffled": Mark("+", GREY, "control: shuffled labels"),
    "addition": Mark(">", PURPLE, "direction added"),
    "subtraction": Mark("<", ORANGE, "direction subtracted"),
}
_CHOSEN = "filled: chosen on val"


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save in this style."""
    with matplotlib.rc_context(_RC):
        yield


def in_style(draw: Callable) -> Callable:
    """The same function, drawing in this style."""

    @wraps(draw)
    def wrapped(*args, **kwargs):
        with styled():
            return draw(*args, **kwargs)

    return wrapped


def new_figure(height: float, width: float = WIDTH, square: bool = False) -> Figure:
    """An empty figure, in inches; its parts, square ones if it is said, find their places without overlap."""
    return Figure(figsize=(width, height), layout="compressed" if square else "constrained")


def in_words(title: str, reason: str) -> Drawn:
    """In place of a figure that cannot be drawn, the reason."""
    figure = new_figure(0.8)
    figure.text(0.5, 0.5, reason, ha="center", va="center", wrap=True)
    return Drawn(figure, title, reason, reason)


def mark_of(row: pd.Series) -> Mark:
    """How a row of the summary looks."""
    return _SIZES[min(int(row.k), 3)] if row.kind == "ablation" else _KINDS[row.kind]


def name_points(axes: Axes, rows: pd.DataFrame, x: str, y: str) -> None:
    """Write the combinations of rows beside their marks: the leftmost's on its left, so that two stay apart."""
    for place, (_, row) in enumerate(rows.sort_values([x, "combination"]).iterrows()):
        left = place == 0 and len(rows) > 1
        axes.annotate(
            row.combination, (row[x], row[y]), (-5 if left else 5, 4), textcoords="offset points",
            ha="right" if left else "left", fontsize=SMALL, fontweight="bold", zorder=6,
        )  # fmt: skip


def put(
    axes: Axes, row: pd.Series, x: str | float, y: str | float, said: str, *, filled: bool = False, faint: bool = False
) -> None:
    """Put the mark of a combination, with its intervals; nothing where it has no place.

    Args:
        x, y: columns whose bounds are `..._low`, `..._high` (of a rate, without `_rate`), or a place on the axis.
        said: when it is pointed at.
        filled: as one that was chosen, and above the others; faint: as one of many.
    """
    places = [_place(row, one) for one in (x, y)]
    (across, *width), (up, *height) = places
    if pd.isna(across) or pd.isna(up):
        return
    mark = mark_of(row)
    look = {
        "color": mark.color,
        "linewidth": 1.0,
        "alpha": 0.25 if faint else 0.75,
        "zorder": 4 if filled else 2,
        "solid_capstyle": "butt",
    }
    if not any(pd.isna(width)):
        axes.plot(width, [up, up], **look)
    if not any(pd.isna(height)):
        axes.plot([across, across], height, **look)
    drawn = drawn_as(mark, filled or row.kind == "none") | {"alpha": 0.6 if faint else 1, "zorder": 5 if filled else 3}
    axes.plot(across, up, gid=f"{TOOLTIP}{said}", **drawn)


def drawn_as(mark: Mark, filled: bool) -> dict[str, Any]:
    """A mark as arguments of a plot."""
    face = mark.color if filled else "none"
    return {"marker": mark.marker, "color": mark.color, "markerfacecolor": face, "linestyle": "none"}


def legend(figure: Figure, rows: pd.DataFrame, chosen: bool) -> None:
    """Below the figure, the marks of the rows that are in it, and whether some are filled since they were chosen."""
    marks = dict.fromkeys(mark_of(row) for _, row in rows.iterrows())
    known = [mark for mark in (_KINDS["none"], *_SIZES.values(), *_KINDS.values()) if marks.pop(mark, False) is None]
    handles = [Line2D([], [], label=one.label, **drawn_as(one, one.marker == "D")) for one in known]
    if chosen:
        handles.append(Line2D([], [], label=_CHOSEN, **drawn_as(_SIZES[1], True)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


def percent_axis(axis: Any, step: float = 0.25) -> None:
    """A matplotlib axis of shares, from 0 to 100%."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f}%"))
    axis.set_ticks([number * step for number in range(round(1 / step) + 1)])


def contrast(colour_map: Colormap, value: float) -> str:
    """Black or white, which reads better on a colour of the map (0 to 1)."""
    red, green, blue, _ = colour_map(value)
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"


def _place(row: pd.Series, column: str | float) -> tuple[float, float, float]:
    """Value, low, high; not-a-number where there is none."""
    if not isinstance(column, str):
        return column, float("nan"), float("nan")
    stem = column.removesuffix("_rate")
    return tuple(row.get(name, float("nan")) for name in (column, f"{stem}_low", f"{stem}_high"))
