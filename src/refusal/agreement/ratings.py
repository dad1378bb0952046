"""Who gave which label to which response: judges in their files of verdicts, people in a CSV."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from refusal.artifacts import read_jsonl
from refusal.combinations import parse
from refusal.errors import UserError
from refusal.judges.base import LABELS, Label

COLUMNS = ("combination", "set", "id", "label")
"""Of a CSV of labels; beside them `rater` and `response` are read, others are not."""

PERSON = "human"
"""Who labelled, in a CSV without the column `rater`."""


class Place(NamedTuple):
    """Which response: to which prompt of which set, under which combination."""

    prompts: str
    combination: str
    id: str


Ratings = Mapping[str, Mapping[Place, Label]]
"""Rater -> response -> label."""


def read_verdicts(paths: Iterable[Path]) -> dict[str, dict[Place, Label]]:
    """Labels of judges, by name, from COMBINATION/judgements/JUDGE/SET.jsonl.

    Raises: UserError, a path of another form, or a verdict that is unknown or given twice, with its line.
    """
    found: dict[str, dict[Place, Label]] = {}
    for path in paths:
        if len(path.parts) < 4 or path.parts[-3] != "judgements":
            raise UserError(f"{path}: not where verdicts stand: give COMBINATION/judgements/JUDGE/SET.jsonl")
        combination, judge = parse(path.parts[-4]).id, path.parts[-2]
        given = found.setdefault(judge, {})
        for number, row in enumerate(read_jsonl(path, ("id", "verdict")), 1):
            place = Place(path.stem, combination, str(row["id"]))
            if row["verdict"] not in LABELS:
                known = ", ".join(LABELS)
                raise UserError(f"{path}: line {number}: verdict {row['verdict']!r} is not one of {known}")
            if place in given:
                raise UserError(
                    f"{path}: line {number}: {judge} already has a verdict on {_said(place)}: give each response once"
                )
            given[place] = row["verdict"]
    return found


def completion_files(paths: Iterable[Path]) -> list[Path]:
    """Where the judged responses stand, beside the verdicts; only files that are there."""
    files = dict.fromkeys(path.parents[2] / "completions" / path.name for path in paths)
    return [path for path in files if path.exists()]


def read_responses(paths: Iterable[Path]) -> dict[Place, str]:
    """The responses of COMBINATION/completions/SET.jsonl."""
    return {
        Place(path.stem, parse(path.parts[-3]).id, str(row["id"])): row["response"]
        for path in paths
        for row in read_jsonl(path, ("id", "response"))
    }


def read_labels(path: Path, judged: Ratings, responses: Mapping[Place, str]) -> dict[str, dict[Place, Label]]:
    """Labels of people, by name, from a CSV with the columns combination, set, id and label.

    A column `rater` says who labelled. A column `response` is held against the response that is there now: a label
    belongs to the text that was read. Rows without a label are not labelled yet.

    Args:
        judged: of the judges; what none of them judged is a typing error.
        responses: to hold a column `response` against.
    Raises: UserError that names the file and the row (the header is row 1).
    """
    found: dict[str, dict[Place, Label]] = {}
    rows: dict[tuple[str, Place], int] = {}
    known = {place for verdicts in judged.values() for place in verdicts}
    for number, cells in _rows(path):
        where = f"{path}: row {number}"
        if not cells["label"]:
            continue
        place, rater = _place(cells, where), cells.get("rater", PERSON)
        if cells["label"] not in LABELS:
            raise UserError(f"{where}: label {cells['label']!r}: write one of {', '.join(LABELS)}, or leave it empty")
        if not rater:
            raise UserError(f"{where}: no rater: write who labelled it, or leave the column out")
        if rater in judged:
            raise UserError(f"{where}: rater '{rater}' is the name of a judge: give the person another")
        if place not in known:
            raise UserError(
                f"{where}: no judge has a verdict on {_said(place)}: mend the row, or give its judgements too"
            )
        if (rater, place) in rows:
            raise UserError(
                f"{where}: {rater} labelled {_said(place)} in row {rows[rater, place]} already: keep one of them"
            )
        _check_response(cells, responses.get(place), where, place)
        rows[rater, place] = number
        found.setdefault(rater, {})[place] = cells["label"]
    if not found:
        raise UserError(f"{path}: no labels: fill in the column `label`, or leave --labels out")
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Row number and its cells by column, spaces around them left out; rows without any are skipped."""
    number = 1
    try:
        # utf-8-sig: spreadsheets write a byte order mark
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(rows, [])]
            if missing := [column for column in COLUMNS if column not in header]:
                raise UserError(
                    f"{path}: no column `{missing[0]}`: the first row must name {', '.join(COLUMNS)}, by commas"
                )
            for number, row in enumerate(rows, 2):
                cells = [cell.strip() for cell in row]
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    raise UserError(
                        f"{path}: row {number}: {len(cells)} cells where the first row has {len(header)}: mend it, with"
                        ' quotes ("...") around text that holds a comma'
                    )
                yield number, dict(zip(header, cells, strict=True))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error}): save it as CSV UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: after row {number}: not a CSV table ({error}): mend it") from None


def _place(cells: Mapping[str, str], where: str) -> Place:
    try:
        combination = parse(cells["combination"]).id
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return Place(cells["set"], combination, cells["id"])


def _check_response(cells: Mapping[str, str], response: str | None, where: str, place: Place) -> None:
    if "response" not in cells:
        return
    if response is None:
        raise UserError(f"{where}: the response to {_said(place)} is not there to compare: give its completions beside")
    if cells["response"] != response.strip():
        raise UserError(f"{where}: {_said(place)} has another response now than the one labelled: label it again")


def _said(place: Place) -> str:
    return f"{place.id} of {place.prompts}, combination {place.combination}"
