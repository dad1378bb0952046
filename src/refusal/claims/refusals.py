"""Questions that are answered by counting refusals: of the model, and of what one ablation leaves beside another."""

from collections.abc import Mapping
from math import isnan
from typing import Any

import numpy as np

from refusal.combinations import BASELINE, parse
from refusal.comparisons import compared_with
from refusal.measured import HARDLY, LEVEL, MARGIN, Answer, Found, Measured, UnmeasurableError, refusal_share
from refusal.statistics import (
    DRAWS,
    bootstrap_mean_difference,
    chosen_again,
    mcnemar_exact,
    optimism,
    paired_difference,
    wilson,
)

COPIES = 0.9
"""|cosine| from which two directions are near-copies: less than half of each stands outside the other."""

_TOP_TWO = "0-1"


def refuses(measured: Measured) -> Found:
    """Whether there is refusal to remove: the baseline's rate against one half."""
    verdicts = list(measured.verdicts(BASELINE).values())
    share = refusal_share(verdicts)
    answer = "yes" if share["low"] > HARDLY else "no" if share["high"] < HARDLY else "undecided"
    words = f"Without ablation the model refuses {_percent(share)} of the {measured.prompts} test prompts."
    return Found(answer, words, share, [BASELINE])


def one_direction(measured: Measured) -> Found:
    """Whether the best single leaves so few of the model's refusals that no second direction is called for."""
    name = measured.single
    mine = measured.verdicts(name)
    asked = [key for key, verdict in measured.verdicts(BASELINE).items() if verdict == "refusal" and key in mine]
    if not asked:
        raise UnmeasurableError(f"No {measured.prompts} prompt is refused without ablation.")
    left = refusal_share([mine[key] for key in asked])
    answer = "yes" if left["high"] < MARGIN else "no" if left["low"] > MARGIN else "undecided"
    rate = refusal_share(list(mine.values()))
    words = (
        f"The best single on val, {name}, leaves {_percent(left)} of the model's refusals; one direction counts as"
        f" enough where surely less than {MARGIN:.0%} are left."
    )
    figures = {**left, "threshold": MARGIN, "rate": rate["estimate"], "rate_n": rate["n"]}
    return Found(answer, words, figures, [BASELINE, name])


def pair_better(measured: Measured) -> Found:
    """Whether the pair chosen on val leaves fewer refusals than every single; and what it leaves beside val's best."""
    single, pair = measured.single, measured.pair
    answer, figures = better_than_every_single(measured)
    words = f"The pair chosen on val, {pair}, against the best single there, {single}: {_fewer(figures)}."
    every, nearest = figures["by_single"], figures["nearest"]
    if len(every) > 1:
        words += (
            f" Of all {len(every)} singles, {nearest} is the nearest on test: {100 * every[nearest]['estimate']:.1f}"
            f" points fewer (p = {every[nearest]['p']:.2g}). A pair is called better if each test says so, since val"
            " may not have found the best single."
        )
    if figures["not_compared"]:
        words += f" No prompt has a valid verdict under both the pair and {', '.join(figures['not_compared'])}."
    # what the best single leaves at most: a pair that left nothing would be better by no more
    room = wilson(figures["reference_refused"], figures["n"])[1]
    if answer == "no" and not measured.cosine(pair) < COPIES:
        answer = "undecided"
        if isnan(measured.cosine(pair)):
            words += " How near copies its directions are is not known, so this is no test of a second direction."
        else:
            words += (
                f" This pair is of near-copies (|cosine| at least {COPIES}), which is no test of a second direction."
            )
    elif answer == "no":
        words += f" Surely less than {100 * MARGIN:.0f} points fewer counts as no better."
        if room < MARGIN:
            words += (
                f" {single} leaves so few refusals that no pair could do more than that: none is needed, which is not"
                " to say that a second direction does nothing."
            )
    figures |= {
        "room": room,
        "cosine": measured.cosine(pair),
        "pairs": len(measured.pairs),
        "distinct_pairs": sum(measured.cosine(name) < COPIES for name in measured.pairs),
        "val": _on_val(measured, single, pair),
    }
    described = {
        name: {"fewer": paired_difference(*measured.refused(single, name)).estimate, "p_holm": test.p_holm}
        for name, test in compared_with(measured.evidence, (measured.prompts, measured.judge), single).items()
        if not isnan(test.p_holm)
    }
    return Found(answer, words, figures, [single, pair], {"vs_best_single": described})


