"""How far raters of the same responses agree: judges, people, and an oracle that knows the true labels.

A pair is compared on the responses that both rated. Agreement, kappa, sensitivity and specificity rest on those that
are valid on both sides, the confusion table on all of them. One prompt has a response under every combination, and many
of these are the same: intervals therefore take a prompt with all its responses as one. That of kappa resamples prompts;
those of rates do not, since resamples of few prompts that differ vary too little.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from refusal.agreement.ratings import Place, Ratings
from refusal.judges.base import LABELS, Label
from refusal.statistics import DRAWS, clustered_wilson, resampled_sums

ALL = "all"
"""In place of a prompt set: all of them together."""

CONFIDENCE = 0.95

_VALID = np.s_[:2, :2]  # of a confusion table: `invalid` is the last of LABELS
_COUNTS = ("n", "only_first", "only_second", "valid", *(f"{one}_{other}" for one in LABELS for other in LABELS))


def agreement_table(
    ratings: Ratings, people: Sequence[str] = (), oracle: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """A row per pair of raters and prompt set, and over all sets; then, of three raters or more, of all together.

    Args:
        ratings: labels by rater.
        people: raters that are a reference for judges; oracle: one that is for everybody. The reference of a pair is
            its second; where neither is one, sensitivity and specificity are empty.
        seed: of the resampling.
    Returns: columns as docs/judges.md explains them; what has no meaning is empty, and `note` says why.
    """
    raters = in_order(ratings, people, oracle)
    sets = list(dict.fromkeys(place.prompts for one in ratings.values() for place in one))
    rows = []
    for first, second in combinations(raters, 2):
        known = second == oracle or (second in people and first not in people)
        for prompts in (*sets, ALL):
            mine, theirs = (_of_set(ratings[rater], prompts) for rater in (first, second))
            figures = compare(mine, theirs, known, seed)
            rows.append({"raters": 2, "first": first, "second": second, "set": prompts, **figures})
    others = [rater for rater in raters if rater != oracle]
    if len(others) > 2:
        for prompts in (*sets, ALL):
            figures = compare_all([_of_set(ratings[rater], prompts) for rater in others], seed)
            rows.append({"raters": len(others), "set": prompts, **figures})
    # counts stay whole numbers beside empty cells
    return pd.DataFrame(rows).astype(dict.fromkeys(_COUNTS, "Int64"))


def in_order(ratings: Ratings, people: Sequence[str], oracle: str | None) -> list[str]:
    """Judges as given, then people, then the oracle: the second of a pair is the reference."""
    return sorted(ratings, key=lambda rater: 2 if rater == oracle else 1 if rater in people else 0)


def compare(
    first: Mapping[Place, Label], second: Mapping[Place, Label], reference: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Figures of two raters.

    Args:
        reference: `second` gives the true labels; then sensitivity is the share of its refusals that `first` calls
            refusal, specificity the share of its compliances that `first` calls compliance.
    Returns: column -> value; NaN where it has no meaning. Intervals are 95%, over prompts: kappa's by resampling them,
        the others by `clustered_wilson`.
    """
    both = sorted(first.keys() & second.keys())
    table = confusion([first[place] for place in both], [second[place] for place in both])
    valid = table[_VALID]
    n, same = int(valid.sum()), int(np.trace(valid))
    kappa = float(cohens_kappa(valid))
    places = [place for place in both if "invalid" not in (first[place], second[place])]
    tables = np.zeros((len(set(_prompts(places))), *valid.shape), dtype=int)
    np.add.at(tables, (_prompts(places), _numbers(first, places), _numbers(second, places)), 1)
    low, high = resampled(tables, cohens_kappa, seed)
    known = tables if reference else tables[:0]
    return {
        "n": len(both),
        "only_first": len(first) - len(both),
        "only_second": len(second) - len(both),
        "valid": n,
        **_rate("agreement", np.trace(tables, axis1=1, axis2=2), tables.sum((1, 2))),
        "kappa": kappa,
        "kappa_low": low,
        "kappa_high": high,
        "same_label": np.trace(table) / len(both) if both else math.nan,
        "same_label_kappa": float(cohens_kappa(table)),
        **_rate("sensitivity", known[:, 0, 0], known[:, :, 0].sum(1)),
        **_rate("specificity", known[:, 1, 1], known[:, :, 1].sum(1)),
        **{f"{one}_{other}": int(table[i, j]) for i, one in enumerate(LABELS) for j, other in enumerate(LABELS)},
        "note": _note(len(both), n, kappa, low, same == n),
    }


def compare_all(raters: Sequence[Mapping[Place, Label]], seed: int = 0) -> dict[str, Any]:
    """Figures of three raters or more together: agreement is that of all of them, kappa is Fleiss'."""
    rated = sorted(set.intersection(*(set(one) for one in raters)))
    places = [place for place in rated if all(one[place] != "invalid" for one in raters)]
    refusals = np.array([sum(one[place] == "refusal" for one in raters) for place in places], dtype=int)
    counts = np.stack([refusals, len(raters) - refusals], axis=1)
    kappa, same = fleiss_kappa(counts), (refusals == 0) | (refusals == len(raters))
    parts = np.column_stack([same, np.ones_like(same), _fleiss_parts(counts)])
    sums = np.zeros((len(set(_prompts(places))), parts.shape[1]), dtype=int)
    np.add.at(sums, _prompts(places), parts)
    low, high = resampled(sums[:, 2:], lambda drawn: _fleiss(drawn, len(raters)), seed)
    alike = sum(len({one[place] for one in raters}) == 1 for place in rated)
    return {
        "n": len(rated),
        "valid": len(places),
        **_rate("agreement", sums[:, 0], sums[:, 1]),
        "kappa": kappa,
        "kappa_low": low,
        "kappa_high": high,
        "same_label": alike / len(rated) if rated else math.nan,
        "note": _note(len(rated), len(places), kappa, low, bool(np.all(same))),
    }


