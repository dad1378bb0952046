"""What was measured of each combination, read from the files of all stages; and the best single on val."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from typing import Any

from refusal.artifacts import read_json, read_tensors
from refusal.combinations import parse
from refusal.errors import UserError


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


def best_single(evidence: Mapping[str, Evidence]) -> str | None:
    """The single with the lowest bypass score on val, so chosen without the test set; ties go to the better rank."""
    bypass = {name: known(one.scores, "bypass") for name, one in evidence.items() if ablated(name) == 1}
    return min((name for name in bypass if not isnan(bypass[name])), key=bypass.get, default=None)


def known(figures: Mapping[str, Any], key: str) -> float:
    """A figure, or not-a-number where it was not measured: an empty cell."""
    value = figures.get(key)
    return nan if value is None else value


def ablated(name: str) -> int:
    """Number of ranks of an ablation; 0 for baseline, controls, additions and subtractions."""
    parsed = parse(name)
    return parsed.size if parsed.kind == "ablation" else 0


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
