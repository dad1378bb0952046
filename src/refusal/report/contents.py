"""What stands on the page of one study, as plain data for its template."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from refusal.combinations import parse
from refusal.headline import roles
from refusal.report.conclusion import QUESTION, conclude
from refusal.report.discretion import discreet
from refusal.report.figures import Figure
from refusal.report.pages import packed
from refusal.report.tables import TAGS, columns, cost, figure, percent, rows
from refusal.summary import corpus_of, cost_columns

_MANY_SOURCES = 40  # of which a page shows no more: the sidecars have them all


def contents(
    name: str,
    claims: Mapping[str, Any],
    table: pd.DataFrame,
    ranking: pd.DataFrame,
    agreement: pd.DataFrame | None,
    figures: Iterable[Figure],
    responses: Mapping[str, Any],
    summary: bytes,
) -> dict[str, Any]:
    """The values of the template: question, answers, plots, combinations and responses.

    Args:
        claims: claims.json. table, summary: summary.csv, read and as it is. ranking: ranking.csv. agreement: of two
            judges or more. responses: of `refusal.report.responses.gather`.
    """
    judge = claims["judge"]
    given = columns(table, judge)
    ranks = _ranks(ranking, table)
    places = _places(ranks, table)
    made = rows(table, given)
    shown = [number for number, column in enumerate(given) if column.shown]
    return {
        "name": name,
        "question": QUESTION,
        "judge": judge,
        "conclusion": conclude(claims["claims"]),
        "claims": claims["claims"],
        "rules": claims["rules"],
        "headlines": [{**one, "which": places.get(one["id"])} for one in headlines(table, judge)],
        "figures": list(figures),
        "columns": [given[number] for number in shown],
        "rows": [{**row, "cells": [row["cells"][number] for number in shown]} for row in made],
        "kinds": list(dict.fromkeys(row["kind"] for row in made)),
        "ranks": ranks,
        "agreement": _agreement(agreement),
        "csv": base64.b64encode(summary).decode(),
        "sets": {prompts: len(found["prompts"]) for prompts, found in responses["sets"].items()},
        "data": packed(
            {
                **responses,
                "judge": judge,
                "chosen": list(roles(table).values()),
                "combinations": [{key: row[key] for key in ("id", "kind", "tag")} for row in made],
                "columns": [
                    {key: getattr(column, key) for key in ("group", "label", "note", "about", "share", "text", "shown")}
                    for column in given
                ],
                "rows": [row["cells"] for row in made],
            }
        ),
    }


def headlines(table: pd.DataFrame, judge: str) -> Iterable[dict[str, Any]]:
    """Of the baseline, the best single and the best pair on val: which, and the share of harmful prompts refused.

    `cost`: of the two ablations, their CE change on the first corpus, in words; None where there is no loss.
    """
    prefix = f"harmful_{judge}"
    known = table.set_index("combination")
    for role, name in roles(table).items():
        row = known.loc[name]
        paid = [
            f"CE on {corpus_of(column)} {cost(row, column)} nats/token"
            for column in cost_columns(table)[:1]
            if role != "baseline"
        ]
        found = {"role": TAGS[role], "id": name, "cost": paid[0] if paid else None}
        if f"{prefix}_refusal_rate" not in known or pd.isna(row[f"{prefix}_refusal_rate"]):
            yield {**found, "rate": None}
            continue
        write = percent(int(row["harmful_n"]))
        value, low, high = (float(row[f"{prefix}_refusal_{side}"]) for side in ("rate", "low", "high"))
        yield {
            **found,
            "rate": write(value),
            "interval": f"{write(low).rstrip('%')} to {write(high)}",
            "value": value,
            "low": low,
            "high": high,
            "n": int(row["harmful_n"]),
            "invalid": round(row[f"{prefix}_invalid_rate"] * row["harmful_n"]),
        }


def settings(given: Mapping[str, Any], model: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the template that say what was run on what, fit to be handed on.

    Args:
        given: `study`, `model`, `judges`, as configured; or nothing, for a run that was imported. model: model.json.
        origin: of `refusal.report.origins.origins`.
    """
    sources = discreet(origin["sources"])
    return {
        "configured": discreet(dict(given)),
        "identity": discreet({key: value for key, value in model.items() if key != "positions"}),
        "facts": [*filter(None, [model["architecture"]]), f"{model['layers']} layers", f"width {model['width']}"],
        "stages": discreet(origin["stages"]),
        "sources": sources[:_MANY_SOURCES],
        "more_sources": max(0, len(sources) - _MANY_SOURCES),
    }


def _ranks(ranking: pd.DataFrame, table: pd.DataFrame) -> list[dict[str, Any]]:
    """The candidates that combinations of the table name."""
    named = {rank for name in table.combination for rank in parse(name).ranks}
    ranked = ranking[ranking["rank"].isin(named)].sort_values("rank")
    forms = {"bypass": ".2f", "induce": ".2f", "kl": ".3f", "cosine_to_rank_0": ".2f"}
    return [
        {
            **{key: int(row[key]) for key in ("rank", "layer", "position")},
            **{key: "" if pd.isna(row[key]) else figure(form)(row[key]) for key, form in forms.items()},
        }
        for row in ranked.to_dict("records")
    ]


def _places(ranks: Sequence[Mapping[str, Any]], table: pd.DataFrame) -> dict[str, str]:
    """Where the directions of an ablation come from, in words."""
    known = {one["rank"]: f"layer {one['layer']} at position {figure('d')(one['position'])}" for one in ranks}
    named = {name: parse(name) for name in table.combination}
    return {
        name: " and ".join(known[rank] for rank in one.ranks)
        for name, one in named.items()
        if one.kind == "ablation" and set(one.ranks) <= set(known)
    }


def _agreement(table: pd.DataFrame | None) -> Sequence[Mapping[str, Any]]:
    """Two by two, over all sets: how far judges agree."""
    if table is None:
        return []
    whole = table[(table["set"] == "all") & (table["raters"] == 2)]

    def said(row: Mapping[str, Any], key: str, form: str) -> str:
        if pd.isna(row[key]):
            return ""
        write, low, high = figure(form), row[f"{key}_low"], row[f"{key}_high"]
        return write(row[key]) + ("" if pd.isna(low) else f" ({write(low)} to {write(high)})")

    return [
        {
            "first": row["first"],
            "second": row["second"],
            "valid": f"{int(row['valid']):,} of {int(row['n']):,}",
            "agreement": said(row, "agreement", ".1%"),
            "kappa": said(row, "kappa", ".3f"),
        }
        for row in whole.to_dict("records")
    ]