def better_than_every_single(measured: Measured) -> tuple[Answer, dict[str, Any]]:
    """Whether the pair chosen on val leaves fewer refusals than each single that was ablated.

    The singles are tested one by one and no test is adjusted: all of them have to reject (intersection-union, Berger
    1982, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24). A test against val's best
    single alone would call a pair better that only equals the best one, where val picked another.

    Returns: yes, if every exact McNemar test says so; no, as `better` against val's best single; else undecided. And
        the figures of `better` against that one; `by_single` against each, `nearest` (fewest refusals beside the pair),
        `p_every` (largest p; 1 where a single leaves fewer), and `not_compared`: singles without a prompt that is valid
        under both, than which the pair is not known to be better.
    """
    answer, figures = _compared(measured, measured.single, measured.pair)
    found, lacking = {}, []
    for name in measured.singles:
        try:
            refused = measured.refused(name, measured.pair)
        except UnmeasurableError:
            lacking.append(name)
            continue
        difference, p = paired_difference(*refused), mcnemar_exact(*refused)
        found[name] = {**difference._asdict(), "p": p, "n": refused.shape[1], "refused": int(refused[0].sum())}
    nearest = min(found, key=lambda name: (found[name]["estimate"], -found[name]["p"]))
    p_every = max(one["p"] if one["estimate"] > 0 else 1.0 for one in found.values())
    if answer == "yes" and (lacking or p_every >= LEVEL):
        answer = "undecided"
    return answer, figures | {"p_every": p_every, "nearest": nearest, "by_single": found, "not_compared": lacking}


