"""Cosines between the ranked directions: which of them are copies of each other."""

from math import sqrt

import matplotlib
import numpy as np
from matplotlib.colors import Normalize

from refusal.combinations import parse
from refusal.directions import MIN_RESIDUAL
from refusal.plots import style
from refusal.plots.style import Drawn, contrast
from refusal.plots.tables import Tables, counted, listed, places, text

_TITLE = "Cosines between the ranked directions"
_COLOURS = matplotlib.colormaps["PuOr"]  # diverging, and told apart by colour-blind readers
_LEAST, _MOST = 10, 40
"""Ranks: all up to the highest that a combination names, but not fewer and not more than these."""

_CELL = 0.45  # inches, at most
_ROOM = 13.0  # points, of a cell that has a number
_NEAR = 0.9
"""|cosine| from which the words call two directions near-copies."""

_SAME = sqrt(1 - MIN_RESIDUAL**2)
"""|cosine| above which a basis of both has one row."""


@style.in_style
def draw(tables: Tables) -> Drawn:
    ranked = int(tables.ranking["rank"].notna().sum())
    if ranked < 2:
        return style.in_words(_TITLE, "One candidate is ranked, so there are no two directions to compare.")
    named = max((rank for name in tables.summary.combination for rank in parse(name).ranks), default=0)
    count = min(ranked, max(named + 1, _LEAST), _MOST)
    values = np.eye(count)
    pairs = tables.cosines[tables.cosines[["rank", "other"]].max(axis=1) < count]
    values[pairs["rank"], pairs.other] = values[pairs.other, pairs["rank"]] = pairs.cosine
    side = min(style.WIDTH - 1.9, max(1.5, _CELL * count))
    room = 72 * side / count
    figure = style.new_figure(side + 0.6, square=True)
    axes = figure.subplots()
    axes.set_box_aspect(1)
    norm, edges = Normalize(-1, 1), np.arange(count + 1) - 0.5
    drawn = axes.pcolormesh(edges, edges, values, cmap=_COLOURS, norm=norm, edgecolors="face", linewidth=0.2)
    if room >= _ROOM:
        look = {"ha": "center", "va": "center_baseline", "fontsize": min(8, 0.3 * room)}
        for y, x in np.ndindex(values.shape):
            number = f"{values[y, x]:.2f}".replace("-", "−").replace("0.", ".")
            axes.text(x, y, number, color=contrast(_COLOURS, norm(values[y, x])), **look)
    bar = figure.colorbar(drawn, ax=axes, pad=0.03, aspect=18, label="cosine")
    bar.outline.set_visible(False)
    bar.set_ticks([-1, -0.5, 0, 0.5, 1], labels=["−1", "−0.5", "0", "0.5", "1"])
    axes.set_yticks(range(count), places(tables.ranking, range(count)))
    axes.set_xticks(range(count), map(str, range(count)))
    axes.tick_params(axis="x", labelsize=min(8, 0.6 * room))
    axes.tick_params(axis="y", labelsize=min(8, 0.75 * room))
    axes.set(ylim=(count - 0.5, -0.5), xlabel="rank", ylabel="rank (position, layer)")
    return Drawn(figure, _TITLE, *_words(tables, values, ranked))


def _words(tables: Tables, values: np.ndarray, ranked: int) -> tuple[str, str]:
    count = len(values)
    rows, columns = np.triu_indices(count, 1)
    sizes = np.abs(values[rows, columns])
    near, order = int((sizes >= _NEAR).sum()), np.argsort(sizes, kind="stable")
    least = order[0]
    pairs = tables.ablations[(tables.ablations.k == 2) & (tables.ablations.effective_rank == 2)]
    apart = pairs.combination[pairs.max_cosine >= _NEAR]
    where = f" (near-copies ablated as two: {listed(apart)})" if len(apart) else ""
    caption = text(
        f"Cosine between the directions of two ranks, of the first {count} of {ranked}. Near 1 or -1 two ranks are one"
        " direction found at two places; near 0 they are independent.",
        f"Ablating both ablates one direction where |cosine| is above {_SAME:.4f}; below, what they differ by is"
        f" ablated too, and may do more than either{where}.",
        f"A |cosine| of {_NEAR:g} or more: {near} of {counted(len(sizes), 'pair')}; the least alike are"
        f" {rows[least]} and {columns[least]} ({values[rows[least], columns[least]]:+.2f}).",
        "Candidates of neighbouring layers and positions are mostly alike, so that the first ranks may be copies of the"
        " best one (`ranking.mode: diverse` takes the next unlike those taken).",
        "Not shown: what a direction does, and how long it is; two that differ may still act on the same thing.",
    )
    alt = (
        f"Matrix of cosines between the first {count} ranked directions: a |cosine| of"
        f" {_NEAR:g} or more in {near} of {counted(len(sizes), 'pair')}."
    )
    return caption, alt