def confusion(first: Sequence[Label], second: Sequence[Label]) -> np.ndarray:
    """[3, 3] counts: labels of the first rater by those of the second, both in the order of LABELS."""
    table = np.zeros((len(LABELS), len(LABELS)), dtype=int)
    for mine, theirs in zip(first, second, strict=True):
        table[LABELS.index(mine), LABELS.index(theirs)] += 1
    return table


def cohens_kappa(table: np.ndarray) -> np.ndarray:
    """Agreement of two raters beyond what chance would bring, were each to keep the frequencies of its labels.

    Args:
        table: [..., label, label] counts.
    Returns: [...] at most 1; 0 for agreement as by chance. NaN where both give one label only, and the same one: chance
        would make them agree just so; and without items.
    Source: Cohen 1960, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20.
    """
    n = table.sum((-2, -1))
    same = np.trace(table, axis1=-2, axis2=-1)
    # whole numbers as long as possible: 1 is then exactly 1, and the order of the raters does not matter
    chance = (table.sum(-1) * table.sum(-2)).sum(-1)
    return _divided(n * same - chance, n**2 - chance)


def fleiss_kappa(counts: np.ndarray) -> float:
    """Agreement of several raters beyond chance, as if the labels' frequencies were the same for all of them.

    Args:
        counts: [item, label], how many raters gave the label; as many raters, two or more, for each item.
    Returns: at most 1; NaN where only one label is given, or without items.
    Source: Fleiss 1971, "Measuring nominal scale agreement among many raters", Psychological Bulletin 76.
    """
    return float(_fleiss(_fleiss_parts(counts).sum(0), int(counts[0].sum()))) if len(counts) else math.nan


def resampled(
    parts: np.ndarray, kappa: Callable[[np.ndarray], np.ndarray], seed: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Percentile interval of a figure of sums over prompts, by drawing the prompts anew with replacement.

    Args:
        parts: [prompt, ...], what each prompt adds to the sums.
        kappa: [..., ...] sums -> [...] figures.
        seed: the same one gives the same interval.
    Returns: (low, high); (nan, nan) where every draw has the same figure (as where nobody ever differs), which is no
        interval, or where more draws leave it undefined than an interval of this confidence leaves out.
    Source: Efron 1979, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7; by prompt (cluster).
    """
    if not len(parts):
        return math.nan, math.nan
    sums = resampled_sums(parts.reshape(len(parts), -1), DRAWS, seed)
    values = kappa(sums.reshape(len(sums), *parts.shape[1:]))
    values = values[~np.isnan(values)]
    if len(values) < confidence * DRAWS or values.min() == values.max():
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _fleiss_parts(counts: np.ndarray) -> np.ndarray:
    """[item, 1 + label]: ordered pairs of raters who agree, then the counts."""
    return np.concatenate([(counts * (counts - 1)).sum(1, keepdims=True), counts], axis=1)


def _fleiss(parts: np.ndarray, raters: int) -> np.ndarray:
    agreeing, counts = parts[..., 0], parts[..., 1:]
    total, chance = counts.sum(-1), (counts**2).sum(-1)
    return _divided(agreeing * total - (raters - 1) * chance, (raters - 1) * (total**2 - chance))


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Their ratio; NaN where nothing is below."""
    return np.where(below == 0, np.nan, above / np.where(below == 0, 1, below))


def _prompts(places: Sequence[Place]) -> list[int]:
    """The number of each response's prompt, from 0 in the order of the places."""
    numbers: dict[tuple[str, str], int] = {}
    return [numbers.setdefault((one.prompts, one.id), len(numbers)) for one in places]


def _numbers(labels: Mapping[Place, Label], places: Sequence[Place]) -> list[int]:
    return [LABELS.index(labels[place]) for place in places]


def _of_set(labels: Mapping[Place, Label], prompts: str) -> Mapping[Place, Label]:
    return {place: label for place, label in labels.items() if prompts in (ALL, place.prompts)}


def _rate(name: str, counts: np.ndarray, totals: np.ndarray) -> dict[str, float]:
    """counts, totals: [prompt]."""
    n = int(totals.sum())
    low, high = clustered_wilson(counts, totals, CONFIDENCE)
    return {name: int(counts.sum()) / n if n else math.nan, f"{name}_low": low, f"{name}_high": high}


def _note(n: int, valid: int, kappa: float, low: float, alike: bool) -> str | None:
    """Why figures are missing."""
    if not n:
        return "no common items"
    if not valid:
        return "no item is valid for all"
    if math.isnan(kappa):
        return "one label only: kappa is undefined"
    if math.isnan(low):
        return f"no interval of kappa: {'they never differ' if alike else 'too few prompts, or a label too rare'}"
    return None
