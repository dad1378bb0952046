"""What models that judge have answered, kept by what they were asked: nothing is asked, or paid for, twice.

cache/answers/KEY/*.jsonl, KEY the hash of all that decides an answer beside the item. A line is an answer; one that a
killed process left unfinished is none. Each process appends to a file of its own, and one at a time asks (`alone`).
"""

import fcntl
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from refusal.artifacts import digest, naming, write_json
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
def alone(root: Path, asked: Mapping[str, Any]) -> Iterator[None]:
    """Within the block, no other process asks the same: two that did would both pay for what both lack."""
    folder = folder_of(root, asked)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another job asks the same judge: waiting for its answers")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file ends it, also when the process is killed


@contextmanager
def keeping(root: Path, asked: Mapping[str, Any]) -> Iterator[Callable[[Item, Answer], None]]:
    """Within the block, a function that writes an answer down at once."""
    folder = folder_of(root, asked)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "asked.json", asked)  # for whoever looks; no code reads it
    path = folder / f"{uuid4().hex}.jsonl"
    with path.open("x", encoding="utf-8") as file:

        def keep(item: Item, answer: Answer) -> None:
            row = {"instruction": item.instruction, "response": item.response, "raw": answer.raw, "fault": answer.fault}
            with naming(path):
                file.write(json.dumps(row) + "\n")
                file.flush()

        yield keep
    if not path.stat().st_size:
        path.unlink()
