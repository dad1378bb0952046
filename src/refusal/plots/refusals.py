"""Refusals under each combination, with intervals, on every prompt set."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from refusal.combinations import BASELINE, CONTROLS
from refusal.measured import ADDED
from refusal.narration import controlled
from refusal.plots import style
from refusal.plots.style import FOREGROUND, Drawn
from refusal.plots.tables import Tables, counted, listed, ranged, text

_TITLE = "Prompts refused under each combination"
_MOST = 40
"""Ablations that have a row of their own; of more, those with the lowest bypass on val beside all singles."""

_ROW = 0.155  # inches
_CROWD = 10  # in a row
_GAP = 0.6  # rows, between groups
_SPREAD = 0.22  # rows, between the draws of a control

_Row = tuple[str, pd.DataFrame]
"""A name, and the combinations that stand in that row."""


@style.in_style
def draw(tables: Tables) -> Drawn:
    sets = [prompts for prompts in tables.sets if tables.summary[tables.rate(prompts)].notna().any()]
    if not sets:
        return style.in_words(_TITLE, f"{tables.judge} has judged no responses.")
    judged = tables.summary[tables.summary[[tables.rate(prompts) for prompts in sets]].notna().any(axis=1)]
    groups = [group for group in _groups(replace(tables, summary=judged)) if group]
    heights, names, y = {}, {}, 0.0
    for group in groups:
        for name, rows in group:
            names[y] = name
            heights[y] = rows
            y += 1
        y += _GAP
    figure = style.new_figure(_ROW * y + 1.2)
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for axes, prompts in zip(panels, sets, strict=True):
        for place, rows in heights.items():
            _put(axes, tables, prompts, place, rows)
        baseline = tables.row(BASELINE).get(tables.rate(prompts))
        if pd.notna(baseline):
            axes.axvline(baseline, color=FOREGROUND, linewidth=0.8, linestyle=":", zorder=0)
        style.percent_axis(axes.xaxis, 0.5)
        axes.set(xlim=(-0.04, 1.04), ylim=(y - _GAP - 0.4, -0.6), title=f"{prompts} ({tables.n(prompts)})")
        axes.grid(axis="y", color=style.GREY, alpha=0.25, linewidth=0.5)
    panels[0].set_yticks(list(names), list(names.values()))
    for label in panels[0].get_yticklabels():
        if label.get_text() in tables.picked:
            label.set_fontweight("bold")
    for axes in panels:
        axes.tick_params(axis="y", length=0)
    panels[len(panels) // 2].set_xlabel("refused")
    style.legend(figure, judged, chosen=bool(tables.picked & set(judged.combination)))
    return Drawn(figure, _TITLE, *_words(tables, sets))


def _groups(tables: Tables) -> Iterator[list[_Row]]:
    """The rows, in groups: baseline, ablations by size, controls, additions and subtractions."""
    summary, ablations = tables.summary, tables.ablations
    yield [_one(row) for _, row in summary[summary.kind == "none"].iterrows()]
    shown = _shown(ablations)
    for _, group in ablations[shown].groupby("k", sort=True):
        yield [_one(row) for _, row in group.iterrows()]
    if not shown.all():
        yield [(f"{(~shown).sum()} others", ablations[~shown])]
    yield [
        (f"{size} {kind}", rows)
        for kind in CONTROLS
        for size, rows in summary[summary.kind == kind].groupby("k", sort=True)
    ]
    yield [_one(row) for _, row in summary[summary.kind.isin(ADDED)].iterrows()]


def _one(row: pd.Series) -> _Row:
    return row.combination, row.to_frame().T


def _shown(ablations: pd.DataFrame) -> pd.Series:
    """Which have a row of their own: all, or as many as there is room for, singles first, then by bypass on val."""
    order = np.lexsort((ablations.bypass, ablations.k > 1))
    return pd.Series(order.argsort() < _MOST, ablations.index)


def _put(axes: Axes, tables: Tables, prompts: str, place: float, rows: pd.DataFrame) -> None:
    """A row's marks; of many in one row, a tick each."""
    column = tables.rate(prompts)
    if len(rows) > _CROWD:
        axes.plot(rows[column], [place] * len(rows), "|", color=style.GREY, markersize=8, alpha=0.6)
        return
    for number, (_, row) in enumerate(rows.iterrows()):
        said = f"{row.combination}: {tables.said(row.combination, column)} of {prompts} refused"
        shift = (number - (len(rows) - 1) / 2) * min(_SPREAD, 0.7 / len(rows))
        style.put(axes, row, column, place + shift, said, filled=row.combination in tables.picked)


def _words(tables: Tables, sets: list[str]) -> tuple[str, str]:
    rows, rate = tables.summary, tables.rate()
    roles = tables.roles(rate) if "harmful" in sets else ""
    controls = tables.controls
    ranges = [
        f"{ranged(group[rate])} under {controlled(kind, size)}"
        for kind in CONTROLS
        for size, group in controls[controls.kind == kind].groupby("k")
        if rate in group and group[rate].notna().any()
    ]
    added = [
        f"{tables.said(row.combination, tables.rate('harmless'))} under {row.combination}"
        for _, row in rows[rows.kind == "addition"].iterrows()
        if tables.rate("harmless") in rows
    ]
    invalid = {prompts: rows[tables.rate(prompts, "invalid")].max() for prompts in sets}
    worst = max(invalid, key=invalid.get)
    hidden = int((~_shown(tables.ablations)).sum())
    caption = text(
        f"Share of test prompts that {tables.judge} calls refused, with Wilson 95% intervals:"
        f" {listed(f'{prompts} ({tables.n(prompts)})' for prompts in sets)}. Ablations stand"
        " by number of ranks, then by bypass on val, the lowest first; dotted: without ablation.",
        roles and f"Harmful prompts refused: {roles}.",
        ranges and f"Controls leave {listed(ranges)}: an ablation that does no better shows nothing.",
        added and f"Harmless prompts refused when a direction is added: {listed(added)}.",
        hidden and f"{counted(hidden, 'other ablation')}, with higher bypass on val, stand in one row.",
        tables.picked and "Filled marks and bold names were chosen on val.",
        "The best of many rows on test looks better than it is.",
        "Not shown: tests of differences, on the same prompts, which stand in the summary.",
        "No verdict is invalid."
        if not invalid[worst]
        else f"Invalid verdicts count as not refused: at most {invalid[worst]:.0%} ({worst}).",
    )
    alt = f"Refusal rates with intervals of {counted(len(rows), 'combination')} on {listed(sets)} test prompts"
    return caption, f"{alt}: {roles}." if roles else f"{alt}."
