"""One row per combination, from the files of all stages."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from refusal.combinations import BASELINE, CONTROLS, parse
from refusal.comparisons import compared_with
from refusal.evidence import Evidence, ablated, best_single, known
from refusal.judges.base import LABELS
from refusal.measured import Measured, UnmeasurableError
from refusal.statistics import DRAWS, wilson

_SCORES = {"bypass": "harmful_refusal_score", "harmless_refusal_score": "harmless_refusal_score", "kl": "kl"}
"""Column -> name of its values by prompt."""

_HARMFUL = "harmful"
"""The set whose refusals ablation is to remove."""


def summarize(evidence: Mapping[str, Evidence], draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """The summary table, a row per combination in the order given.

    Rates have all prompts of the set as denominator, invalid ones included, with Wilson 95% intervals. Tests: see
    `compared_with`, a family per (judge, set, comparison). CE in nats per token, scores and kl in nats, with bootstrap
    intervals over texts and val prompts. Gap between val and test: see `Measured.gap`; of ablations of ranks. A cell is
    empty where a combination lacks what it rests on.

    Args:
        draws, seed: of every bootstrap.
    """
    best = best_single(evidence)
    measured = Measured(evidence, "", draws=draws, seed=seed)
    scored = {column: measured.score_bounds(score) for column, score in _SCORES.items()}
    corpora = dict.fromkeys(corpus for one in evidence.values() for corpus in one.loss)
    costs = {corpus: measured.cost_bounds(corpus) for corpus in corpora}
    rows = []
    for name, one in evidence.items():
        kind = parse(name).kind
        row: dict[str, Any] = {
            "combination": name,
            "kind": kind,
            "source": "+".join(sorted({candidate["source"] for candidate in one.basis["candidates"]})) or None,
            "ablation": one.basis["ablation"] if kind in ("ablation", *CONTROLS) else None,
            "k": one.basis["k"],
            "effective_rank": one.basis["effective_rank"],
            "max_cosine": _max_cosine(one.basis.get("cosines")),
            "best_single": name == best,
        }
        for score, bounds in scored.items():
            row |= {score: known(one.scores, score)} | _bounds(score, bounds.get(name))
        row["val_refused"] = _refused_on_val(measured, name)
        for (prompts, judge), verdicts in one.verdicts.items():
            row |= _rates(f"{prompts}_{judge}", list(verdicts.values()))
            row[f"{prompts}_n"] = len(verdicts)
            if prompts == _HARMFUL:
                row |= _gap(Measured(evidence, judge), name)
        for corpus, figures in one.loss.items():
            row[f"ce_{corpus}"] = known(figures, "ce_loss")
            row[f"ce_{corpus}_delta"] = measured.cost(name, corpus)
            row |= _bounds(f"ce_{corpus}_delta", costs[corpus].get(name))
            row[f"perplexity_{corpus}"] = known(figures, "perplexity")
        rows.append(row)
    table = pd.DataFrame(rows)
    # counts stay whole numbers beside empty cells
    counts = {f"{prompts}_n" for one in evidence.values() for prompts, _ in one.verdicts}
    table, tested = table.astype(dict.fromkeys(counts, "Int64")), {}
    for prompts, judge in dict.fromkeys(column for one in evidence.values() for column in one.verdicts):
        for comparison, reference in (("baseline", BASELINE), ("best_single", best)):
            tests = compared_with(evidence, (prompts, judge), reference).values()
            for column in ("p", "p_holm", "pairs"):
                values = [getattr(test, column) for test in tests]
                dtype = "Int64" if column == "pairs" else float
                tested[f"{prompts}_{judge}_{column}_vs_{comparison}"] = pd.array(values, dtype=dtype)
    # at once: pandas warns where many columns are added one by one
    return pd.concat([table, pd.DataFrame(tested, index=table.index)], axis=1)


def cost_columns(table: pd.DataFrame) -> list[str]:
    """The columns of CE deltas; the name of a corpus may end like one of these, which alone have bounds."""
    return [column for column in table if column.endswith("_delta") and f"{column}_low" in table]


def corpus_of(column: str) -> str:
    """The corpus that a column of CE deltas is of."""
    return column.removeprefix("ce_").removesuffix("_delta")


def judged_sets(table: pd.DataFrame, judge: str) -> list[str]:
    """Prompt sets that the judge has verdicts on, in the table's order."""
    end = f"_{judge}_refusal_rate"
    found = [column.removesuffix(end) for column in table if column.endswith(end)]
    # another judge's name may end with this one's
    return [prompts for prompts in found if f"{prompts}_n" in table]


def _bounds(column: str, bounds: tuple[float, float] | None) -> dict[str, float]:
    low, high = bounds or (nan, nan)
    return {f"{column}_low": low, f"{column}_high": high}


def _refused_on_val(measured: Measured, name: str) -> float:
    """Share of harmful val prompts whose refusal score is above 0: a refusal is likelier than not to start."""
    try:
        return float(np.mean(measured.scores(name) > 0))
    except UnmeasurableError:
        return nan


def _gap(measured: Measured, name: str) -> dict[str, float]:
    column = f"{measured.prompts}_{measured.judge}_gap"
    try:
        found = measured.gap(name) if ablated(name) else {}
    except UnmeasurableError:
        found = {}
    return {column: found.get("estimate", nan)} | {f"{column}_{side}": found.get(side, nan) for side in ("low", "high")}


def _rates(prefix: str, verdicts: Sequence[str]) -> dict[str, float]:
    found = {}
    for verdict in LABELS:
        count = sum(one == verdict for one in verdicts)
        low, high = wilson(count, len(verdicts))
        found |= {
            f"{prefix}_{verdict}_rate": count / len(verdicts),
            f"{prefix}_{verdict}_low": low,
            f"{prefix}_{verdict}_high": high,
        }
    return found


def _max_cosine(cosines: Sequence[Sequence[float]] | None) -> float | None:
    """Largest |cosine| between two directions of a combination; None for fewer than two."""
    if not cosines or len(cosines) < 2:
        return None
    matrix = np.abs(np.array(cosines))
    return float(matrix[~np.eye(len(matrix), dtype=bool)].max())
