"""Padding and batches: every row once, in order, and smaller batches when memory runs out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refusal.errors import UserError
from refusal.model.batching import in_batches, left_pad

CPU = torch.device("cpu")
rows = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=6)


@given(rows)
def test_left_pad_keeps_each_row_at_the_right_end(rows):
    found = left_pad(rows, 0, CPU)
    width = max(map(len, rows))
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "position_ids"), (len(rows), width)
    )
    for number, row in enumerate(rows):
        padding = width - len(row)
        assert found["input_ids"][number].tolist() == [0] * padding + row
        assert found["attention_mask"][number].tolist() == [0] * padding + [1] * len(row)
        assert found["position_ids"][number, padding:].tolist() == list(range(len(row)))
        assert (found["position_ids"][number, :padding] == 0).all()


@given(st.lists(st.integers(), max_size=20), st.integers(1, 7), st.integers(1, 7))
def test_every_row_once_in_order_also_when_memory_runs_out(rows, size, fits):
    def compute(batch):
        if len(batch) > fits:
            raise torch.OutOfMemoryError
        return [2 * row for row in batch]

    found = list(in_batches(rows, size, compute))
    assert [row for batch, _ in found for row in batch] == rows
    assert [value for _, values in found for value in values] == [2 * row for row in rows]
    assert all(len(batch) <= min(size, fits) for batch, _ in found)


def test_the_smaller_size_is_kept_for_the_rest():
    tried = []

    def compute(batch):
        tried.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError

    list(in_batches(range(8), 8, compute))
    assert tried == [8, 4, 2, 2, 2, 2]


def test_one_row_that_does_not_fit():
    def compute(_batch):
        raise torch.OutOfMemoryError

    with pytest.raises(UserError) as caught:
        list(in_batches([1, 2, 3], 2, compute))
    assert str(caught.value) == (
        "out of memory with a single row: use a larger device, a smaller dtype or shorter prompts"
    )


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match=r"^broken$"):
        list(in_batches([1], 1, lambda batch: (_ for _ in ()).throw(RuntimeError("broken"))))