def better(
    reference: np.ndarray, candidate: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> tuple[Answer, dict[str, Any]]:
    """Whether `candidate` leaves fewer refusals than `reference`, both fixed before these prompts were looked at.

    Args:
        reference, candidate: [prompt] bool, refusals.
    Returns: yes, by the exact McNemar test; no, where the whole interval is below the margin; else undecided. And the
        figures: `estimate` is the share of prompts by which refusals are fewer.
    """
    difference = paired_difference(reference, candidate)
    p = mcnemar_exact(reference, candidate)
    _, low, high = bootstrap_mean_difference(reference, candidate, draws=draws, seed=seed, method="percentile")
    figures = {
        **difference._asdict(),
        "p": p,
        "n": len(reference),
        "reference_refused": int(np.sum(reference)),
        "candidate_refused": int(np.sum(candidate)),
        "discordant": int(np.sum(reference != candidate)),
        "bootstrap_low": low,
        "bootstrap_high": high,
        "margin": MARGIN,
    }
    if p < LEVEL and difference.estimate > 0:
        return "yes", figures
    return ("no" if difference.high < MARGIN else "undecided"), figures


def top_two(measured: Measured) -> Found:
    """Whether the pair of the two best ranks is as good as the best other pair on val."""
    others = [name for name in measured.pairs if name != _TOP_TWO]
    if _TOP_TWO not in measured.ablations:
        raise UnmeasurableError(f"The pair {_TOP_TWO} was not ablated and scored on val.")
    if not others:
        raise UnmeasurableError("No other pair of two distinct directions was ablated and scored on val.")
    rival = others[0]
    _, figures = _compared(measured, _TOP_TWO, rival)
    answer: Answer = "undecided"
    if figures["high"] < MARGIN:
        answer = "yes"
    elif figures["p"] < LEVEL and figures["estimate"] > 0:
        answer = "no"
    first = measured.ablations.index(_TOP_TWO) < measured.ablations.index(rival)
    words = (
        f"{_TOP_TWO} is {'' if first else 'not '}the best pair on val; the best other one, {rival}, against it on test:"
        f" {_fewer(figures)}."
    )
    if measured.directions(_TOP_TWO) < 2:
        words += f" {_TOP_TWO} is one direction twice: what it leaves is what one direction leaves."
        if answer == "yes":
            answer = "undecided"
    val = _on_val(measured, _TOP_TWO, rival)
    if val:
        again = chosen_again(measured.scores(_TOP_TWO, *others), measured.draws, measured.seed)
        val["share_best"] = again[0]
    figures |= {"best_on_val": first, "effective_rank": measured.directions(_TOP_TWO), "val": val}
    return Found(answer, words, figures, [_TOP_TWO, rival])


def beats_control(measured: Measured, size: int, kind: str) -> Found:
    """Whether the best single, or pair, on val removes more than each of the controls of its size and kind."""
    name = measured.single if size == 1 else measured.pair
    named = [one for one in measured.evidence if (parse(one).kind, parse(one).size) == (kind, size)]
    # one that ablates fewer directions than it names is a control of another size
    controls = [one for one in named if measured.directions(one) == size]
    if not controls:
        fewer = f" that differ ({', '.join(named)} ablate fewer)" if named else ""
        raise UnmeasurableError(f"There is no {kind} control of {size} direction{'s' * (size > 1)}{fewer}.")
    pairs = [measured.refused(control, name) for control in controls]
    found = [paired_difference(*pair) for pair in pairs]
    tests = [mcnemar_exact(*pair) for pair in pairs]
    # better than each is said only if every test says so, which needs no adjustment (Berger 1982); not better than
    # some, if any one interval says so, which does
    highest = min(paired_difference(*pair, 1 - LEVEL / len(pairs)).high for pair in pairs)
    answer: Answer = "undecided"
    if max(tests) < LEVEL and min(one.estimate for one in found) > 0:
        answer = "yes"
    elif highest < MARGIN:
        answer = "no"
    figures = {
        "estimate": min(one.estimate for one in found),
        "low": min(one.low for one in found),
        "high": highest,
        "p": max(tests),
        "n": min(pair.shape[1] for pair in pairs),
        "margin": MARGIN,
        "by_draw": {
            control: {
                **one._asdict(),
                "p": p,
                "effective_rank": measured.directions(control),
                "cosine": measured.cosine(control),
            }
            for control, one, p in zip(controls, found, tests, strict=True)
        },
        "left_out": [one for one in named if one not in controls],
    }
    draws = f"{len(controls)} {kind} draw{'s' * (len(controls) > 1)}"
    words = (
        f"The nearest of {draws} of its size leaves {100 * figures['estimate']:.1f} points more refusals than {name}"
        f" (95% {100 * figures['low']:.1f} to {100 * highest:.1f}; largest exact McNemar p = {figures['p']:.2g}). The"
        " answer is about these draws."
    )
    if kind == "shuffled":
        words += (
            f" They stand at the positions and layers of the {'first rank' if size == 1 else f'{size} first ranks'}."
        )
    if size > 1:
        weaker = not any(measured.cosine(control) < COPIES for control in controls)
        if answer == "yes" and weaker and measured.cosine(name) < COPIES:
            answer = "undecided"
            words += f" All are of near-copies (|cosine| at least {COPIES}), and {name} is not: no match for it."
    return Found(answer, words, figures, [name, *controls])


def winners_curse(measured: Measured) -> Found:
    """Whether the best combination on val leaves more refusals on test than val promised."""
    candidates = [name for name in measured.evidence if name in measured.ablations]
    if len(candidates) < 2:
        raise UnmeasurableError("Fewer than two combinations were scored on val, so nothing was chosen.")
    name = measured.ablations[0]
    scores = measured.scores(*candidates)
    gap = measured.gap(name)
    answer = "yes" if gap["low"] > 0 else "no" if gap["high"] < MARGIN else "undecided"
    drawn, halved = optimism(scores, measured.draws, measured.seed)
    figures = {
        **gap,
        "margin": MARGIN,
        "bypass": measured.evidence[name].scores["bypass"],
        "optimism": drawn,
        "optimism_split_half": halved,
        "share_chosen": chosen_again(scores, measured.draws, measured.seed)[candidates.index(name)],
        "candidates": len(candidates),
    }
    words = (
        f"The best of {len(candidates)} combinations on val, {name}, leaves {figures['left_on_val']:.1%} of refusals by"
        f" the sign of the refusal score on val, and {figures['left_on_test']:.1%} by {measured.judge} on test:"
        f" {100 * gap['estimate']:+.1f} points (95% {100 * gap['low']:+.1f} to {100 * gap['high']:+.1f}). The gap holds"
        " the luck of the choice, and what judge and score see differently. Of its bypass score, about"
        f" {drawn:.2f} nats are luck (choosing again from resampled val prompts"
        + ("" if isnan(halved) else f"; {halved:.2f} between halves")
        + ")."
    )
    return Found(answer, words, figures, [BASELINE, *candidates])


def _compared(measured: Measured, reference: str, candidate: str) -> tuple[Answer, dict[str, Any]]:
    """`better` on the prompts that are valid under both; `left_out` counts the others."""
    refused = measured.refused(reference, candidate)
    answer, figures = better(*refused, measured.draws, measured.seed)
    return answer, figures | {"left_out": len(measured.verdicts(reference)) - refused.shape[1]}


def _on_val(measured: Measured, first: str, second: str) -> dict[str, Any] | None:
    """How much higher the bypass of the first is than the second's, over val prompts; None without scores by prompt.

    Where one of them was chosen for its bypass, this flatters it.
    """
    try:
        scores = measured.scores(first, second)
    except UnmeasurableError:
        return None
    difference = bootstrap_mean_difference(*scores.T, draws=measured.draws, seed=measured.seed)
    return {**difference._asdict(), "n": len(scores)}


def _fewer(figures: Mapping[str, Any]) -> str:
    low, high, estimate = (100 * figures[key] for key in ("low", "high", "estimate"))
    return (
        f"{figures['candidate_refused']} refusals for {figures['reference_refused']} on {figures['n']} prompts,"
        f" {estimate:.1f} points fewer (95% {low:.1f} to {high:.1f}; exact McNemar p = {figures['p']:.2g})"
    )


def _percent(share: Mapping[str, Any]) -> str:
    invalid = f", {share['invalid']} invalid" if share["invalid"] else ""
    return f"{share['estimate']:.1%} (95% {share['low']:.1%}-{share['high']:.1%}, n = {share['n']}{invalid})"
