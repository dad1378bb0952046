"""Rows into batches: left padding, how many rows fit, and fewer of them when memory runs out."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch

from refusal.errors import UserError

log = logging.getLogger("refusal")

Row = TypeVar("Row")
Result = TypeVar("Result")


class OutOfMemoryError(Exception):
    """The device's memory, or the machine's, did not hold a batch."""


class Size(NamedTuple):
    """What a row takes of a batch: bytes, and tokens that a pass computes."""

    memory: int
    tokens: int


class Room:
    """How much a batch may hold. It shrinks when memory runs out, and stays so.

    rows: at most; memory: bytes for what a batch needs beside the weights; tokens: of all rows in a pass.
    """

    def __init__(self, rows: int, memory: float = math.inf, tokens: float = math.inf) -> None:
        self.rows = rows
        self.memory = memory
        self.tokens = tokens

    def fitting(self, sizes: Iterable[Size]) -> int:
        """How many of the next rows fit together, at least one; each takes what the largest of them does (padding)."""
        count, memory, tokens = 0, 0, 0
        for size in sizes:
            memory, tokens, more = max(memory, size.memory), max(tokens, size.tokens), count + 1
            if count == self.rows or (count and (more * memory > self.memory or more * tokens > self.tokens)):
                break
            count = more
        return count

    def split(self, rows: Sequence[Row], size: Callable[[Row], Size]) -> Iterator[Sequence[Row]]:
        """Consecutive rows, as many at a time as fit."""
        while rows:
            count = self.fitting(map(size, rows[: self.rows]))
            yield rows[:count]
            rows = rows[count:]

    def shrink(self, rows: int) -> None:
        """Half of the rows that did not fit, from here on.

        Raises: UserError, it was a single one.
        """
        if rows == 1:
            raise UserError("out of memory with a single row: use a larger device, a smaller dtype or shorter prompts")
        self.rows = rows // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning("out of memory: batches of %d rows from here on (run.batch_rows)", self.rows)


def by_length(groups: Sequence[Sequence[Row]], rows: int, length: Callable[[Row], int]) -> list[Row]:
    """Rows of all groups, so that neighbours have like lengths, and early groups are still finished early.

    Sorted by length within chunks of groups that hold about so many `rows`, so that batches need little padding.
    """
    chunks, waiting = [], []
    for number, group in enumerate(groups, 1):
        waiting += group
        if len(waiting) >= rows or number == len(groups):
            chunks += sorted(waiting, key=length)
            waiting = []
    return chunks


@contextmanager
def memory_errors() -> Iterator[None]:
    """Within the block, running out of memory is OutOfMemoryError, on a GPU and on the processor alike."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # of the processor's allocator; it has no type of its own
            raise
        raise OutOfMemoryError from error


def in_batches(
    rows: Sequence[Row], room: Room, size: Callable[[Row], Size], compute: Callable[[Sequence[Row]], Result]
) -> Iterator[tuple[Sequence[Row], Result]]:
    """Yield (batch, compute(batch)) over consecutive rows, as many at a time as there is room for.

    Raises: UserError, one row alone does not fit.
    """
    start = 0
    while start < len(rows):
        batch = rows[start : start + room.fitting(size(row) for row in rows[start : start + room.rows])]
        try:
            with memory_errors():
                result = compute(batch)
        except OutOfMemoryError:
            room.shrink(len(batch))
            continue
        yield batch, result
        start += len(batch)


def left_pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device, width: int = 0) -> dict[str, torch.Tensor]:
    """Rows of token ids as model inputs: `input_ids`, `attention_mask`, `position_ids`, each [row, token].

    The last column is every row's last token; positions count real tokens only, so padding changes nothing.
    width: columns, if more than the longest row needs.
    """
    width = max(width, *map(len, rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[number, width - len(row) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "position_ids": positions.to(device),
    }
