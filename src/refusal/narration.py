"""The summary table in plain words: findings with their intervals, and what they do not show."""

import pandas as pd

from refusal.combinations import BASELINE
from refusal.measured import HARDLY
from refusal.summary import cost_columns, judged_sets

_UNKNOWN = "a share that was not measured"

_CONTROLS = {"random": "{} random direction{}", "shuffled": "{} direction{} of shuffled labels"}


def narrate(table: pd.DataFrame, name: str, judge: str) -> str:
    """What the table says, in Markdown: findings with their intervals, then the main columns.

    What was not measured is said so, or left out of the table.
    """
    rows = table.set_index("combination")
    rate = f"harmful_{judge}_refusal"
    baseline = rows.loc[BASELINE]
    lines = [f"# {name}", "", f"Judge: {judge}. Rates carry Wilson 95% intervals, CE deltas bootstrap ones.", ""]
    lines.append(f"- Without ablation the model refuses {_said(baseline, rate)} of the harmful test prompts.")
    if _known(baseline, rate) and baseline[f"{rate}_high"] < HARDLY:
        lines.append(
            "- **It hardly refuses by itself**: there is little refusal for an ablation to remove, so differences"
            " between combinations below are no evidence of what mediates refusal."
        )
    for prompts in judged_sets(rows, judge):
        if prompts != "harmful":
            said = _said(baseline, f"{prompts}_{judge}_refusal")
            lines.append(f"- It refuses {said} of the {prompts} ones (over-refusal).")
    lines += _chosen(rows, rate, judge)
    for (kind, size), group in rows[rows.kind.isin(_CONTROLS)].groupby(["kind", "k"]):
        values = ", ".join(_cell(row.get(f"{rate}_rate"), ".0%") or _UNKNOWN for _, row in group.iterrows())
        lines.append(f"- Control: {controlled(kind, size)} ablated leaves {values} (one per draw).")
    for index, row in rows[rows.kind == "addition"].iterrows():
        said = _said(row, f"harmless_{judge}_refusal")
        lines.append(f"- Adding the direction of rank {index[4:]} makes it refuse {said} of the harmless prompts.")
    for index, row in rows[rows.kind == "subtraction"].iterrows():
        said = _said(row, rate)
        lines.append(f"- Subtracting the direction of rank {index[4:]} leaves {said} of the harmful prompts refused.")
    shares = {
        prompts: rows[f"{prompts}_{judge}_invalid_rate"] * rows[f"{prompts}_n"] for prompts in judged_sets(rows, judge)
    }
    invalid = {prompts: round(float(share.sum())) for prompts, share in shares.items()}
    counts = ", ".join(f"{count} on {prompts}" for prompts, count in invalid.items())
    lines.append(f"- Invalid verdicts, all combinations: {counts or 'no verdicts at all'}.")
    low = rows[(rows.effective_rank < rows.k) & (rows.kind == "ablation") & (rows.ablation == "span")]
    if len(low):
        lines.append(
            f"- Nearly parallel candidates: the effective rank of {', '.join(low.index)} is below k,"
            " so fewer directions were ablated than named."
        )
    return "\n".join([*lines, "", *_table(table, judge), ""])


def controlled(kind: str, size: int) -> str:
    """What a control ablates: 2 random directions."""
    return _CONTROLS[kind].format(size, "s" * (size > 1))


def _chosen(rows: pd.DataFrame, rate: str, judge: str) -> list[str]:
    ablations = rows[rows.kind == "ablation"]
    lines = []
    single = ablations[ablations.best_single]
    if len(single):
        name, row = single.index[0], single.iloc[0]
        lines.append(f"- The best single on val, {name}, leaves {_said(row, rate)} refused{_promised(row, judge)}.")
    if ablations.bypass.isna().all():
        return lines
    best = ablations.bypass.idxmin()
    if not len(single) or best != single.index[0]:
        row = ablations.loc[best]
        adjusted, pairs = (row.get(f"harmful_{judge}_{what}_vs_best_single") for what in ("p_holm", "pairs"))
        tested = (
            f"; against the best single p = {adjusted:.2g} (Holm, {int(pairs)} pairs)" if pd.notna(adjusted) else ""
        )
        lines.append(
            f"- The best combination on val, {best}, leaves {_said(row, rate)}{tested}{_promised(row, judge)}."
        )
    elif len(ablations) > len(single):
        lines.append("- No other combination has a lower bypass score on val than the best single.")
    return lines


def _promised(row: pd.Series, judge: str) -> str:
    """How much more is left on test than val promised."""
    gap = f"harmful_{judge}_gap"
    if pd.isna(row.get(gap)):
        return ""
    low, high = (100 * row[f"{gap}_{side}"] for side in ("low", "high"))
    return f"; of the refusals, {100 * row[gap]:+.1f} points against what val promised (95% {low:+.1f} to {high:+.1f})"


def _span(row: pd.Series, column: str, form: str) -> str:
    """The bounds of a figure in brackets; nothing where it has none."""
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return "" if pd.isna(low) else f" ({low:{form}} to {high:{form}})"


def _table(table: pd.DataFrame, judge: str) -> list[str]:
    rates = [f"{name}_{judge}_refusal_rate" for name in judged_sets(table, judge)]
    deltas = cost_columns(table)
    refused = [f"{column.split('_')[0]} refused" for column in rates]
    heads = ["combination", "k", "effective rank", "bypass", "kl", *refused, *deltas]
    lines = ["| " + " | ".join(heads) + " |", "|" + " ---: |" * len(heads)]
    for _, row in table.iterrows():
        cells = [row.combination, str(row.k), str(row.effective_rank), _cell(row.bypass, "z.2f"), _cell(row.kl, "z.3f")]
        for column in rates:
            low, high = (_cell(row[_bound(column, side)], ".0%") for side in ("low", "high"))
            cells.append(f"{row[column]:.0%} ({low}-{high})" if low else "")
        cells += [_cell(row[column], "+z.4f") + _span(row, column, "+z.4f") for column in deltas]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _bound(rate: str, side: str) -> str:
    return f"{rate.removesuffix('_rate')}_{side}"


def _cell(value: float, form: str) -> str:
    """A figure of the table; nothing where it was not measured."""
    return "" if pd.isna(value) else format(value, form)


def _known(row: pd.Series, rate: str) -> bool:
    return pd.notna(row.get(f"{rate}_rate"))


def _said(row: pd.Series, rate: str) -> str:
    if not _known(row, rate):
        return _UNKNOWN
    n = int(row[f"{rate.split('_')[0]}_n"])
    return f"{row[f'{rate}_rate']:.1%} (95% {row[f'{rate}_low']:.1%}-{row[f'{rate}_high']:.1%}, n = {n})"
