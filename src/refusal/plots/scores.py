"""Scores of candidates over position and layer, with the filters that they pass on the way to a rank."""

from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from refusal.directions import ZERO
from refusal.filters import FALLS, LATE, NAN, SWEPT
from refusal.plots.style import FOREGROUND, SMALL, WIDTH, Drawn, contrast, in_style, new_figure
from refusal.plots.tables import Tables, counted, listed, text
from refusal.ranking import UNSCORED

_COLOURS = matplotlib.colormaps["cividis"]
_TITLES = {
    "induce": "induce: refusal score of harmless prompts, direction added (high is good)",
    "kl": "kl: what ablating it changes on harmless prompts (low is good)",
    "bypass": "bypass: refusal score of harmful prompts, direction ablated (low is good); ranks",
}
_EMPTY = {"facecolor": "none", "edgecolor": FOREGROUND, "linewidth": 0.5}
_LEAST_KL = 1e-4  # nats; the scale is logarithmic above
_BESIDE = 0.25
"""Of a colour bar: a threshold nearer to its ends has a line and no label."""

_LEAST_SIZE = 4.5  # points
_WIDE = 40  # layers; more need a wider figure


class _Reason(NamedTuple):
    """Why candidates fall: the hatch of their cells, and the first panel that shows it."""

    hatch: str
    panel: str


_SIMILAR = "like a better one"
_REASONS = {
    ZERO: _Reason("----", "induce"),
    LATE: _Reason("////", "induce"),
    NAN: _Reason("++++", "induce"),
    FALLS["induce"]: _Reason("\\\\\\\\", "induce"),
    FALLS["kl"]: _Reason("xxxx", "kl"),
    UNSCORED: _Reason("||||", "kl"),
    _SIMILAR: _Reason("||", "bypass"),
}


@in_style
def draw(tables: Tables) -> Drawn:
    table = tables.ranking.assign(why=_reasons(tables.ranking.reason))
    layers = tables.filters.layers
    rows = sorted(set(zip(table.source, table.position, strict=True)))
    table["row"] = [rows.index(place) for place in zip(table.source, table.position, strict=True)]
    figure = new_figure(2.0 + 3 * max(0.45, 0.19 * len(rows)), WIDTH if layers <= _WIDE else 1.4 * WIDTH)
    panels = figure.subplots(3, 1, sharex=True)
    for axes, score in zip(panels, SWEPT, strict=True):
        _panel(axes, table, score, tables)
        axes.set_yticks(range(len(rows)), _names(rows))
        axes.set(xlim=(-0.5, layers - 0.5), ylim=(len(rows) - 0.5, -0.5), title=_TITLES[score], ylabel="position")
        if tables.filters.layer_limit < layers:
            axes.axvline(tables.filters.layer_limit - 0.5, color=FOREGROUND, linestyle="--", linewidth=1.0)
    panels[-1].set_xlabel("layer")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=16))
    found = [why for why in _REASONS if (table.why == why).any()]
    handles = [Patch(hatch=_REASONS[why].hatch, label=_label(why, tables, table), **_EMPTY) for why in found]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, handleheight=1.4, handlelength=2.2)
    return Drawn(figure, *_words(tables, table, found))


def _panel(axes: Axes, table: pd.DataFrame, score: str, tables: Tables) -> None:
    known = table[table[score].notna()]
    shown = known[score].clip(lower=_LEAST_KL) if score == "kl" else known[score]
    norm = (LogNorm if score == "kl" else Normalize)(shown.min(), shown.max())
    cells = np.full((table.row.max() + 1, tables.filters.layers), np.nan)
    cells[known.row, known.layer] = shown
    edges = [np.arange(count + 1) - 0.5 for count in reversed(cells.shape)]
    colours = axes.pcolormesh(*edges, np.ma.masked_invalid(cells), cmap=_COLOURS, norm=norm, edgecolors="face", lw=0.2)
    bar = axes.figure.colorbar(colours, ax=axes, pad=0.01, fraction=0.05, aspect=12, label="nats")
    bar.outline.set_visible(False)
    threshold = {"induce": tables.filters.min_induce, "kl": tables.filters.max_kl, "bypass": 0.0}[score]
    ticks = [shown.min(), shown.max()]
    if shown.min() < threshold < shown.max():
        bar.ax.plot([0, 1], [threshold] * 2, color=contrast(_COLOURS, norm(threshold)), linewidth=1.5)
        ticks += [threshold] if _BESIDE < norm(threshold) < 1 - _BESIDE else []
    bar.set_ticks(ticks, labels=[f"{tick:.2g}".replace("-", "−") for tick in ticks])
    bar.minorticks_off()
    reached = [why for why, reason in _REASONS.items() if SWEPT.index(reason.panel) <= SWEPT.index(score)]
    fallen = table[table.why.isin(reached)]
    on = pd.Series(FOREGROUND, fallen.index)  # of empty cells
    scored = fallen.index.intersection(known.index)
    on[scored] = [contrast(_COLOURS, norm(value)) for value in shown[scored]]
    for (why, colour), group in fallen.groupby(["why", on]):
        squares = [Rectangle((x - 0.5, y - 0.5), 1, 1) for x, y in zip(group.layer, group.row, strict=True)]
        hatch = _REASONS[why].hatch
        axes.add_collection(PatchCollection(squares, facecolor="none", edgecolor=colour, linewidth=0, hatch=hatch))
    if score == "bypass":
        _ranks(axes, table[table["rank"].notna()], norm, tables.filters.layers)


