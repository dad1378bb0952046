"""The study's questions and their answers in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any


def narrate_claims(made: Sequence[Mapping[str, Any]], name: str, judge: str, prompts: str) -> str:
    """What the claims of `claims` say, in Markdown, a bullet each; all their figures stand in claims.json."""
    lines = [
        f"# {name}: claims",
        "",
        f"Judge: {judge}, on {prompts} test prompts. All that is chosen is chosen on val. Each answer stands for"
        " itself, at the 5% level; undecided is not no. Not refused is not answered: broken text is no refusal either.",
        "",
    ]
    return "\n".join([*lines, *map(_said, made), ""])


def _said(one: Mapping[str, Any]) -> str:
    more = " (Combinations that were not chosen: `claims.json`.)" if "descriptive" in one else ""
    return f"- {one['question']} **{one['answer'].capitalize()}.** {one['words']}{more}"
