"""Questions on what ablations cost in CE: for the refusals that they remove, and with each direction more."""

from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import Any

import numpy as np

from refusal.combinations import BASELINE, parse
from refusal.measured import ADDED, LEVEL, Answer, Found, Measured, UnmeasurableError, refusal_share
from refusal.statistics import Interval, bootstrap_ratio_difference, paired_difference, resampled_sums

BEND = 0.25
"""Largest share of the slope by which the cost of a direction may change, from one direction to the most, and CE still
count as growing linearly."""


def cost_matched(measured: Measured, corpus: str) -> Found:
    """Whether the pair chosen on val removes more refusals per nat of CE loss than the single chosen on val."""
    described = {"pareto": pareto(measured, corpus), "note": "Test rates of all: a description, no choice."}
    try:
        return _cost_matched(measured, corpus, described)
    except UnmeasurableError as error:
        raise UnmeasurableError(str(error), error.figures, described) from None


def pareto(measured: Measured, corpus: str) -> list[dict[str, Any]]:
    """Refusal rate and CE delta of baseline, ablations and controls, and which no other beats in both.

    Estimates on test and corpus as they are: who takes the best of them has chosen on the test set. `per_nat` is empty
    where the cost is not surely above zero.
    """
    points = []
    for name, one in measured.evidence.items():
        verdicts = list(one.verdicts.get((measured.prompts, measured.judge), {}).values())
        cost = measured.cost(name, corpus)
        if parse(name).kind in ADDED or not verdicts or isnan(cost):
            continue
        share = refusal_share(verdicts)
        rates = {"refusal_rate": share["estimate"], "refusal_low": share["low"], "refusal_high": share["high"]}
        points.append({"combination": name, **rates, "ce_delta": cost})
    baseline = next((one["refusal_rate"] for one in points if one["combination"] == BASELINE), nan)
    bounds = measured.cost_bounds(corpus)
    for one in points:
        rate, cost = one["refusal_rate"], one["ce_delta"]
        low, high = bounds.get(one["combination"], (nan, nan))
        one |= {"ce_low": low, "ce_high": high, "per_nat": (baseline - rate) / cost if low > 0 else nan}
        one["pareto"] = not any(
            other["refusal_rate"] <= rate
            and other["ce_delta"] <= cost
            and (other["refusal_rate"], other["ce_delta"]) != (rate, cost)
            for other in points
        )
    return points


def linear_cost(measured: Measured, corpus: str) -> Found:
    """Whether CE grows by the same amount with each direction that is ablated.

    The ablations' CE deltas are regressed on the number of directions that they ablate, through the origin, where the
    delta is zero by definition; a quadratic term tells whether the cost of a direction changes with their number.
    """
    names = [
        name
        for name in measured.evidence
        if parse(name).kind == "ablation" and measured.directions(name) and not isnan(measured.cost(name, corpus))
    ]
    fewer = [name for name in names if measured.directions(name) < parse(name).size]
    sizes = np.array([measured.directions(name) for name in names])
    if len(set(sizes)) < 2:
        raise UnmeasurableError("Ablations of at least two different numbers of directions are needed.")
    costs = np.array([measured.cost(name, corpus) for name in names])
    contrasts = _contrasts(sizes, sizes.max())
    slope, bend = contrasts[:2] @ costs
    figures = {
        "estimate": slope,
        "bend": bend,
        "margin": BEND,
        "combinations": len(names),
        "by_directions": {
            str(size): {"combinations": int(np.sum(sizes == size)), "ce_delta": float(costs[sizes == size].mean())}
            for size in sorted(set(sizes.tolist()))
        },
        "fewer_directions_than_named": fewer,
    }
    said = f"Over {len(names)} ablations, each direction adds {slope:+.4f} nats per token of {corpus}" + (
        "" if not fewer else f" (of the near-copies in {', '.join(fewer)}, only what is ablated counts)"
    )
    try:
        nats, tokens = measured.nats(corpus, *names)
    except UnmeasurableError as error:
        raise UnmeasurableError(f"{said}. {error}", figures) from None
    over_texts = bootstrap_ratio_difference(
        nats @ contrasts.T, np.zeros((len(nats), len(contrasts))), tokens, draws=measured.draws, seed=measured.seed
    )
    over_directions = _over_ranks(names, sizes, costs)
    # square and add, as of two sources of error that do not depend on each other
    low, high = (
        over_texts.estimate + sign * np.hypot(over_texts.estimate - bound, over_directions)
        for sign, bound in ((-1, over_texts.low), (1, over_texts.high))
    )
    keys = ("low", "high", "bend_low", "bend_high")
    figures |= dict(zip(keys, (low[0], high[0], low[1], high[1]), strict=True))
    figures |= {
        "low_over_texts": over_texts.low[0],
        "high_over_texts": over_texts.high[0],
        "half_width_over_directions": over_directions[0],
        "n": len(tokens),
    }
    if np.isnan(low).any():
        open_by = (
            "the choice of directions leaves it open: without some rank, one number of directions is left"
            if np.isnan(over_directions).any()
            else "its texts are too few, or too alike, to tell how it varies"
        )
        return Found("undecided", f"{said}; {open_by}.", figures, names)
    answer: Answer = "undecided"
    if high[0] < 0:
        answer = "no"
    elif low[0] > 0:
        # within the margin on both sides; or a bend that is surely there
        answer = "yes" if min(low[2:]) > 0 else "no" if low[1] > 0 or high[1] < 0 else "undecided"
    words = (
        f"{said}; 95% {low[0]:+.4f} to {high[0]:+.4f}, over texts and directions. From one direction to the most, the"
        f" cost of each changes by {bend:+.4f} ({low[1]:+.4f} to {high[1]:+.4f}); it counts as linear where that is"
        f" surely within {BEND:.0%} of the slope."
    )
    return Found(answer, words, figures, names)


