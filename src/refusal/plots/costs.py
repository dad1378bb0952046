"""What ablations cost beside what they remove: compliance against CE deltas and KL."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from refusal.plots import style
from refusal.plots.style import FOREGROUND, Drawn
from refusal.plots.tables import UNKNOWN, Tables, counted, listed, text
from refusal.summary import corpus_of, cost_columns

_TITLE = "Harmful test prompts complied with, against what the ablation costs"
_KL = "kl"
_LINEAR = 0.01
"""Nats: the scale is linear within this and logarithmic beyond, where costs differ by magnitudes."""

_NARROW = 0.05  # nats; smaller costs stand on a linear scale
_MANY = 60  # combinations; of more, the intervals are faint


@style.in_style
def draw(tables: Tables) -> Drawn:
    up, rows = tables.rate(verdict="compliance"), tables.ablated
    costs = [*cost_columns(rows), _KL]
    shown = [
        cost for cost in costs if up in rows and rows.loc[rows.kind != "none", [cost, up]].notna().all(axis=1).any()
    ]
    if not shown:
        return style.in_words(_TITLE, "No ablation has both verdicts on harmful prompts and a cost (CE or KL).")
    lines = -(-len(shown) // 2)
    figure = style.new_figure(2.3 * lines + 0.8)
    panels = figure.subplots(lines, min(2, len(shown)), sharey=True, squeeze=False).flatten()
    for axes, cost in zip(panels, shown, strict=False):
        _panel(axes, tables, cost, up)
    for axes in panels[len(shown) :]:
        axes.remove()
    for axes in panels[::2]:
        axes.set_ylabel("complied with")
    put = rows[rows[up].notna() & rows[shown].notna().any(axis=1)]
    style.legend(figure, put, chosen=bool(tables.picked & set(put.combination)))
    return Drawn(figure, _TITLE, *_words(tables, shown, up))


def _panel(axes: Axes, tables: Tables, cost: str, up: str) -> None:
    rows = tables.ablated
    style.percent_axis(axes.yaxis)
    axes.set(ylim=(-0.04, 1.06), title=_named(cost), xlabel="nats" if cost == _KL else "nats per token")
    known = rows[rows[cost].notna() & rows[up].notna()]
    if known[cost].abs().max() > _NARROW:
        axes.set_xscale("symlog", linthresh=_LINEAR, linscale=0.6)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    axes.axvline(0, color=FOREGROUND, linewidth=0.8, linestyle=":", zorder=0)
    for _, row in known.iterrows():
        name = row.combination
        said = f"{name}: {tables.said(name, up)} complied with, {row[cost]:+z.4f} nats"
        filled = name in tables.picked
        style.put(axes, row, cost, up, said, filled=filled, faint=len(known) > _MANY and not filled)
    style.name_points(axes, known[known.combination.isin(tables.picked)], cost, up)


def _named(cost: str) -> str:
    return "KL on harmless val prompts" if cost == _KL else f"CE on {corpus_of(cost)}, above none"


def _words(tables: Tables, shown: list[str], up: str) -> tuple[str, str]:
    roles = [tables.chosen[role] for role in ("best_single", "best_pair") if role in tables.chosen]
    found = [
        f"{name} complies with {tables.said(name, up)}; "
        + listed(f"{_short(cost)} {_cost(tables.row(name), cost)}" for cost in shown)
        for name in roles
    ]
    unbounded = [cost for cost in shown if tables.ablated[f"{cost}_low"].isna().all()]
    caption = text(
        f"Each mark is an ablation or a control: the share of harmful test prompts that {tables.judge} calls complied"
        f" with (attack success, {tables.n()}), against what it costs elsewhere: cross-entropy above that without"
        " ablation, and KL of the next token. Up is what ablation is for; to the right is what it should not cost.",
        "Lines: 95% intervals, Wilson's of rates, bootstrap over texts (CE) and val prompts (KL) of costs"
        + (f"; without: {listed(map(_short, unbounded))}." if unbounded else "."),
        found and f"Chosen on val: {'. '.join(found)}.",
        f"Scales that reach far are linear up to {_LINEAR:g} nats and logarithmic beyond.",
        "Not shown: additions and subtractions, which ablate nothing; capabilities beyond CE; whether a response that"
        " is no refusal helps with anything.",
    )
    alt = (
        f"Scatter of compliance with harmful prompts against {listed(map(_short, shown))} for"
        f" {counted(len(tables.ablated), 'combination')}: {tables.roles(up)}."
    )
    return caption, alt


def _short(cost: str) -> str:
    return "KL" if cost == _KL else f"CE on {corpus_of(cost)}"


def _cost(row: pd.Series, cost: str) -> str:
    """+0.0021 (95% -0.0002 to +0.0044)."""
    if pd.isna(row[cost]):
        return UNKNOWN
    low, high = row[f"{cost}_low"], row[f"{cost}_high"]
    return f"{row[cost]:+z.4f}" + ("" if pd.isna(low) else f" (95% {low:+z.4f} to {high:+z.4f})")
