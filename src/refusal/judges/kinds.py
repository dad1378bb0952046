"""The kinds of judges, chosen by the `kind` in their settings.

A judge's module exposes `make(settings) -> Judge` and what it NEEDS, to be known without making it. To add one, write
the module and give it a line in `KINDS`.
"""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from refusal.errors import UserError
from refusal.judges.base import Judge


def _substring() -> ModuleType:
    from refusal.judges import substring

    return substring


def _contains() -> ModuleType:
    from refusal.judges import contains

    return contains


def _oracle() -> ModuleType:
    from refusal.judges import oracle

    return oracle


def _classifier() -> ModuleType:
    from refusal.judges import classifier

    return classifier


def _rubric() -> ModuleType:
    from refusal.judges import rubric

    return rubric


# Functions with an import statement inside: a judge's dependencies load only when it is used, and whoever reads the
# imports from the syntax tree (the code version of a stage) still sees them.
KINDS: dict[str, Callable[[], ModuleType]] = {
    "substring": _substring,
    "contains": _contains,
    "oracle": _oracle,
    "classifier": _classifier,
    "rubric": _rubric,
}


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
