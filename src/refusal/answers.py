"""What models that judge have answered, kept by what they were asked: nothing is asked, or paid for, twice.

cache/answers/KEY/*.jsonl, KEY the hash of all that decides an answer beside the item. A line is an answer. Each process
appends to a file of its own, so that none waits for another, also on file systems without locks; a line that a killed
process left unfinished is no answer.
"""

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refusal.artifacts import digest, write_json
from refusal.cache import ANSWERS
from refusal.judges.base import Answer, Item

log = logging.getLogger("refusal")


def key_of(asked: Mapping[str, Any]) -> str:
    """Of all that decides an answer beside the item; the name of its folder in the cache."""
    return digest(asked)


def folder_of(root: Path, asked: Mapping[str, Any]) -> Path:
    """Where the answers stand."""
    return root / ANSWERS / key_of(asked)


def kept(root: Path, asked: Mapping[str, Any]) -> dict[Item, Answer]:
    """Every answer that is there."""
    found = {}
    for path in sorted(folder_of(root, asked).glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            if not line:
                continue
            try:
                row = json.loads(line)
                item, answer = Item(row["instruction"], row["response"]), Answer(row["raw"], row["fault"])
            except (ValueError, KeyError, TypeError):
                log.warning("%s: line %d: an unfinished answer, asked for again", path, number)
                continue
            found[item] = answer
    return found


@contextmanager
def keeping(root: Path, asked: Mapping[str, Any]) -> Iterator[Any]:
    """Within the block, a function (item, answer) that writes an answer down at once."""
    folder = folder_of(root, asked)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "asked.json", asked)  # for whoever looks; no code reads it
    handle, name = tempfile.mkstemp(dir=folder, prefix="", suffix=".jsonl")
    with os.fdopen(handle, "w", encoding="utf-8") as file:

        def keep(item: Item, answer: Answer) -> None:
            row = {"instruction": item.instruction, "response": item.response, "raw": answer.raw, "fault": answer.fault}
            file.write(json.dumps(row) + "\n")
            file.flush()

        yield keep
    if not Path(name).stat().st_size:
        Path(name).unlink()
