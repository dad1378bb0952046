"""Refusals that are left under singles (on the diagonal) and pairs of ranks."""

from math import nan

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from refusal.combinations import parse
from refusal.measured import LEVEL
from refusal.plots import style
from refusal.plots.style import FOREGROUND, VERMILLION, Drawn, contrast
from refusal.plots.tables import Tables, counted, listed, places, ranged, text

_TITLE = "Harmful test prompts refused, by single (diagonal) and pair of ranks"
_TESTED = f"differs from the best single (McNemar, Holm-adjusted p < {LEVEL:g})"
_COLOURS = matplotlib.colormaps["cividis"]
_NEAR = {"facecolor": "none", "hatch": "//", "linewidth": 0, "zorder": 2}
_CELL = 0.45  # inches, at most
_ROOM = 11.0  # points, of a cell that has a number


@style.in_style
def draw(tables: Tables) -> Drawn:
    rate, test = tables.rate(), f"harmful_{tables.judge}_p_holm_vs_best_single"
    rows = tables.ablations[tables.ablations.k <= 2]
    rows = rows[rows[rate].notna()] if rate in rows else rows[:0]
    if rows.empty:
        return style.in_words(_TITLE, f"{tables.judge} has judged no single and no pair on harmful test prompts.")
    shown = rows[["combination", "k", "effective_rank", rate]]
    rows = shown.assign(ranks=[parse(name).ranks for name in rows.combination], p=rows.get(test, nan))
    ranks = sorted({rank for pair in rows.ranks for rank in pair})
    side = min(style.WIDTH - 1.9, max(1.5, _CELL * len(ranks)))
    room = 72 * side / len(ranks)
    figure = style.new_figure(side + 1.0, square=True)
    axes = figure.subplots()
    axes.set_box_aspect(1)
    _cells(axes, tables, rows, ranks, room)
    axes.set_yticks(range(len(ranks)), places(tables.ranking, ranks))
    axes.set_xticks(range(len(ranks)), map(str, ranks))
    axes.tick_params(axis="x", labelsize=min(8, 0.6 * room))
    axes.tick_params(axis="y", labelsize=min(8, 0.75 * room))
    axes.set(xlim=(-0.5, len(ranks) - 0.5), ylim=(len(ranks) - 0.5, -0.5))
    axes.set(xlabel="rank", ylabel="rank (position, layer)")
    figure.legend(handles=_handles(tables, rows), loc="outside lower left")
    return Drawn(figure, _TITLE, *_words(tables, rows))


def _cells(axes: Axes, tables: Tables, rows: pd.DataFrame, ranks: list[int], room: float) -> None:
    """room: of a cell, in points."""
    rate, norm = tables.rate(), Normalize(0, 1)
    cells = np.full((len(ranks), len(ranks)), np.nan)
    for _, row in rows.iterrows():
        x, y = ranks.index(row.ranks[0]), ranks.index(row.ranks[-1])
        cells[y, x], color = row[rate], contrast(_COLOURS, row[rate])
        place = (x - 0.5, y - 0.5), 1, 1
        if row.effective_rank < row.k:
            axes.add_patch(Rectangle(*place, edgecolor=color, **_NEAR))
        if row.combination in tables.picked:
            outline = {"facecolor": "none", "edgecolor": VERMILLION, "linewidth": 2, "zorder": 3, "clip_on": False}
            axes.add_patch(Rectangle(*place, **outline))
        if room >= _ROOM:
            text = f"{100 * row[rate]:.0f}{'*' if row.p < LEVEL else ''}"
            size = min(8, 0.42 * room)
            look = {"color": color, "fontsize": size, "zorder": 4}
            if row.effective_rank < row.k:  # the hatch would strike it through
                look["bbox"] = {"facecolor": _COLOURS(row[rate]), "edgecolor": "none", "pad": 1}
            axes.text(x, y, text, ha="center", va="center_baseline", **look)
    edges = np.arange(len(ranks) + 1) - 0.5
    look = {"cmap": _COLOURS, "norm": norm, "edgecolors": "face", "linewidth": 0.2}
    drawn = axes.pcolormesh(edges, edges, np.ma.masked_invalid(cells), **look)
    bar = axes.figure.colorbar(drawn, ax=axes, pad=0.03, aspect=18, label="refused")
    bar.outline.set_visible(False)
    style.percent_axis(bar.ax.yaxis)
    bar.ax.plot(0.5, tables.row(tables.chosen["baseline"])[rate], color=FOREGROUND, clip_on=False, **_BASELINE)


_BASELINE = {"marker": "D", "markersize": 5, "markeredgecolor": "#ffffff", "linestyle": "none"}


def _handles(tables: Tables, rows: pd.DataFrame) -> list[Artist]:
    """What stands in the figure besides colours."""
    handles: list[Artist] = [Line2D([], [], color=FOREGROUND, label="without ablation", **_BASELINE)]
    if rows.combination.isin(tables.picked).any():
        look = {"facecolor": "none", "edgecolor": VERMILLION, "linewidth": 2}
        handles.append(Patch(**look, label="lowest bypass on val of its size"))
    if (rows.effective_rank < rows.k).any():
        handles.append(
            Patch(**_NEAR | {"linewidth": 0.5}, edgecolor=FOREGROUND, label="near-copies: one direction is ablated")
        )
    if (rows.p < LEVEL).any():
        handles.append(Line2D([], [], linestyle="none", label=f"*: {_TESTED}"))
    return handles


def _words(tables: Tables, rows: pd.DataFrame) -> tuple[str, str]:
    rate = tables.rate()
    pairs, others = rows[rows.k == 2], tables.ablations[tables.ablations.k > 2]
    copies = rows[rows.effective_rank < rows.k].combination
    caption = text(
        f"Share of harmful test prompts that {tables.judge} calls refused ({tables.n()}), in percent: singles on the"
        " diagonal, pairs below it; dark is little refusal left. A cell without colour was not ablated.",
        f"Of this study: {tables.roles(rate)}.",
        len(pairs) and f"Pairs leave {ranged(pairs[rate])}.",
        len(copies) and f"Of {listed(copies)}, near-copies, one direction was ablated and not two.",
        (rows.p < LEVEL).any() and f"A star: {_TESTED}.",
        rows.combination.isin(tables.picked).any() and "The outlined cells were chosen on val.",
        "The darkest of many cells on test looks better than it is.",
        "Not shown, but in the figure of refusals: intervals"
        + (f", and {counted(len(others), 'combination')} of three ranks or more." if len(others) else "."),
    )
    alt = (
        f"Matrix of the refusal rate under {counted(len(rows) - len(pairs), 'single')} and"
        f" {counted(len(pairs), 'pair')} of ranks: {tables.roles(rate)}."
    )
    return caption, alt
