"""One row per combination, from the files of all stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from refusal.artifacts import read_json, read_tensors
from refusal.combinations import BASELINE, CONTROLS, parse
from refusal.errors import UserError
from refusal.judges.base import LABELS
from refusal.statistics import holm, mcnemar_exact, wilson

_COMPARISONS = ("baseline", "best_single")


@dataclass(frozen=True)
class Evidence:
    """What was measured of one combination.

    basis: facts of its basis file; scores: of combination_scores; loss: corpus -> figures;
    verdicts: (set, judge) -> id -> verdict. What was not measured is missing, or None.
    """

    basis: Mapping[str, Any]
    scores: Mapping[str, Any]
    loss: Mapping[str, Mapping[str, float]]
    verdicts: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)


def read_evidence(
    bases: Mapping[str, Path],
    scores: Mapping[str, Path],
    losses: Mapping[str, Path],
    verdicts: Mapping[str, Mapping[tuple[str, str], Mapping[str, str]]],
) -> dict[str, Evidence]:
    """Combination -> what its files say, in the order of the bases; of files that are not given, nothing.

    Raises: UserError, scores that were measured elsewhere, with a direction that does not have this rank here.
    """
    evidence = {
        name: Evidence(
            read_tensors(path)[1],
            read_json(scores[name]) if name in scores else {},
            read_json(losses[name]) if name in losses else {},
            verdicts.get(name, {}),
        )
        for name, path in bases.items()
    }
    for name, one in evidence.items():
        _check_candidate(one, scores.get(name))
    return evidence


def _check_candidate(one: Evidence, path: Path | None) -> None:
    """Scores that were measured elsewhere name their candidate; it must be the one that has the rank here."""
    measured = one.scores.get("candidate")
    if measured is None:
        return
    here = [{key: candidate[key] for key in measured} for candidate in one.basis["candidates"]]
    if here != [measured]:
        raise UserError(
            f"{path}: was measured with the direction of position {measured['position']}, layer {measured['layer']},"
            " which does not have this rank in ranking.csv: rank with the filters of the published run (a tie for"
            " the best goes to the lower layer here)"
        )


def summarize(evidence: Mapping[str, Evidence]) -> pd.DataFrame:
    """The summary table, a row per combination in the order given.

    Rates have all prompts of the set as denominator, invalid ones included, with Wilson 95% intervals. p-values are
    exact two-sided McNemar on prompts whose verdict is valid on both sides, event = refusal; Holm over all ablations
    but baseline, controls, additions and subtractions, one family per (judge, set, comparison). CE in nats per token,
    kl in nats. A cell is empty where a combination lacks what it rests on.
    """
    best = best_single(evidence)
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
            **{score: _known(one.scores, score) for score in ("bypass", "harmless_refusal_score", "kl")},
        }
        for (prompts, judge), verdicts in one.verdicts.items():
            row |= _rates(f"{prompts}_{judge}", list(verdicts.values()))
            row[f"{prompts}_n"] = len(verdicts)
        for corpus, figures in one.loss.items():
            row[f"ce_{corpus}"] = _known(figures, "ce_loss")
            row[f"ce_{corpus}_delta"] = row[f"ce_{corpus}"] - _known(evidence[BASELINE].loss.get(corpus, {}), "ce_loss")
            row[f"perplexity_{corpus}"] = _known(figures, "perplexity")
        rows.append(row)
    table = pd.DataFrame(rows)
    # counts stay whole numbers beside empty cells
    counts = {f"{prompts}_n" for one in evidence.values() for prompts, _ in one.verdicts}
    table = table.astype(dict.fromkeys(counts, "Int64"))
    references = {"baseline": BASELINE, "best_single": best}
    for prompts, judge in dict.fromkeys(column for one in evidence.values() for column in one.verdicts):
        for comparison in _COMPARISONS:
            table = table.join(_tests(evidence, (prompts, judge), comparison, references[comparison]))
    return table


def best_single(evidence: Mapping[str, Evidence]) -> str | None:
    """The single with the lowest bypass score on val, so chosen without the test set; ties go to the better rank."""
    bypass = {name: _known(one.scores, "bypass") for name, one in evidence.items() if _ablated(name) == 1}
    return min((name for name in bypass if not isnan(bypass[name])), key=bypass.get, default=None)


def _known(figures: Mapping[str, Any], key: str) -> float:
    """A figure, or not-a-number where it was not measured: an empty cell."""
    value = figures.get(key)
    return np.nan if value is None else value


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


def _tests(
    evidence: Mapping[str, Evidence], column: tuple[str, str], comparison: str, reference: str | None
) -> pd.DataFrame:
    prefix = "_".join(column)
    known = {name: one.verdicts[column] for name, one in evidence.items() if column in one.verdicts}
    raw, pairs = [], []
    for name in evidence:
        if name == reference or name not in known or reference not in known:
            raw.append(np.nan)
            pairs.append(np.nan)
            continue
        mine, theirs = known[name], known[reference]
        both = [key for key in mine if key in theirs and "invalid" not in (mine[key], theirs[key])]
        refused = (
            np.array([mine[key] == "refusal" for key in both], dtype=bool),
            np.array([theirs[key] == "refusal" for key in both], dtype=bool),
        )
        raw.append(mcnemar_exact(*refused) if both else np.nan)
        pairs.append(len(both))
    family = [value if _ablated(name) else np.nan for name, value in zip(evidence, raw, strict=True)]
    return pd.DataFrame(
        {
            f"{prefix}_p_vs_{comparison}": raw,
            f"{prefix}_p_holm_vs_{comparison}": holm(family),
            f"{prefix}_pairs_vs_{comparison}": pd.array(
                [pd.NA if isnan(count) else int(count) for count in pairs], dtype="Int64"
            ),
        }
    )


def _ablated(name: str) -> int:
    """Number of ranks of an ablation; 0 for baseline, controls, additions and subtractions."""
    parsed = parse(name)
    return parsed.size if parsed.kind == "ablation" else 0


def _max_cosine(cosines: Sequence[Sequence[float]] | None) -> float | None:
    """Largest |cosine| between two directions of a combination; None for fewer than two."""
    if not cosines or len(cosines) < 2:
        return None
    matrix = np.abs(np.array(cosines))
    return float(matrix[~np.eye(len(matrix), dtype=bool)].max())
