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


def flags(made: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Add --part, which sets `part` and `marker`. Returns: the group for the outputs, which it stands instead of."""
    made.set_defaults(part=WHOLE, marker=None)
    group = made.add_mutually_exclusive_group(required=True)
    group.add_argument(
        "--part",
        nargs=2,
        metavar=("I/N", "MARKER"),
        action=_Part,
        default=argparse.SUPPRESS,
        help="compute part I (from 0) of N only, into the cache; MARKER: the file that says it is done",
    )
    return group


def share(items: Sequence[Item], part: Part) -> list[Item]:
    """Every n-th item: parts are disjoint, and together all."""
    number, count = part
    return list(items[number::count])


def mark(path: Path, part: Part, keys: Sequence[str]) -> None:
    """Say that a part is done, with its items' keys in the cache."""
    write_json(path, {"part": "/".join(map(str, part)), "items": list(keys)})


class _Part(argparse.Action):
    def __call__(self, parser, namespace, values, _option=None):
        text, marker = values
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise argparse.ArgumentError(self, f"'{text}' is no part: I/N with I from 0, such as 0/4")
        namespace.part, namespace.marker = (int(number), int(count)), Path(marker)
