"""Padding, room and batches: every row once, in order, within the bound, and fewer when memory runs out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refusal.errors import UserError
from refusal.model.batching import OutOfMemoryError, Room, Size, in_batches, left_pad, memory_errors

CPU = torch.device("cpu")
rows = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=6)
costs = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def free_of_charge(_row):
    return Size(0, 0)


class TestLeftPad:
    @given(rows, st.integers(0, 9))
    def test_keeps_each_row_at_the_right_end(self, rows, at_least):
        found = left_pad(rows, 0, CPU, at_least)
        width = max(at_least, *map(len, rows))
        assert {name: value.shape for name, value in found.items()} == dict.fromkeys(
            ("input_ids", "attention_mask", "position_ids"), (len(rows), width)
        )
        for number, row in enumerate(rows):
            padding = width - len(row)
            assert found["input_ids"][number].tolist() == [0] * padding + row
            assert found["attention_mask"][number].tolist() == [0] * padding + [1] * len(row)
            assert found["position_ids"][number, padding:].tolist() == list(range(len(row)))
            assert (found["position_ids"][number, :padding] == 0).all()


class TestRoom:
    @given(costs, st.integers(1, 12), st.integers(1, 60))
    def test_as_many_as_fit_padded_to_the_dearest(self, costs, most, memory):
        count = Room(most, memory).fitting(Size(cost, 1) for cost in costs)
        assert 1 <= count <= most
        assert count == 1 or count * max(costs[:count]) <= memory
        if count < min(most, len(costs)):  # one more would not fit
            assert (count + 1) * max(costs[: count + 1]) > memory

    @given(costs, st.integers(1, 60))
    def test_tokens_are_bounded_likewise(self, costs, tokens):
        found = Room(12, tokens=tokens).fitting(Size(1, cost) for cost in costs)
        assert found == Room(12, memory=tokens).fitting(Size(cost, 1) for cost in costs)

    def test_without_a_bound_the_number_counts(self):
        assert Room(3).fitting([Size(10**15, 10**9)] * 9) == 3
        assert Room(3, math.inf).fitting([Size(1, 1)]) == 1

    def test_nothing_waits_nothing_fits(self):
        assert Room(3).fitting([]) == 0

    def test_a_single_row_is_tried_whatever_the_model_of_memory_says(self):
        assert Room(8, 5).fitting([Size(9, 1), Size(9, 1)]) == 1


class TestInBatches:
    @given(st.lists(st.integers(), max_size=20), st.integers(1, 7), st.integers(1, 7))
    def test_every_row_once_in_order_also_when_memory_runs_out(self, rows, size, fits):
        def compute(batch):
            if len(batch) > fits:
                raise torch.OutOfMemoryError
            return [2 * row for row in batch]

        found = list(in_batches(rows, Room(size), free_of_charge, compute))
        assert [row for batch, _ in found for row in batch] == rows
        assert [value for _, values in found for value in values] == [2 * row for row in rows]
        assert all(len(batch) <= min(size, fits) for batch, _ in found)

    @given(costs, st.integers(1, 30))
    def test_no_batch_passes_the_bound(self, costs, memory):
        batches = [batch for batch, _ in in_batches(costs, Room(99, memory), lambda cost: Size(cost, 1), len)]
        assert [cost for batch in batches for cost in batch] == costs
        assert all(len(batch) == 1 or len(batch) * max(batch) <= memory for batch in batches)

    def test_the_smaller_size_is_kept_also_for_what_comes_later(self):
        tried, room = [], Room(8)

        def compute(batch):
            tried.append(len(batch))
            if len(batch) > 2:
                raise torch.OutOfMemoryError

        list(in_batches(range(8), room, free_of_charge, compute))
        list(in_batches(range(4), room, free_of_charge, compute))
        assert tried == [8, 4, 2, 2, 2, 2, 2, 2]

    def test_one_row_that_does_not_fit(self):
        def compute(_batch):
            raise torch.OutOfMemoryError

        with pytest.raises(UserError) as caught:
            list(in_batches([1, 2, 3], Room(2), free_of_charge, compute))
        assert str(caught.value) == (
            "out of memory with a single row: use a larger device, a smaller dtype or shorter prompts"
        )

    def test_other_errors_pass(self):
        with pytest.raises(RuntimeError, match=r"^broken$"):
            list(in_batches([1], Room(1), free_of_charge, lambda _: (_ for _ in ()).throw(RuntimeError("broken"))))


def test_the_processors_allocator_says_it_in_its_own_way():
    with pytest.raises(OutOfMemoryError), memory_errors():
        torch.empty(2**60)
