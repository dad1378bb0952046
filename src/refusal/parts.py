"""A stage shared out over several jobs: each computes its part of the items into the cache, then one publishes all."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from refusal.artifacts import write_json

Item = TypeVar("Item")

Part = tuple[int, int]
"""Number of this part, from 0, and how many there are."""

WHOLE: Part = (0, 1)


def flags(made: argparse.ArgumentParser) -> None:
    """Add --part and --marker."""
    made.add_argument("--part", type=_part, default=WHOLE, help="compute one of N parts only, I/N with I from 0")
    made.add_argument("--marker", type=Path, help="with --part: file that says it is done; nothing else is written")


def share(items: Sequence[Item], part: Part) -> list[Item]:
    """Every n-th item: parts are disjoint, and together all."""
    number, count = part
    return list(items[number::count])


def mark(path: Path, part: Part, keys: Sequence[str]) -> None:
    """Say that a part is done, with its items' keys in the cache."""
    write_json(path, {"part": "/".join(map(str, part)), "items": list(keys)})


def _part(text: str) -> Part:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"'{text}' is no part: I/N with I from 0, such as 0/4")
    return int(number), int(count)
