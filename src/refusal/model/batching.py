"""Rows into batches: left padding, and smaller batches when memory runs out."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from refusal.errors import UserError

log = logging.getLogger("refusal")

Row = TypeVar("Row")
Result = TypeVar("Result")


def left_pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Rows of token ids as model inputs: `input_ids`, `attention_mask`, `position_ids`, each [row, token].

    The last column is every row's last token; positions count real tokens only, so padding changes nothing.
    """
    width = max(map(len, rows))
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


def in_batches(
    rows: Sequence[Row], size: int, compute: Callable[[Sequence[Row]], Result]
) -> Iterator[tuple[Sequence[Row], Result]]:
    """Yield (batch, compute(batch)) over consecutive rows, at most `size` at a time.

    When the device's memory runs out the size is halved, said, and kept for the rest.
    Raises: UserError, one row alone does not fit.
    """
    start = 0
    while start < len(rows):
        batch = rows[start : start + size]
        try:
            result = compute(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise UserError(
                    "out of memory with a single row: use a larger device, a smaller dtype or shorter prompts"
                ) from None
            size = len(batch) // 2
            torch.cuda.empty_cache()
            log.warning("out of memory: batches of %d rows from here on (run.batch_rows)", size)
            continue
        yield batch, result
        start += len(batch)