def _cost_matched(measured: Measured, corpus: str, described: Mapping[str, Any]) -> Found:
    single, pair = measured.single, measured.pair
    baseline, *ablated = measured.refused(BASELINE, single, pair).astype(float)
    removed = baseline[:, None] - np.transpose(ablated)
    nats, tokens = measured.nats(corpus, single, pair)
    costs = [Interval(*one) for one in zip(*measured.costs(corpus, single, pair), strict=True)]
    gains = [paired_difference(baseline > 0, one > 0) for one in ablated]

    def advantage(removed, cost):
        """Above zero where the pair removes more per nat; a product, since a cost near zero divides badly.

        A cost below zero counts as none: with its sign, little that is removed would gain by it.
        """
        cost = np.maximum(cost, 0)
        return removed[..., 1] * cost[..., 0] - removed[..., 0] * cost[..., 1]

    estimate = advantage(removed.mean(axis=0), nats.sum(axis=0) / tokens.sum())
    sums = resampled_sums(np.column_stack([nats, tokens]), measured.draws, measured.seed + 1)
    # prompts and texts are different samples, so they are drawn apart
    shares = resampled_sums(removed, measured.draws, measured.seed) / len(removed)
    again = np.sort(advantage(shares, sums[:, :2] / sums[:, 2:]))
    tail = max(1, round(LEVEL / 2 * (measured.draws + 1)))
    low, high = (again[tail - 1], again[-tail]) if again[0] < again[-1] else (nan, nan)
    figures: dict[str, Any] = {"estimate": estimate, "low": low, "high": high, "n": len(removed), "rows": len(tokens)}
    for role, gain, cost in zip(("single", "pair"), gains, costs, strict=True):
        per_nat = gain.estimate / cost.estimate if cost.low > 0 else nan
        figures[role] = {"removed": gain._asdict(), "ce_delta": cost._asdict(), "per_nat": per_nat}
    removes = max(one.low for one in gains) > 0
    expensive = any(one.low > 0 for one in costs)
    told = removes and expensive
    answer: Answer = "undecided"
    if told and low > 0 and gains[1].low > 0:
        answer = "yes"
    elif told and high < 0 and gains[0].low > 0:
        answer = "no"
    words = " ".join(
        f"The best {role} on val, {name}, removes {100 * gain.estimate:.1f} points of refusals for {cost.estimate:+.4f}"
        f" nats per token ({_bounds_said(cost)})."
        for role, name, gain, cost in zip(("single", "pair"), (single, pair), gains, costs, strict=True)
    )
    if not told:
        lacking = [what for what, so in (("removes refusals", removes), ("costs anything", expensive)) if not so]
        words += f" There is no rate of exchange: neither surely {', and neither surely '.join(lacking)}."
    return Found(answer, words, figures, [BASELINE, single, pair], described)


def _bounds_said(cost: Interval) -> str:
    if isnan(cost.low):
        return "no interval: the texts are too few, or too alike"
    return f"95% {cost.low:+.4f} to {cost.high:+.4f}"


def _contrasts(sizes: np.ndarray, largest: int) -> np.ndarray:
    """[contrast, combination] weights: slope, bend, and how far the bend is within the margin, on either side.

    The bend is the cost of a direction at the largest number, less that at one, by a quadratic through the origin.
    """
    slope = sizes / np.sum(sizes**2)
    bend = (largest - 1) * np.linalg.pinv(np.column_stack([sizes, sizes**2]).astype(float))[1]
    return np.array([slope, bend, BEND * slope - bend, BEND * slope + bend])


def _over_ranks(names: Sequence[str], sizes: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """[contrast] half-width for the choice of directions: delete-a-rank jackknife.

    Combinations that share a direction are not independent, so each rank goes with all that hold it. NaN where what is
    left would not tell a slope from a bend.
    Source: Arvesen 1969, "Jackknifing U-statistics", Annals of Mathematical Statistics 40.
    """
    from scipy.stats import t

    ranks = sorted({rank for name in names for rank in parse(name).ranks})
    found = []
    for rank in ranks:
        kept = np.array([rank not in parse(name).ranks for name in names])
        if len(set(sizes[kept])) < 2:
            return np.full(4, nan)
        found.append(_contrasts(sizes[kept], sizes.max()) @ costs[kept])
    m = len(ranks)
    spread = np.std(found, axis=0) * np.sqrt(m - 1)
    return spread * t.ppf(1 - LEVEL / 2, m - 1)
