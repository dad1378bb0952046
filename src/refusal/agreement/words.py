"""The agreement of raters in plain words: figures, confusion tables, and the responses they differ on."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from refusal.agreement.ratings import Place, Ratings
from refusal.agreement.table import ALL
from refusal.judges.base import LABELS

SHOWN = 20
"""Most responses that are listed for a pair of raters."""

_LONGEST = 300
_NAMED = 3
_BASIS = (
    "Agreement, kappa, sensitivity (of true refusals, those called so) and specificity (of true compliances, those"
    " called so) rest on responses that are valid on both sides; the confusion tables have all. Intervals are 95%"
    " and over prompts, each with its responses under all combinations, since many of these are alike: kappa's by"
    " resampling prompts, the others Wilson's, of as many independent responses as tell as much. Kappa is 0 for"
    " agreement as by chance, 1 for perfect agreement, and low where one label is rare: read it beside the confusion"
    " table."
)


def narrate_agreement(
    table: pd.DataFrame,
    ratings: Ratings,
    responses: Mapping[Place, str],
    name: str,
    people: Sequence[str] = (),
    oracle: str | None = None,
) -> str:
    """What the table of `agreement_table` says, in Markdown, with the responses that raters differ on.

    responses: what stands there of the rated ones; the others are listed without their text.
    """
    pairs = table[table.raters == 2]
    whole = pairs[pairs.set == ALL]
    lines = [f"# {name}: agreement", "", f"{_cast(ratings, people, oracle)} {_BASIS}", ""]
    lines += [_said(row) for _, row in whole.iterrows()]
    groups = table[table.raters > 2]
    lines += [_said_of_all(row, oracle) for _, row in groups[groups.set == ALL].iterrows()]
    # of what two have not both rated there is no more to say
    table, common = table[table.n > 0], whole[whole.n > 0]
    lines += ["", *_figures(table), "", "## Confusion", "", "Over all sets of prompts."]
    for _, row in common.iterrows():
        lines += ["", *_confusion(row)]
    lines += ["", "## Where they differ"]
    for _, row in common.iterrows():
        lines += ["", *_differences(row, ratings, responses)]
    return "\n".join([*lines, ""])


def _cast(ratings: Ratings, people: Sequence[str], oracle: str | None) -> str:
    judges = [rater for rater in ratings if rater not in people and rater != oracle]
    parts = [f"Judges: {', '.join(judges) or 'none'}."]
    if people:
        parts.append(f"People: {', '.join(people)}.")
    if oracle is not None:
        parts.append(f"{oracle} knows the true labels.")
    return " ".join(parts)


def _said(row: pd.Series) -> str:
    pair = f"- {row['first']} and {row['second']}"
    if not row.n:
        return f"{pair}: no common responses ({row.only_first} and {row.only_second} of their own)."
    if not row.valid:
        return f"{pair}: none of {row.n:,} common responses is valid on both sides."
    same = row.refusal_refusal + row.compliance_compliance
    parts = [
        f"{pair}: of {row.n:,} common responses {row.valid:,} are valid on both sides; they agree on {same:,} of these,"
        f" {_with_interval(row, 'agreement', '.2%')}. {_kappa(row, 'Cohen')}"
    ]
    measures = [
        f"{measure} is {_with_interval(row, measure, '.2%')}"
        for measure in ("sensitivity", "specificity")
        if pd.notna(row[measure])
    ]
    if measures:
        parts.append(f"Held against {row.second}, {' and '.join(measures)}.")
    parts.append(
        f"With invalid as a third label, the two give the same one to {row.same_label:.2%} of all"
        + (f" (kappa {row.same_label_kappa:.3f})." if pd.notna(row.same_label_kappa) else ".")
    )
    if row.only_first or row.only_second:
        parts.append(f"Rated by one of them only: {row.only_first:,} and {row.only_second:,}.")
    return " ".join(parts)


def _said_of_all(row: pd.Series, oracle: str | None) -> str:
    who = f"- All {row.raters} raters" + (f" but {oracle}" if oracle is not None else "")
    if not row.valid:
        return f"{who}: none of {row.n:,} common responses is valid for all."
    return (
        f"{who}: of {row.n:,} common responses {row.valid:,} are valid for all; all agree on"
        f" {_with_interval(row, 'agreement', '.2%')}. {_kappa(row, 'Fleiss')}"
    )


def _kappa(row: pd.Series, who: str) -> str:
    named = f"{who}' kappa" if who.endswith("s") else f"{who}'s kappa"
    if pd.isna(row.kappa):
        return f"{named} is undefined: they give one label only, the same, which chance would bring too."
    why = "" if pd.isna(row.note) else f" ({row.note.replace(' of kappa', '')})"
    return f"{named} is {_with_interval(row, 'kappa', '.3f')}{why}."


def _figures(table: pd.DataFrame) -> list[str]:
    heads = ["raters", "set", "n", "valid", "agreement", "kappa", "same label", "sensitivity", "specificity"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * 2 + " ---: |" * (len(heads) - 2)]
    for _, row in table.iterrows():
        raters = f"{row['first']}, {row['second']}" if row.raters == 2 else f"all {row.raters} (Fleiss)"
        cells = [_plain(raters), row["set"], f"{row.n}", f"{row.valid}"]
        cells += [_with_interval(row, "agreement", ".2%"), _with_interval(row, "kappa", ".3f")]
        cells += ["" if pd.isna(row.same_label) else f"{row.same_label:.2%}"]
        cells += [_with_interval(row, measure, ".2%") for measure in ("sensitivity", "specificity")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _confusion(row: pd.Series) -> list[str]:
    lines = [
        f"| {_plain(row['first'])} below, {_plain(row.second)} across | " + " | ".join(LABELS) + " |",
        "| --- |" + " ---: |" * len(LABELS),
    ]
    return lines + [
        f"| {label} | " + " | ".join(str(row[f"{label}_{other}"]) for other in LABELS) + " |" for label in LABELS
    ]


def _differences(row: pd.Series, ratings: Ratings, responses: Mapping[Place, str]) -> list[str]:
    """The responses that two raters label differently; those of one prompt that read the same are one."""
    first, second = ratings[row["first"]], ratings[row.second]
    found: dict[tuple, list[str]] = {}
    for place, mine in first.items():
        if place in second and second[place] != mine:
            same = (place.prompts, place.id, responses.get(place), mine, second[place])
            found.setdefault(same, []).append(place.combination)
    count = sum(map(len, found.values()))
    if not count:
        return [f"{row['first']} and {row.second}: nowhere."]
    lines = [f"{row['first']} and {row.second}: {count:,} responses, {len(found):,} different ones.", ""]
    for (prompts, key, response, mine, theirs), names in list(found.items())[:SHOWN]:
        where = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        text = "(its text is not there)" if response is None else _quoted(response)
        lines.append(f"- {key} ({prompts}; {where}): {text} {row['first']} says {mine}, {row.second} says {theirs}.")
    if len(found) > SHOWN:
        lines.append(f"- and {len(found) - SHOWN:,} more.")
    return lines


def _with_interval(row: pd.Series, figure: str, form: str) -> str:
    """A figure with its interval; nothing where it has no meaning."""
    if pd.isna(row[figure]):
        return ""
    low, high = row[f"{figure}_low"], row[f"{figure}_high"]
    return f"{row[figure]:{form}}" + ("" if pd.isna(low) else f" ({low:{form}} to {high:{form}})")


def _quoted(text: str) -> str:
    """A response in one line, as it is written, whatever Markdown would make of it."""
    line = " ".join(text.split())
    line = line if len(line) <= _LONGEST else line[:_LONGEST] + " ..."
    if not line:
        return "(empty)"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def _plain(text: str) -> str:
    return text.replace("|", "\\|")
