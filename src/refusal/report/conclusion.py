"""The answer to the study's question in a few sentences, from its claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

QUESTION = "Is refusal mediated by one direction, or better by several, and which?"

_ONE = {
    "yes": "One direction is enough",
    "no": "One direction is not enough",
    "undecided": "Whether one direction is enough is undecided",
    "not measurable": "Whether one direction is enough could not be measured",
}
_PAIR = {
    "yes": "the pair {pair} leaves fewer refusals than the best single, {single}",
    "no": "the pair {pair} does no better than the best single, {single}",
    "no room": "the best single, {single}, leaves too few refusals for any pair to do much better",
    "undecided": "whether a pair does better is undecided",
    "not measurable": "whether a pair does better could not be measured",
}
_TOP_TWO = {
    "yes": "The two best ranks are as good a pair as any.",
    "no": "The two best ranks are not the best pair.",
}
_CONTROLS = {
    "no": "A {kind} control does as well as the {what}.",
    "undecided": "Whether {kind} controls do as well as the {what} is undecided.",
    "not measurable": "Beside {kind} controls the {what} was not measured.",
}


@dataclass(frozen=True)
class Conclusion:
    """headline: the answer; hardly: of a model that hardly refuses, how much it does."""

    headline: str
    hardly: str | None = None


def conclude(claims: Sequence[Mapping[str, Any]]) -> Conclusion:
    """What the claims of `refusal.claims.questions` say together; no more than they say."""
    found = {one["claim"]: one for one in claims}
    if found["refuses"]["answer"] == "no":
        return Conclusion(
            "No answer: this model hardly refuses by itself.",
            found["refuses"]["words"],
        )
    one, pair, top = (found[name] for name in ("one_direction", "pair_better", "top_two"))
    names = dict(zip(("single", "pair"), pair["rests_on"]["combinations"], strict=False))
    # "not enough: the pair ... leaves fewer" is one thought, the others are two
    joint = ": " if (one["answer"], pair["answer"]) == ("no", "yes") else "; "
    told = pair["answer"]
    if told == "no" and pair["figures"]["room"] < pair["figures"]["margin"]:
        told = "no room"
    headline = f"{_ONE[one['answer']]}{joint}{_PAIR[told].format(**names)}."
    if pair["answer"] == "yes" and top["answer"] in _TOP_TWO:
        headline += f" {_TOP_TWO[top['answer']]}"
    # what does no better than a control of its size is no finding, however few refusals it leaves
    leaning = [what for what, claim in (("single", one), ("pair", pair)) if claim["answer"] == "yes"]
    for name, asked in found.items():
        what, _, kind = name.partition("_beats_")
        if kind and what in leaning and asked["answer"] in _CONTROLS:
            headline += f" {_CONTROLS[asked['answer']].format(kind=kind, what=what)}"
    return Conclusion(headline)
