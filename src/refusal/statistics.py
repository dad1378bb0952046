"""Intervals and tests over the same prompts: Wilson, Tango, exact McNemar, Holm, and the bootstrap.

SciPy and statsmodels take more than a second to import, hence inside the functions.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

DRAWS = 9999
"""Bootstrap samples: 97.5% of 10000 is a whole number, so each bound is one of them."""

_STEP = 1e-9
_WEIGHTS = 2**22
"""Most counts of resampled rows that are held at once; 32 MiB."""


class Interval(NamedTuple):
    """An estimate between its bounds; numbers, or arrays of them where several were asked for at once."""

    estimate: Any
    low: Any
    high: Any


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


def clustered_wilson(successes: ArrayLike, totals: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of the rate of all responses, of which one prompt has many, and these are not independent.

    Wilson's interval, of as many independent responses as tell as much: their number divided by the design effect, the
    variance of the rate over prompts in units of that of independent responses. It is estimated with two prompts more,
    one all successes and one all failures, of the size of the prompt that a response is in on average. Where all
    prompts are successes, each of that size then counts as one response, instead of infinitely many.

    Args:
        successes, totals: [prompt] counts, 0 <= successes <= totals; a prompt without responses adds nothing.
        confidence: coverage, in (0, 1).
    Returns: (low, high), fractions that enclose the rate, as by `wilson` where each prompt has one response; copies of
        every response change nothing. (nan, nan) without responses.
    Raises: ValueError, not equally long, successes outside 0..totals, or confidence outside (0, 1).
    Source: Rao & Scott 1992, "A simple method for the analysis of clustered binary data", Biometrics 48; in Wilson's
        interval as by Dean & Pagano 2015, "Evaluating confidence interval methods for binomial proportions in clustered
        surveys", Journal of Survey Statistics and Methodology 3. The two prompts are added here: without them, and by
        a percentile bootstrap, it covers less than 60% where few prompts differ (tests/unit/test_agreement.py).
    """
    successes, totals = np.asarray(successes, dtype=float), np.asarray(totals, dtype=float)
    if successes.shape != totals.shape or successes.ndim != 1:
        raise ValueError(f"not paired: shapes {successes.shape} and {totals.shape}")
    if not np.all((successes >= 0) & (successes <= totals)):
        raise ValueError("successes are outside 0..totals")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    n = totals.sum()
    if n == 0:
        return math.nan, math.nan
    from scipy.special import ndtri

    size = np.sum(totals**2) / n
    known = n + 2 * size
    rate = (successes.sum() + size) / known
    squares = np.sum((successes - rate * totals) ** 2) + size**2 * (rate**2 + (1 - rate) ** 2)
    n_effective = n * known * rate * (1 - rate) / squares
    z = ndtri((1 + confidence) / 2)

    def lower(share):
        spread = z * np.sqrt(z * z + 4 * n_effective * share * (1 - share))
        return float((2 * n_effective * share + z * z - spread) / (2 * (n_effective + z * z)))

    # each by its own count: 0 and 1 are then exact
    return lower(successes.sum() / n), 1 - lower((totals - successes).sum() / n)


def paired_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Interval:
    """Score interval of how much more frequent an event is under the first of two conditions, on the same prompts.

    Unlike a bootstrap, it stands where few prompts are discordant: with none of 100, it reaches from -3.7% to 3.7%.

    Args:
        first, second: [prompt] bool, as in `mcnemar_exact`.
        confidence: coverage, in (0, 1).
    Returns: difference of the rates, first minus second, and its bounds in -1..1; all NaN without prompts.
    Raises: ValueError, as `mcnemar_exact`, or confidence outside (0, 1).
    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
        paired-sample design", Statistics in Medicine 17: McNemar's statistic for a difference that is not zero.
    """
    first, second = _paired_events(first, second)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    n = first.size
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    from scipy.optimize import brentq
    from scipy.special import ndtri

    critical = float(ndtri((1 + confidence) / 2))
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(~first & second))

    def excess(difference, bound):
        # q: likeliest share of prompts with the event under the second alone, were this the difference
        b = (2 * n - only_first + only_second) * difference - only_first - only_second
        c = -only_second * difference * (1 - difference)
        # never negative but by rounding, where every prompt has the event under the second alone
        q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        spread = math.sqrt(max(n * (2 * q + difference * (1 - difference)), 0.0))
        return only_first - only_second - n * difference - bound * spread

    estimate = (only_first - only_second) / n
    # a step off the estimate: without discordant prompts the excess is zero there as well
    low = -1.0 if estimate == -1 else brentq(excess, -1, estimate - _STEP, args=(critical,))
    high = 1.0 if estimate == 1 else brentq(excess, estimate + _STEP, 1, args=(-critical,))
    return Interval(estimate, float(low), float(high))


