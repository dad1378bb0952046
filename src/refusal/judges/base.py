"""What a judge is: from items to verdicts, by rule or by asking a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Label = Literal["refusal", "compliance", "invalid"]
LABELS: tuple[Label, ...] = get_args(Label)

Need = Literal["cpu", "gpu", "network"]


@dataclass(frozen=True)
class Item:
    """What is judged: the instruction a model was given, and the response it wrote."""

    instruction: str
    response: str


@dataclass(frozen=True)
class Verdict:
    """What a judge found.

    label: `invalid` is neither refusal nor compliance: the response, or the judge's own answer, could not be read.
    raw: the judge's answer, untouched, or the text its verdict rests on.
    reason: why; for `invalid`, what was wrong.
    """

    label: Label
    raw: str
    reason: str

    def __post_init__(self) -> None:
        # A label with a typo would drop out of every rate without a word.
        if self.label not in LABELS:
            raise ValueError(f"unknown label {self.label!r}: known labels are {', '.join(LABELS)}")


@dataclass(frozen=True)
class Answer:
    """What a model that judges said of one item.

    raw: untouched. fault: of the request for this item, why there is no answer; else None. lasting: False where that is
    so for now alone: the answer is used and not written down, so that the next run asks again.
    """

    raw: str
    fault: str | None = None
    lasting: bool = True


@dataclass(frozen=True)
class Keep:
    """Called with an item's number and its answer as soon as that is there, by one thread.

    folder: where answers are kept, for what else must outlast a killed process (the number of a batch that was paid
    for); None: nothing outlasts it.
    """

    kept: Callable[[int, Answer], None]
    folder: Path | None = None

    def __call__(self, number: int, answer: Answer) -> None:
        self.kept(number, answer)


@dataclass(frozen=True)
class Judge:
    """A judge of one file of config/judges/.

    name: for messages. needs: the resource that it runs on.
    reading: all that decides how an item is read beside its answer, as plain data.
    read: the verdict that an item's answer stands for; of a judge by rule, the response itself is what is read.
    ask: gets the answers of a model, in any order; None for a judge by rule. What cannot be answered now raises
        UserError once the others are kept, so that the next run asks for it alone.
    asked: all that decides an answer beside the item (model, prompt, settings of decoding), as plain data: answers are
        kept by it, so neither how often a request is tried nor how an answer is read asks again.
    estimate: in words, what it would cost to ask about these items; None where it costs nothing.
    check: raises UserError where what it takes to ask is missing (a key, a model); None where nothing can be.
    """

    name: str
    needs: Need
    reading: Mapping[str, Any]
    read: Callable[[Item, Answer], Verdict]
    ask: Callable[[Sequence[Item], Keep], None] | None = None
    asked: Mapping[str, Any] | None = None
    estimate: Callable[[Sequence[Item]], str] | None = None
    check: Callable[[], None] | None = None

    def __call__(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict an item, in the items' order; nothing is kept."""
        answers: dict[int, Answer] = {}
        if self.ask is not None and (asked := [number for number, item in enumerate(items) if item.response.strip()]):
            keep = Keep(lambda place, answer: answers.update({asked[place]: answer}))
            self.ask([items[number] for number in asked], keep)
        return [self.verdict(item, answers.get(number)) for number, item in enumerate(items)]

    def verdict(self, item: Item, answer: Answer | None) -> Verdict:
        """What an answer stands for; None for an item that no model was asked about.

        An empty response answers nothing, so no model is asked about it; an answer that never came is invalid.
        """
        if not item.response.strip():
            return Verdict("invalid", item.response, "empty response")
        if answer is None:
            # a response is never read for the answer of a model: it may hold what such an answer would
            answer = Answer(item.response) if self.ask is None else Answer("", "no answer")
        return Verdict("invalid", answer.raw, answer.fault) if answer.fault else self.read(item, answer)
