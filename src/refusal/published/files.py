"""The JSON files of a published run, read with checks: each fault is one line with its file and row."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refusal.errors import UserError
from refusal.published.runs import (
    DIRECTION,
    EVALUATIONS,
    FIELDS,
    FILTERED,
    LABELS,
    LOSSES,
    MEAN_DIFFS,
    METADATA,
    Place,
    Row,
    Run,
)

_SCORES = {"bypass": "refusal_score", "induce": "steering_score", "kl": "kl_div_score"}
_CORPORA = {"pile": "pile", "alpaca": "alpaca", "alpaca_custom_completions": "on_distribution"}
_RESPONSES = re.compile(rf"(?P<dataset>.+)_(?P<label>{'|'.join(LABELS)})_(?P<content>completions|evaluations)\.json")
_VERDICT = re.compile(r"is_jailbreak_(\w+)", re.ASCII)

Scores = Mapping[Place, Mapping[str, float]]
Numbered = Sequence[tuple[str, Row]]
"""Rows, each with the file and the row's number for messages."""


def read_run(folder: Path) -> Run:
    """Read a run folder, its tensors aside.

    It must hold select_direction/direction_evaluations.json and generate_directions/mean_diffs.pt; any other file may
    be missing.
    Raises: UserError that names the file and the row: missing, malformed, or two files that do not agree.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: name a run of the published scripts (pipeline/runs/MODEL)")
    reader = _Reader(folder)
    scores = _scores(reader)
    survivors = _survivors(reader, scores)
    choice = _choice(reader, scores, survivors)
    responses, verdicts = _responses(reader)
    losses = {label: _loss(reader, path) for label, path in LOSSES.items() if reader.has(path)}
    reader.has(DIRECTION)
    if not reader.has(MEAN_DIFFS):
        raise UserError(f"{folder / MEAN_DIFFS}: no such file: fetch it too, the directions stand there alone")
    return Run(folder, scores, survivors, choice, responses, verdicts, losses, reader.files, reader.remarks)


class _Reader:
    """Reads files of one folder, and remembers which."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}
        self.remarks: list[str] = []

    def has(self, name: str) -> bool:
        """Whether the folder holds a file, which is then one of the run's."""
        if found := (self.folder / name).is_file():
            self.files[name] = self.folder / name
        return found

    def json(self, name: str, kind: type, what: str) -> Any:
        """The content of a JSON file, of the kind that is needed."""
        path = self.folder / name
        if not self.has(name):
            raise UserError(f"{path}: no such file: name a run of the published scripts (pipeline/runs/MODEL)")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"{path}: not valid JSON ({error}): fetch it again") from None
        if not isinstance(content, kind):
            raise UserError(f"{path}: must hold {what}, as the published scripts write it")
        return content

    def rows(self, name: str, key: str | None = None) -> Numbered:
        """The objects of a list, which stands alone or under a key."""
        path = self.folder / name
        content = self.json(name, dict if key else list, f"an object with `{key}`" if key else "a list")
        rows = content.get(key) if key else content
        if not isinstance(rows, list) or not rows:
            raise UserError(f"{path}: holds no rows: fetch it again")
        numbered = [(f"{path}: row {number}", row) for number, row in enumerate(rows, 1)]
        for where, row in numbered:
            if not isinstance(row, dict):
                raise UserError(f"{where}: is no object: fetch it again")
        return numbered


def _scores(reader: _Reader) -> Scores:
    """Every row of direction_evaluations.json, in the order of position and layer."""
    found: dict[Place, Mapping[str, float]] = {}
    for where, row in reader.rows(EVALUATIONS):
        place = _place(row, where, "position", "layer")
        if place in found:
            raise UserError(f"{where}: {place} has two rows: fetch it again")
        found[place] = {ours: _number(row, theirs, where) for ours, theirs in _SCORES.items()}
    return dict(sorted(found.items()))


def _survivors(reader: _Reader, scores: Scores) -> list[Place] | None:
    """Places of direction_evaluations_filtered.json, best first."""
    if not reader.has(FILTERED):
        return None
    found: list[Place] = []
    # the published scripts write an empty list where no candidate is left
    rows = reader.rows(FILTERED) if reader.json(FILTERED, list, "a list") else []
    for where, row in rows:
        place = _place(row, where, "position", "layer")
        same = {ours: _number(row, theirs, where) for ours, theirs in _SCORES.items()}
        if place in found:
            raise UserError(f"{where}: {place} has two rows: fetch it again")
        # one with a score that is not-a-number is never kept, so plain equality will do
        if scores.get(place) != same:
            raise UserError(f"{where}: {place} has other scores in {EVALUATIONS}, or none: fetch both again")
        if found and scores[found[-1]]["bypass"] > same["bypass"]:
            raise UserError(f"{where}: {place} is better than the row above it: fetch it again")
        found.append(place)
    return found


def _choice(reader: _Reader, scores: Scores, survivors: Sequence[Place] | None) -> Place | None:
    """The direction that the run went on with; without its file, the best that was left."""
    if not reader.has(METADATA):
        return survivors[0] if survivors else None
    path = reader.folder / METADATA
    place = _place(reader.json(METADATA, dict, "an object"), str(path), "pos", "layer")
    if place not in scores:
        raise UserError(f"{path}: {place} has no row in {EVALUATIONS}: fetch both again")
    if survivors is not None and place not in survivors[:1]:
        best = f"begins with {survivors[0]}" if survivors else "is empty"
        raise UserError(f"{path}: names {place}, and {FILTERED} {best}: fetch both again")
    return place