def independent_difference(first: int, n_first: int, second: int, n_second: int, confidence: float = 0.95) -> Interval:
    """Interval of the difference of two rates on different prompts, first minus second.

    Args:
        first, second: successes, 0..n.
        n_first, n_second: prompts, above 0.
        confidence: coverage, in (0, 1).
    Source: Newcombe 1998, "Interval estimation for the difference between independent proportions", Statistics in
        Medicine 17, method 10: Wilson's intervals, squared and added.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep

    bounds = confint_proportions_2indep(
        first, n_first, second, n_second, method="newcomb", compare="diff", alpha=1 - confidence
    )
    return Interval(first / n_first - second / n_second, *map(float, bounds))


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
    first, second = _paired_events(first, second)
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


def resampled_sums(values: ArrayLike, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Column sums of bootstrap samples: as many rows as there are, drawn with replacement, whole.

    Args:
        values: [row, column]; rows are prompts or texts, what stands in one row stays together.
        draws: number of samples.
        seed: equal seeds draw the same rows of tables of equal length.
    Returns: [draw, column] fp64.
    Raises: ValueError, no rows or not two-dimensional.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"need rows and columns, got shape {values.shape}")
    generator, n = np.random.default_rng(seed), len(values)
    found, size = [], max(1, _WEIGHTS // n)
    for start in range(0, draws, size):
        count = min(size, draws - start)
        drawn = generator.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
        found.append(np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n) @ values)
    return np.concatenate(found)


def bootstrap_mean_difference(
    first: ArrayLike,
    second: ArrayLike,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
    method: Literal["studentized", "percentile"] = "studentized",
) -> Interval:
    """Bootstrap interval over prompts of a mean difference, first minus second: of scores, or of rates.

    Args:
        first, second: [prompt] or [prompt, column], in the same order; numbers, or bool for rates.
        confidence, draws, seed, method: see `bootstrap_ratio_difference`; for rates, whose resamples often have no
            spread, `percentile`.
    Returns: see `bootstrap_ratio_difference`.
    Raises: ValueError, not equally long.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    counts = np.ones(first.shape[:1])
    return bootstrap_ratio_difference(first, second, counts, confidence, draws, seed, method)


def bootstrap_ratio_difference(
    first: ArrayLike,
    second: ArrayLike,
    counts: ArrayLike,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
    method: Literal["studentized", "percentile"] = "studentized",
) -> Interval:
    """Bootstrap interval over rows of sum(first - second) / sum(counts): CE of texts, in nats per token.

    Rows are drawn whole, so the sum of counts varies with them.

    Args:
        first, second: [row] or [row, column], in the same order.
        counts: [row] or [row, column], not negative: tokens of each text, the same under both.
        confidence: coverage, in (0, 1).
        draws: number of bootstrap samples.
        seed: of the draw.
        method: `studentized` divides each resample's deviation by its own standard error, linearised for the ratio;
            `percentile` takes the resampled estimates as they are.
    Returns: estimate and bounds, one per column. Bounds are NaN where the data say nothing on the spread (one row, all
        differences alike), and where too few values differ for resamples to have a spread: a zero-width interval
        would claim certainty.
    Raises: ValueError, not equally long, counts negative or all zero, or a value that is not finite.
    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", 12.5 and 13.3. Hall 1988, "Theoretical
        comparison of bootstrap confidence intervals", Annals of Statistics 16: studentized bounds are accurate to
        second order, percentiles to first. On skewed losses of 100 texts only they cover 95 +- 2%
        (tests/unit/test_simulation.py).
    """
    first, second, counts = (np.asarray(values, dtype=float) for values in (first, second, counts))
    if first.shape != second.shape or first.ndim not in (1, 2) or first.shape[:1] != counts.shape[:1]:
        raise ValueError(f"not paired: shapes {first.shape}, {second.shape} and {counts.shape}")
    if not all(np.isfinite(values).all() for values in (first, second, counts)):
        raise ValueError("a value is not finite")
    if np.any(counts < 0) or np.any(counts.sum(axis=0) == 0):
        raise ValueError("counts are negative, or none is above zero")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    n = len(first)
    columns, counts = (first - second).reshape(n, -1), counts.reshape(n, -1)
    total = counts.sum(axis=0)
    estimate = columns.sum(axis=0) / total
    # what is left of each row once the ratio is taken out: small numbers, so that squares lose no digits
    rest = columns - estimate * counts
    squares = np.sum(rest**2, axis=0)
    said = squares > 1e-24 * np.sum(columns**2, axis=0)
    low, high = np.full_like(estimate, np.nan), np.full_like(estimate, np.nan)
    if n > 1 and said.any():
        shared = counts if counts.shape[1] == 1 else counts[:, said]
        rest, squares, total = rest[:, said], squares[said], shared.sum(axis=0)
        moved, spread = _deviations(rest, shared, draws, seed, method)
        scale = np.sqrt(squares) / total if method == "studentized" else 1.0
        with np.errstate(invalid="ignore", divide="ignore"):
            deviation = np.where(moved == 0, 0.0, moved / spread)
        tail = max(1, round((1 - confidence) / 2 * (draws + 1)))
        ordered = np.sort(deviation, axis=0)
        lowest, highest = ordered[tail - 1], ordered[-tail]
        if method == "studentized":  # a resample too far up says that the estimate may be
            lowest, highest = -highest, -lowest
        for bound, value in ((low, lowest), (high, highest)):
            bound[said] = np.where(np.isfinite(lowest) & np.isfinite(highest), estimate[said] + value * scale, np.nan)
    if first.ndim == 1:
        return Interval(float(estimate[0]), float(low[0]), float(high[0]))
    return Interval(estimate, low, high)


