"""Corpora for CE loss: rows of {text} or {instruction, response}, from a file or streamed from the hub."""

from itertools import islice
from pathlib import Path

from refusal.artifacts import read_jsonl
from refusal.errors import UserError
from refusal.hub import explained

FIELDS = {"text": ("text",), "chat": ("instruction", "response")}

_ALPACA = {"response": "output"}
"""Names that the alpaca data set has for ours."""


def read_local(path: Path, form: str, rows: int) -> list[dict]:
    """The first rows of a .jsonl file, or the paragraphs of a .txt file (text only).

    Raises: UserError: no such file, another ending, a row without its fields, fewer rows than asked.
    """
    path = Path(path)
    if path.suffix == ".txt" and form == "text":
        try:
            found = [{"text": part.strip()} for part in path.read_text().split("\n\n") if part.strip()]
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
    elif path.suffix == ".jsonl":
        found = read_jsonl(path, FIELDS[form])
    else:
        raise UserError(f"{path}: a {form} corpus is a .jsonl file{' or a .txt file' if form == 'text' else ''}")
    return _checked(found[:rows], form, str(path), rows)


def read_hub(name: str, config: str | None, split: str, revision: str | None, form: str, rows: int) -> list[dict]:
    """The first rows of a data set on the hub, streamed: no more than these is downloaded.

    Chat rows may call the response `output`; rows with a non-empty `input` (alpaca's context) are passed over.
    Raises: UserError: cannot be reached, no such data set, a row without its fields, fewer rows than asked.
    """
    from datasets import load_dataset

    with explained(name):
        stream = iter(load_dataset(name, config, split=split, revision=revision, streaming=True))
        usable = (row for row in stream if form == "text" or not row.get("input"))
        found = list(islice(usable, rows))
    renamed = [{ours: row.get(ours, row.get(_ALPACA.get(ours, ours))) for ours in FIELDS[form]} for row in found]
    return _checked(renamed, form, name, rows)


def _checked(found: list[dict], form: str, where: str, rows: int) -> list[dict]:
    if len(found) < rows:
        raise UserError(f"{where}: {rows} rows are asked for and it has {len(found)}: lower `rows` of this corpus")
    for number, row in enumerate(found, 1):
        for field in FIELDS[form]:
            if not isinstance(row[field], str) or not row[field].strip():
                raise UserError(f"{where}: row {number}: `{field}` is empty or no text: mend or remove it")
    return [{field: row[field] for field in FIELDS[form]} for row in found]
