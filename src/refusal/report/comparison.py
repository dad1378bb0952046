"""What stands on the page of several models, as plain data for its template."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from refusal.headline import roles
from refusal.report.conclusion import QUESTION, conclude
from refusal.report.contents import headlines
from refusal.report.tables import cost
from refusal.summary import corpus_of, cost_columns


class Findings(NamedTuple):
    """What was found of a model: its claims.json, its summary, and where its own page stands, if there is one."""

    claims: Mapping[str, Any]
    table: pd.DataFrame
    page: Path | None


def compared(found: Mapping[str, Findings]) -> dict[str, Any]:
    """The values of the template: a row a model, and every question with each model's answer.

    Args:
        found: model -> findings. A page's path is relative to the page of all.
    """
    questions = dict.fromkeys(one["question"] for each in found.values() for one in each.claims["claims"])
    answers = {name: {one["question"]: one["answer"] for one in each.claims["claims"]} for name, each in found.items()}
    return {
        "question": QUESTION,
        "models": [_model(name, each) for name, each in found.items()],
        "questions": [(text, [answers[name].get(text) for name in found]) for text in questions],
    }


def _model(name: str, found: Findings) -> dict[str, Any]:
    judge = found.claims["judge"]
    shown = {one["role"]: one for one in headlines(found.table, judge)}
    return {
        "name": name,
        "page": found.page.as_posix() if found.page else None,
        "judge": judge,
        "conclusion": conclude(found.claims["claims"]),
        "headlines": list(shown.values()),
        "costs": _costs(found.table),
    }


def _costs(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each corpus the CE change under the best single and the best pair, with its interval."""
    known = table.set_index("combination")
    ablated = {role: name for role, name in roles(table).items() if role != "baseline"}
    return [
        {
            "corpus": corpus_of(column),
            **{role: cost(known.loc[name], column) for role, name in ablated.items()},
        }
        for column in cost_columns(table)
    ]
