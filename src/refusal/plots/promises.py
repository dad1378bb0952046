"""What val prompts promised of each combination, and what test prompts show."""

from math import isnan, nan

import pandas as pd
from matplotlib.axes import Axes

from refusal.plots import style
from refusal.plots.style import FOREGROUND, Drawn
from refusal.plots.tables import Tables, counted, listed, text

_TITLE = "Refusals on test, against what val promised"
_PANELS = {"bypass": "by bypass", "val_refused": "by refusals on val"}
_ENDS = ("", "_low", "_high")
_MANY = 60  # combinations; of more, the intervals are faint


@style.in_style
def draw(tables: Tables) -> Drawn:
    up, rows = tables.rate(), tables.ablated
    shown = [column for column in _PANELS if up in rows and _known(tables, column).any()]
    if not shown:
        return style.in_words(_TITLE, "No combination has both verdicts on harmful prompts and scores on val prompts.")
    figure = style.new_figure(3.4)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, shown, strict=True):
        _panel(axes, tables, column)
    style.percent_axis(panels[0].yaxis)
    panels[0].set(ylim=(-0.04, 1.06), ylabel="refused, harmful test prompts")
    put = rows[pd.concat([_known(tables, column) for column in shown], axis=1).any(axis=1)]
    style.legend(figure, put, chosen=bool(tables.picked & set(put.combination)))
    return Drawn(figure, _TITLE, *_words(tables, shown))


def _known(tables: Tables, column: str) -> pd.Series:
    return tables.ablated[[column, tables.rate()]].notna().all(axis=1)


def _panel(axes: Axes, tables: Tables, column: str) -> None:
    up, known = tables.rate(), tables.ablated[_known(tables, column)]
    axes.set_title(_PANELS[column])
    if column == "val_refused":
        style.percent_axis(axes.xaxis, 0.5)
        axes.set(xlim=(-0.04, 1.04), xlabel="harmful val prompts, score > 0")
        axes.plot([0, 1], [0, 1], color=FOREGROUND, linewidth=0.8, linestyle=":", zorder=0)
    else:
        axes.set_xlabel("mean score on val, nats")
        axes.axvline(0, color=FOREGROUND, linewidth=0.8, linestyle=":", zorder=0)
    for _, row in known.iterrows():
        name = row.combination
        said = f"{name}: {tables.said(name, up)} refused on test, bypass {row.bypass:.2f} on val"
        filled = name in tables.picked
        style.put(axes, row, column, up, said, filled=filled, faint=len(known) > _MANY and not filled)
    style.name_points(axes, known[known.combination.isin(tables.picked)], column, up)


def _words(tables: Tables, shown: list[str]) -> tuple[str, str]:
    up = tables.rate()
    known = tables.ablations[tables.ablations[["bypass", up]].notna().all(axis=1)]
    order = known.bypass.rank().corr(known[up].rank()) if len(known) > 2 else nan
    gaps = [
        f"{name} {100 * gap:+z.1f} points (95% {100 * low:+z.1f} to {100 * high:+z.1f})"
        for name in sorted(tables.picked)
        for gap, low, high in [(tables.row(name).get(f"harmful_{tables.judge}_gap{end}", nan) for end in _ENDS)]
        if not isnan(gap)
    ]
    caption = text(
        f"Each mark is an ablation or a control: the share of harmful test prompts that {tables.judge} calls refused"
        f" ({tables.n()}), against what val prompts say of it, which ranked candidates and chose combinations.",
        "bypass" in shown and "Bypass: 0 is where a refusal is as likely to start as not; below it few should be left.",
        "val_refused" in shown and "On the dotted diagonal test holds what val promised; above it more is left.",
        not isnan(order)
        and f"Over {counted(len(known), 'ablation')} Spearman's rho of bypass and refusals on test is {order:.2f}.",
        gaps and f"Of the refusals without ablation, left on test beyond what val promised: {listed(gaps)}.",
        "Lines: 95% intervals, bootstrap of scores, Wilson's of rates on test; none of those on val. Combinations share"
        " directions and prompts, so rho has no test. Scores look at the first token of a response, judges at all of"
        " it.",
    )
    agreeing = "" if isnan(order) else f" Spearman's rho of bypass and refusals is {order:.2f} over ablations."
    alt = f"Scatter of refusals on test prompts against scores on val prompts: {tables.roles(up)}.{agreeing}"
    return caption, alt
