"""Intervals and tests for rates over the same prompts: Wilson, exact McNemar, Holm.

SciPy and statsmodels take more than a second to import, hence inside the functions.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a rate.

    Args:
        successes: 0..n.
        n: number of prompts, the rate's denominator.
        confidence: coverage, in (0, 1).
    Returns: (low, high), fractions that enclose successes / n; (nan, nan) for n = 0, which says nothing on the rate.
    Raises: ValueError, successes outside 0..n or confidence outside (0, 1).
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22, without
        continuity correction.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    if n == 0:
        return math.nan, math.nan
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_exact(first: ArrayLike, second: ArrayLike) -> float:
    """Exact two-sided p-value that an event is as frequent under both of two conditions, on the same prompts.

    Only discordant prompts count: were the conditions alike, each would fall either way with probability 1/2.

    Args:
        first, second: [prompt] bool, the event (a refusal) under each condition, in the same order; only prompts whose
            verdict is valid under both.
    Returns: p in (0, 1]; 1.0 without discordant prompts.
    Raises: ValueError, not boolean, not one-dimensional, or not equally long.
    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12; the binomial form in place of his chi-square, which needs many discordant prompts.
    """
    first, second = _events(first), _events(second)
    if first.shape != second.shape:
        raise ValueError(f"not paired: {first.size} and {second.size} prompts")
    from statsmodels.stats.contingency_tables import mcnemar

    table = [
        [np.sum(first & second), np.sum(first & ~second)],
        [np.sum(~first & second), np.sum(~first & ~second)],
    ]
    return float(mcnemar(table, exact=True).pvalue)


def holm(p_values: Mapping[Any, float] | Sequence[float]) -> dict[Any, float] | list[float]:
    """Adjust p-values so that the chance of any false rejection in their family stays below the level.

    Args:
        p_values: one family, by name or in order; NaN is a test that was not made: it stays NaN, and does not count.
    Returns: the adjusted p-values, named or ordered alike; each at least its raw one, at most 1.
    Raises: ValueError, a p-value outside 0..1.
    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6.
    """
    if isinstance(p_values, Mapping):
        return dict(zip(p_values, holm(list(p_values.values())), strict=True))
    raw = np.asarray(p_values, dtype=float)
    made = ~np.isnan(raw)
    if not np.all((raw[made] >= 0) & (raw[made] <= 1)):
        raise ValueError(f"p-values outside 0..1: {p_values}")
    adjusted = raw.copy()
    if made.any():
        from statsmodels.stats.multitest import multipletests

        adjusted[made] = multipletests(raw[made], method="holm")[1]
    return adjusted.tolist()


def _events(values: ArrayLike) -> np.ndarray:
    events = np.asarray(values)
    # An empty list is fp64 to NumPy; anything else that is not boolean may hide a missing verdict.
    if events.ndim != 1 or (events.size and events.dtype != bool):
        raise ValueError(f"need one boolean a prompt, got {events.dtype} of shape {events.shape}")
    return events.astype(bool)
