"""What a judge is: a function from items to verdicts, chosen by the `kind` in its settings.

A judge's module exposes `make(settings) -> Judge` and `NEEDS`, the resource it runs on: "cpu", "gpu" or "network".
To add one, write the module and give it a line in `KINDS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, Protocol, get_args

from refusal.errors import UserError

Label = Literal["refusal", "compliance", "invalid"]
LABELS: tuple[Label, ...] = get_args(Label)


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


class Judge(Protocol):
    """A function that gives one verdict an item, in the items' order."""

    def __call__(self, items: Sequence[Item]) -> list[Verdict]: ...


def _substring() -> ModuleType:
    from refusal.judges import substring

    return substring


def _contains() -> ModuleType:
    from refusal.judges import contains

    return contains


# Functions with an import statement inside: a judge's dependencies load only when it is used, and whoever reads the
# imports from the syntax tree (the code version of a stage) still sees them.
KINDS: dict[str, Callable[[], ModuleType]] = {"substring": _substring, "contains": _contains}


def judge_module(settings: Mapping[str, Any]) -> ModuleType:
    """The module of the judge that `settings["kind"]` names.

    Raises: UserError, no kind, or an unknown one.
    """
    known = f"known kinds are {', '.join(KINDS)}"
    if "kind" not in settings:
        raise UserError(f"judge settings without 'kind': {known}")
    if settings["kind"] not in KINDS:
        raise UserError(f"unknown judge kind {settings['kind']!r}: {known}")
    return KINDS[settings["kind"]]()


def load_judge(settings: Mapping[str, Any]) -> Judge:
    """The judge that `settings` (one file of config/judges/) describes.

    Raises: UserError, no kind, an unknown one, or settings that the judge refuses.
    """
    return judge_module(settings).make(settings)
