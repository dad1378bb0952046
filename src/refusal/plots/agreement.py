"""How far judges agree, and whether another one would tell the same of each combination."""

import pandas as pd
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from refusal.agreement.table import ALL
from refusal.plots import style
from refusal.plots.style import BLUE, FOREGROUND, GREEN, ORANGE, PURPLE, SMALL, VERMILLION, Drawn, Mark
from refusal.plots.tables import Tables, counted, listed, text

_TITLE = "Agreement of the judges"
_SETS = {
    ALL: Mark("D", FOREGROUND, "all sets"),
    "harmful": Mark("o", VERMILLION, "harmful"),
    "harmless": Mark("s", BLUE, "harmless"),
    "borderline": Mark("^", GREEN, "borderline"),
}
_OTHERS = (
    Mark("o", BLUE, ""),
    Mark("s", VERMILLION, ""),
    Mark("^", GREEN, ""),
    Mark("D", PURPLE, ""),
    Mark("v", ORANGE, ""),
)
_ROW = 0.5  # inches


@style.in_style
def draw(tables: Tables) -> Drawn:
    if tables.agreement is None:
        return style.in_words(
            _TITLE, f"{tables.judge} is the only judge of this study, so there is no agreement to show."
        )
    pairs = tables.agreement[tables.agreement.raters == 2]
    others = _others(tables)
    count = len(pairs[["first", "second"]].drop_duplicates())
    height, below = _ROW * count + 0.9, 2.5 if others else 0.0
    figure = style.new_figure(height + below)
    parts = figure.subfigures(2, 1, height_ratios=[height, below], squeeze=False)[:, 0] if others else [figure]
    _figures(parts[0], pairs)
    if others:
        _same(parts[1], tables, others)
    return Drawn(figure, _TITLE, *_words(tables, pairs, others))


def _figures(figure: SubFigure, pairs: pd.DataFrame) -> None:
    """Agreement and kappa of each pair of raters, on each set."""
    panels = figure.subplots(1, 2, sharey=True)
    names = list(dict.fromkeys(zip(pairs["first"], pairs.second, strict=True)))
    sets = [one for one in _SETS if (pairs["set"] == one).any()]
    for axes, column in zip(panels, ("agreement", "kappa"), strict=True):
        for _, row in pairs[pairs[column].notna()].iterrows():
            y = names.index((row["first"], row.second)) + (sets.index(row["set"]) - (len(sets) - 1) / 2) * 0.18
            mark = _SETS[row["set"]]
            said = f"{row['first']} and {row.second}, {row['set']}: {column} {row[column]:.2f}, n = {row.valid}"
            axes.plot([row[f"{column}_low"], row[f"{column}_high"]], [y, y], color=mark.color, linewidth=1.0)
            axes.plot(row[column], y, gid=style.TOOLTIP + said, **style.drawn_as(mark, row["set"] == ALL))
        axes.grid(axis="x", color=style.GREY, alpha=0.25, linewidth=0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
    style.percent_axis(panels[0].xaxis)
    panels[0].set(xlim=(min(0.5, pairs.agreement_low.min()) - 0.02, 1.02), title="same verdict")
    panels[1].set(xlim=(min(0.0, pairs.kappa_low.min()) - 0.04, 1.04), title="Cohen's kappa")
    panels[0].set_yticks(range(len(names)), [f"{first}\n{second}" for first, second in names])
    for axes in panels:
        axes.tick_params(axis="y", length=0, labelsize=SMALL)
    handles = [Line2D([], [], label=_SETS[one].label, **style.drawn_as(_SETS[one], one == ALL)) for one in sets]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)


def _others(tables: Tables) -> list[str]:
    """Other judges that have verdicts on harmful prompts, where the first has."""
    if tables.rate() not in tables.summary:
        return []
    start, end = "harmful_", "_refusal_rate"
    columns = [column for column in tables.summary if column.startswith(start) and column.endswith(end)]
    judges = [column.removeprefix(start).removesuffix(end) for column in columns]
    return [judge for judge in judges if judge != tables.judge]


def _same(figure: SubFigure, tables: Tables, others: list[str]) -> None:
    """The refusal rate of each combination by other judges, against that by the first."""
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=FOREGROUND, linewidth=0.8, linestyle=":", zorder=0)
    for judge, mark in zip(others, _OTHERS * len(others), strict=False):
        column = f"harmful_{judge}_refusal_rate"
        for _, row in tables.summary.dropna(subset=[tables.rate(), column]).iterrows():
            said = f"{row.combination}: {row[tables.rate()]:.0%} by {tables.judge}, {row[column]:.0%} by {judge}"
            axes.plot(
                row[tables.rate()], row[column], gid=style.TOOLTIP + said, alpha=0.8, **style.drawn_as(mark, False)
            )
    for axis in (axes.xaxis, axes.yaxis):
        style.percent_axis(axis)
    axes.set(
        xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xlabel=f"harmful refused, by {tables.judge}", ylabel="by the other"
    )
    handles = [
        Line2D([], [], label=judge, **style.drawn_as(mark, False))
        for judge, mark in zip(others, _OTHERS * len(others), strict=False)
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0)


def _words(tables: Tables, pairs: pd.DataFrame, others: list[str]) -> tuple[str, str]:
    whole = pairs[pairs["set"] == ALL]
    found = [
        f"{row['first']} and {row.second} "
        + (f"{row.agreement:.1%}, " if pd.notna(row.agreement) else "")
        + (f"kappa {row.kappa:.2f} (n = {row.valid})" if pd.notna(row.kappa) else row.note)
        for _, row in whole.iterrows()
    ]
    apart = [f"{judge} {_apart(tables, judge)}" for judge in others]
    caption = text(
        "How often two judges give the same verdict on the same response, and Cohen's kappa: 0 where they agree as by"
        " chance, 1 where always. The second is the reference where it is an oracle or a person. Lines: 95% intervals"
        " over prompts; kappa has none where they never differ, or a label is too rare.",
        f"Over all sets: {listed(found)}.",
        apart
        and f"Below, a mark a combination: harmful test prompts refused by another judge, against those by"
        f" {tables.judge}, whose verdicts all other figures rest on; on the dotted line they are as many. Furthest"
        f" apart: {listed(apart)}.",
        "Above, responses without a valid verdict on both sides are left out; below, they count as not refused. Not"
        " shown: which judge is right; judges that share a list of phrases err together.",
    )
    alt = f"Agreement and Cohen's kappa of {counted(len(whole), 'pair')} of judges over all sets: {listed(found)}."
    return caption, alt


def _apart(tables: Tables, judge: str) -> str:
    """By how many points at most a judge's refusal rates differ from the first one's."""
    differences = tables.summary[f"harmful_{judge}_refusal_rate"] - tables.summary[tables.rate()]
    return f"{100 * differences.abs().max():.0f} points"
