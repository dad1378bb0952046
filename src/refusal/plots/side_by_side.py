"""Several models side by side: refusals without ablation, under the best single and under the best pair."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from refusal.headline import chosen
from refusal.plots import style
from refusal.plots.style import SMALL

_ROLES = {"baseline": "no ablation", "best_single": "best single on val", "best_pair": "best pair on val"}
_APART = 0.24  # of a model's row, between its marks
_ROW = 0.48  # inches


@style.in_style
def draw(tables: Mapping[str, tuple[pd.DataFrame, str]]) -> Figure:
    """See `refusal.plots.compare`."""
    figure = style.new_figure(_ROW * len(tables) + 0.9)
    axes = figure.subplots()
    marks, judges = {}, [judge for _, judge in tables.values()]
    for number, (model, (table, judge)) in enumerate(tables.items()):
        column = f"harmful_{judge}_refusal_rate"
        if column not in table or table[column].isna().all():
            axes.text(0.5, number, f"not judged by {judge}", ha="center", va="center", fontsize=SMALL)
            continue
        for offset, (role, found) in enumerate(chosen(table).items(), -1):
            for _, row in found[found[column].notna()].iterrows():
                place = number + offset * _APART
                said = f"{model}, {row.combination}: {row[column]:.0%} refused, by {judge}"
                style.put(axes, row, column, place, said, filled=True)
                marks[role] = style.mark_of(row)
                if role != "baseline":
                    axes.annotate(row.combination, (1.06, place), va="center", fontsize=SMALL, annotation_clip=False)
    style.percent_axis(axes.xaxis)
    axes.set(xlim=(-0.04, 1.04), ylim=(len(tables) - 0.5, -0.5), xlabel="harmful test prompts refused")
    names = (
        tables
        if len(set(judges)) == 1
        else [f"{model}\nby {judge}" for model, judge in zip(tables, judges, strict=True)]
    )
    axes.set_yticks(range(len(tables)), names)
    axes.tick_params(axis="y", length=0)
    axes.hlines([number - 0.5 for number in range(1, len(tables))], -0.04, 1.04, color=style.GREY, alpha=0.3, lw=0.5)
    handles = [
        Line2D([], [], label=_ROLES[role], **style.drawn_as(marks[role], True)) for role in _ROLES if role in marks
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
