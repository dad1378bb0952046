"""The summary as a table for people: a figure and its interval in one cell, columns in groups, a few shown at first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

import pandas as pd

from refusal.headline import roles
from refusal.study import KINDS
from refusal.summary import corpus_of, cost_columns

TAGS = {"baseline": "baseline", "best_single": "best single", "best_pair": "best pair"}

_VERDICTS = {"refusal": "refused", "compliance": "complied", "invalid": "invalid"}
_COMPARED = {
    "p": ("p", "exact McNemar test"),
    "p_holm": ("Holm p", "exact McNemar test, adjusted over all ablations of ranks"),
    "pairs": ("pairs", "prompts with a valid verdict on both sides"),
}
_REFERENCES = {"baseline": "baseline", "best_single": "best single"}
_MANY = 100  # prompts, above which a tenth of a percent is more than one of them


@dataclass(frozen=True)
class Column:
    """A column of the table.

    key: of the summary; low, high: columns of its bounds; note: what stands small beside its label; about: how to read
    it; form: a figure in words; share: drawn as part of a whole; text: sorted as text; shown: at first.
    """

    key: str
    group: str
    label: str
    about: str
    form: Callable[[Any], str]
    note: str = ""
    low: str | None = None
    high: str | None = None
    share: bool = False
    text: bool = False
    shown: bool = False


def figure(form: str) -> Callable[[float], str]:
    """A way to write a figure: a true minus, and no minus before what rounds to zero."""

    def write(value: float) -> str:
        text = format(value, form)
        if float(text.rstrip("%")) == 0:
            text = text.replace("-", "+" if form.startswith("+") else "")
        return text.replace("-", "\N{MINUS SIGN}")

    return write


_COUNT = figure(".0f")


def kind_of(kind: str) -> str:
    """A kind by the name that people know."""
    return "baseline" if kind == "none" else kind


def percent(n: int) -> Callable[[float], str]:
    """A way to write shares of n prompts."""
    return figure(".1%" if n > _MANY else ".0%")


def cost(row: Mapping[str, Any], column: str) -> str:
    """A CE change with its interval: +0.0021 (−0.0002 to +0.0044)."""
    if pd.isna(row[column]):
        return "not measured"
    value, low, high = (figure("+.4f")(row[f"{column}{side}"]) for side in ("", "_low", "_high"))
    return value if pd.isna(row[f"{column}_low"]) else f"{value} ({low} to {high})"


def columns(table: pd.DataFrame, judge: str) -> list[Column]:
    """All columns of a summary; shown at first are the few that answer the question by this judge."""
    made = [*_design(), *_scores()]
    for prompts in KINDS:
        judges = [
            name.removeprefix(f"{prompts}_").removesuffix("_refusal_rate")
            for name in table
            if name.startswith(f"{prompts}_") and name.endswith("_refusal_rate")
        ]
        for one in judges:
            made += _rates(prompts, one, int(table[f"{prompts}_n"].max()), one == judge)
    made += _costs(table)
    return [column for column in made if column.key in table and table[column.key].notna().any()]


def rows(table: pd.DataFrame, given: list[Column]) -> list[dict[str, Any]]:
    """A row a combination: `id`, `kind`, `tags`, and a cell a column: [text, interval, value, low, high]."""
    tags = {name: TAGS[role] for role, name in roles(table).items()}
    return [
        {
            "id": row["combination"],
            "kind": kind_of(row["kind"]),
            "tag": tags.get(row["combination"]),
            "cells": [_cell(row, column) for column in given],
        }
        for row in table.to_dict("records")
    ]


def _cell(row: Mapping[str, Any], column: Column) -> list:
    value = row[column.key]
    if pd.isna(value):
        return ["", "", None, None, None]
    if column.text:
        return [column.form(value), "", str(value), None, None]
    low, high = (row[bound] if bound else None for bound in (column.low, column.high))
    interval = ""
    if column.low and not isnan(low):
        interval = f"{column.form(low).rstrip('%')} to {column.form(high).rstrip('%')}"
        low, high = float(low), float(high)
    else:
        low = high = None
    return [column.form(value), interval, float(value), low, high]


def _bounded(key: str, group: str, label: str, about: str, form: str, **more: Any) -> Column:
    stem = key.removesuffix("_rate")
    return Column(key, group, label, about, figure(form), low=f"{stem}_low", high=f"{stem}_high", **more)


def _design() -> list[Column]:
    group = "what is ablated"
    return [
        Column("kind", group, "kind", "ablation of ranks, a control, or a direction added", kind_of, text=True),
        Column("k", group, "named", "directions that the combination names", _COUNT),
        Column("effective_rank", group, "ablated", "distinct directions that are ablated", _COUNT, shown=True),
        Column("max_cosine", group, "cosine", "largest |cosine| of two of its directions", figure(".2f")),
        Column("source", group, "source", "how its directions were made", str, text=True),
        Column("ablation", group, "mode", "span: projected out together; sequential: one by one", str, text=True),
    ]


def _scores() -> list[Column]:
    val = "val prompts"
    return [
        _bounded("bypass", val, "bypass", "mean refusal score of harmful val prompts, nats; low is good", ".2f"),
        _bounded("harmless_refusal_score", val, "harmless score", "mean refusal score of harmless val prompts", ".2f"),
        _bounded("kl", val, "KL", "change of the next token on harmless val prompts, nats", ".3f", shown=True),
        Column(
            "val_refused", val, "val refused", "harmful val prompts with a score above 0", figure(".0%"), share=True
        ),
    ]


def _rates(prompts: str, judge: str, n: int, first: bool) -> list[Column]:
    group, prefix = f"{prompts} prompts, by {judge}", f"{prompts}_{judge}"
    made = [
        Column(
            f"{prefix}_{verdict}_rate",
            group,
            f"{prompts} {words}",
            f"share of {n} {prompts} test prompts, Wilson 95% interval",
            percent(n),
            judge,
            f"{prefix}_{verdict}_low",
            f"{prefix}_{verdict}_high",
            share=True,
            shown=first and verdict == "refusal",
        )
        for verdict, words in _VERDICTS.items()
    ]
    made.append(
        _bounded(
            f"{prefix}_gap",
            group,
            "gap to val",
            "share of refusals left on test less that on val, 95% interval",
            "+.1%",
            note=judge,
        )
    )
    for reference, said in _REFERENCES.items():
        for test, (label, about) in _COMPARED.items():
            made.append(
                Column(
                    f"{prefix}_{test}_vs_{reference}",
                    group,
                    f"{prompts} {label}",
                    f"refusals of {prompts} prompts against the {said}: {about}",
                    _COUNT if test == "pairs" else figure(".2g"),
                    f"vs {said}",
                    shown=first and prompts == "harmful" and (test, reference) == ("p_holm", "best_single"),
                )
            )
    return made


def _costs(table: pd.DataFrame) -> list[Column]:
    made = []
    for number, delta in enumerate(cost_columns(table)):
        corpus = corpus_of(delta)
        group = f"cost on {corpus}"
        made += [
            _bounded(
                delta,
                group,
                "CE change",
                f"cross-entropy on {corpus} above the baseline's, nats per token, 95% over texts",
                "+.4f",
                note=corpus,
                shown=number == 0,
            ),
            Column(f"ce_{corpus}", group, "CE", f"cross-entropy on {corpus}, nats per token", figure(".4f"), corpus),
            Column(f"perplexity_{corpus}", group, "perplexity", f"exp(CE) on {corpus}", figure(".2f"), corpus),
        ]
    return made
