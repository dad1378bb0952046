"""The few figures of a summary that say what a study found, as nested numbers."""

import pandas as pd

from refusal.combinations import BASELINE
from refusal.summary import cost_columns

_SIZES = {"best_single": 1, "best_pair": 2}


def headline(table: pd.DataFrame, judge: str) -> dict[str, dict[str, float]]:
    """Figures of the baseline, the best single and the best pair: those with the lowest bypass on val, as everywhere.

    What was not measured is left out: a figure, or a pair where none was ablated.

    Args:
        table: the summary.
        judge: whose refusal rates are shown.
    """
    columns = [f"harmful_{judge}_refusal_{side}" for side in ("rate", "low", "high")]
    columns += [f"{delta}{side}" for delta in cost_columns(table) for side in ("", "_low", "_high")]
    return {
        name: {
            column.replace(f"_{judge}_", "_"): float(row[column])
            for column in columns
            if column in row and pd.notna(row[column])
        }
        for name, found in chosen(table).items()
        for _, row in found.iterrows()
    }


def chosen(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Of a summary, `baseline`, `best_single` and `best_pair`: their row, or none."""
    rows = {"baseline": table[table.combination == BASELINE]}
    for name, size in _SIZES.items():
        # of effective rank: a pair of near-copies is one direction twice
        distinct = (table.kind == "ablation") & (table.k == size) & (table.effective_rank == size)
        scored = table[distinct & table.bypass.notna()]
        # stable: ties go to the better rank
        rows[name] = scored.sort_values("bypass", kind="stable").head(1)
    return rows


def roles(table: pd.DataFrame) -> dict[str, str]:
    """The combinations that these rows are of, as far as there are such."""
    return {role: rows.combination.iloc[0] for role, rows in chosen(table).items() if len(rows)}