def _responses(reader: _Reader) -> tuple[dict, dict]:
    """Rows and verdicts by (dataset, label), from completions/*.json."""
    rows: dict[tuple[str, str], tuple[Path, list[Row]]] = {}
    verdicts: dict[tuple[str, str], Mapping[str, Sequence[int]]] = {}
    found = sorted((reader.folder / "completions").glob("*.json"))
    named = [(path, _RESPONSES.fullmatch(path.name)) for path in found]
    strange = [path.name for path, name in named if not name]
    reader.remarks += [f"left out: completions/{name}: a name of no published file" for name in strange]
    # evaluations repeat the rows of completions, and stand in for them where these are missing
    for content in ("completions", "evaluations"):
        for path, name in named:
            if not name or name["content"] != content:
                continue
            key = (name["dataset"], name["label"])
            numbered = reader.rows(f"completions/{path.name}", "completions" if content == "evaluations" else None)
            read = [_fields(row, where) for where, row in numbered]
            _check_same(path, read, rows.setdefault(key, (path, read)), FIELDS)
            if content == "evaluations":
                verdicts[key] = _verdicts(numbered)
    ordered = sorted(rows, key=lambda key: (key[0], LABELS.index(key[1])))
    first = {dataset: rows[dataset, label] for dataset, label in reversed(ordered)}
    for key in ordered:
        _check_same(*rows[key], first[key[0]], ("category", "prompt"))
    return {key: rows[key][1] for key in ordered}, verdicts


def _check_same(path: Path, rows: Sequence[Row], other: tuple[Path, Sequence[Row]], fields: Sequence[str]) -> None:
    """Rows of a file against those of another that must have the same."""
    for number, pair in enumerate(zip(rows, other[1], strict=False), 1):
        if different := [field for field in fields if pair[0][field] != pair[1][field]]:
            raise UserError(f"{path}: row {number}: another `{different[0]}` than in {other[0].name}: fetch both again")
    if len(rows) != len(other[1]):
        raise UserError(f"{path}: {len(rows)} rows, and {other[0].name} has {len(other[1])}: fetch both again")


def _verdicts(numbered: Numbered) -> dict[str, list[int]]:
    """Methodology -> verdict of each row."""
    keys = [key for key in numbered[0][1] if _VERDICT.fullmatch(key)]
    for where, row in numbered:
        if odd := {key for key in row if _VERDICT.fullmatch(key)} ^ set(keys):
            raise UserError(f"{where}: `{min(odd)}` stands in some rows and not in others: fetch it again")
        if wrong := [key for key in keys if row[key] not in (0, 1)]:
            raise UserError(f"{where}: `{wrong[0]}` is {row[wrong[0]]!r}: the published scripts write 0 or 1")
    return {_VERDICT.fullmatch(key)[1]: [int(row[key]) for _, row in numbered] for key in keys}


def _loss(reader: _Reader, name: str) -> dict[str, dict[str, Any]]:
    """Our name of a corpus -> figures; one that is not-a-number, and the sum that the run does not keep, are None."""
    found = {}
    for corpus, figures in reader.json(name, dict, "an object").items():
        where = f"{reader.folder / name}: {corpus}"
        if corpus not in _CORPORA:
            reader.remarks.append(f"left out: {name}: {corpus}: a corpus of no published file")
            continue
        if not isinstance(figures, dict):
            raise UserError(f"{where}: must hold ce_loss, perplexity and n_tokens: fetch it again")
        means = {key: _number(figures, key, where) for key in ("ce_loss", "perplexity")}
        known = {key: value if math.isfinite(value) else None for key, value in means.items()}
        found[_CORPORA[corpus]] = known | {"nats": None, "n_tokens": _whole(figures, "n_tokens", where)}
    return found


def _fields(row: Row, where: str) -> Row:
    """Category, prompt and response of a row."""
    for field in FIELDS:
        value = row.get(field, ...)
        if not isinstance(value, str) and not (field == "category" and value is None):
            raise UserError(f"{where}: `{field}` is {'missing' if value is ... else repr(value)}: text is needed")
        if value and any("\ud800" <= character <= "\udfff" for character in value):
            raise UserError(f"{where}: `{field}` holds half a character (a lone surrogate): mend it")
    return {field: row[field] for field in FIELDS}


def _place(row: Row, where: str, position: str, layer: str) -> Place:
    place = Place(_whole(row, position, where), _whole(row, layer, where))
    if place.position >= 0 or place.layer < 0:
        raise UserError(f"{where}: {place}: positions are below 0, and layers count from 0")
    return place


def _whole(row: Row, key: str, where: str) -> int:
    value = row.get(key, ...)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{where}: `{key}` is {'missing' if value is ... else repr(value)}: a whole number is needed")
    return value


def _number(row: Row, key: str, where: str) -> float:
    """A number, not-a-number included: models in half precision give some."""
    value = row.get(key, ...)
    if value is None:
        return math.nan
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UserError(f"{where}: `{key}` is {'missing' if value is ... else repr(value)}: a number is needed")
    return float(value)