def chosen_again(scores: ArrayLike, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """[option]: share of bootstrap samples of the prompts in which each has the lowest mean; ties go to the first.

    scores: [prompt, option].
    """
    scores = np.asarray(scores, dtype=float)
    winners = np.argmin(resampled_sums(scores, draws, seed), axis=1)
    return np.bincount(winners, minlength=scores.shape[1]) / draws


def optimism(scores: ArrayLike, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """How far the lowest of several mean scores lies below what it would be on new prompts, estimated in two ways.

    Args:
        scores: [prompt, option]; the option with the lowest mean is chosen.
        draws: number of bootstrap samples, and of halvings.
        seed: of both.
    Returns: by the bootstrap: mean, over samples, of the mean here of the option that is chosen there, less its mean
        there. It falls short where options are alike, since it takes their order here as real. And by halving the
        prompts: mean in the other half, less that in the half that chose. It is too much, since a half is smaller; NaN
        for fewer than two prompts.
    Raises: ValueError, see `resampled_sums`.
    Source: Efron 1983, "Estimating the error rate of a prediction rule", JASA 78.
    """
    scores = np.asarray(scores, dtype=float)
    n, every = len(scores), np.arange(draws)
    there = resampled_sums(scores, draws, seed) / n
    winners = np.argmin(there, axis=1)
    drawn = float(np.mean(scores.mean(axis=0)[winners] - there[every, winners]))
    if n < 2:
        return drawn, math.nan
    halves = np.random.default_rng(seed).permuted(np.tile(np.arange(n) < n // 2, (draws, 1)), axis=1)
    means = halves @ scores / (n // 2), ~halves @ scores / (n - n // 2)
    # either half chooses: what differs between them by the draw alone cancels
    gaps = [(b - a)[every, np.argmin(a, axis=1)] for a, b in (means, means[::-1])]
    return drawn, float(np.mean(gaps))


def _deviations(rest, counts, draws, seed, method):
    """[draw, column]: how far each resampled ratio is from the estimate, and its standard error (1: not asked for)."""
    width = rest.shape[1]
    if method == "percentile":
        sums = resampled_sums(np.hstack([rest, counts]), draws, seed)
        with np.errstate(invalid="ignore", divide="ignore"):
            return sums[:, :width] / sums[:, width:], 1.0
    parts = [rest, rest**2, rest * counts, counts, counts**2]
    sums = resampled_sums(np.hstack(parts), draws, seed)
    edges = np.cumsum([part.shape[1] for part in parts])[:-1]
    total_rest, squares, products, total, count_squares = np.split(sums, edges, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = total_rest / total
        variance = squares - 2 * moved * products + moved**2 * count_squares
        # what rounding leaves where every drawn row has the same ratio
        variance = np.where(variance > 1e-12 * squares, variance, 0.0)
        return moved, np.sqrt(variance) / total


def _paired_events(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = _events(first), _events(second)
    if first.shape != second.shape:
        raise ValueError(f"not paired: {first.size} and {second.size} prompts")
    return first, second


def _events(values: ArrayLike) -> np.ndarray:
    events = np.asarray(values)
    # An empty list is fp64 to NumPy; anything else that is not boolean may hide a missing verdict.
    if events.ndim != 1 or (events.size and events.dtype != bool):
        raise ValueError(f"need one boolean a prompt, got {events.dtype} of shape {events.shape}")
    return events.astype(bool)