def _ranks(axes: Axes, ranked: pd.DataFrame, norm: Normalize, layers: int) -> None:
    """The rank in each cell where there is room; without a hatch it is ranked all the same."""
    cell = 0.8 * 72 * axes.figure.get_figwidth() / layers
    for _, row in ranked.iterrows():
        text = str(int(row["rank"]))
        size = min(SMALL, 1.4 * cell / len(text))
        if size >= _LEAST_SIZE:
            color = contrast(_COLOURS, norm(row.bypass))
            axes.text(row.layer, row.row, text, ha="center", va="center_baseline", fontsize=size, color=color)


def _reasons(reasons: pd.Series) -> list[str]:
    """The first filter that each candidate falls by; empty for those that are ranked."""
    first = reasons.fillna("").str.split("; ").str[0]
    return [why if why in _REASONS or not why else _SIMILAR for why in first]


def _names(rows: list[tuple[str, int]]) -> list[str]:
    """Positions, with the source where there are several."""
    several = len({source for source, _ in rows}) > 1
    return [f"{source} {position}" if several else str(position).replace("-", "−") for source, position in rows]


def _label(why: str, tables: Tables, table: pd.DataFrame) -> str:
    bounds = {
        LATE: f", layer ≥ {tables.filters.layer_limit}",
        FALLS["induce"]: f", < {tables.filters.min_induce:g}",
        FALLS["kl"]: f", > {tables.filters.max_kl:g}",
    }
    return f"{why}{bounds.get(why, '')} ({(table.why == why).sum()})"


def _words(tables: Tables, table: pd.DataFrame, found: list[str]) -> tuple[str, str, str]:
    ranked = table[table["rank"].notna()].sort_values("rank")
    best = ranked.iloc[0]
    falls = found and listed(f"{(table.why == why).sum()} ({why})" for why in found)
    limit, layers = tables.filters.layer_limit, tables.filters.layers
    empty = int(table[list(SWEPT)].isna().any(axis=1).sum())
    title = "Scores of candidate directions over position and layer, and the filters"
    caption = text(
        "Each cell is a candidate: the difference of mean activations between harmful and harmless train prompts at a"
        f" position and layer. Of {len(table)}, {len(ranked)} are ranked" + (f"; {falls} fall." if falls else "."),
        "Read from above: each panel hatches those that have fallen by then, by their first reason; what is left at the"
        " bottom is ranked, and the numbers are the ranks that combinations name.",
        empty
        and f"Without colour: not scored ({counted(empty, 'candidate')}), since there is no direction, or since"
        " the sweep stops at the first filter that a candidate misses.",
        limit < layers and f"Dashed: layers from {limit} on, of {layers}, are too late.",
        "Lines in the colour bars: thresholds; of bypass 0, below which a refusal is less likely than not to start.",
        f"Rank 0 is position {best.position}, layer {best.layer}: bypass {best.bypass:.2f}, induce {best.induce:.2f},"
        f" kl {best.kl:.2g} nats.",
        "Means over val prompts, without intervals: neighbours in rank may differ by chance. Not shown: test prompts,"
        " and what becomes of whole responses.",
    )
    alt = (
        f"Three heat maps over position and layer, of induce, kl and bypass scores: {len(ranked)} of {len(table)}"
        f" candidates are ranked, the best at position {best.position}, layer {best.layer}."
    )
    return title, caption, alt
