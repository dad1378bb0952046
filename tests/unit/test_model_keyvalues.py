"""The cache of keys and values against plain concatenation, selection and padding."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from refusal.model.keyvalues import KeyValues

HEADS, DIM = 2, 3


def tokens(rows, count, seed=0):
    """Keys and values of new tokens, [row, head, token, dim] each."""
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, HEADS, count, DIM, generator=made) for _ in range(2)]


def filled(rows, columns, seed=0):
    cache = KeyValues(2)
    expected = []
    for layer in range(2):
        keys, values = tokens(rows, columns, seed + layer)
        cache.update(keys, values, layer)
        expected.append(keys)
    return cache, expected


def held(cache, layer):
    found = cache.layers[layer]
    return found.keys[:, :, : found.length]


@given(st.lists(st.integers(1, 90), min_size=1, max_size=5))
def test_what_is_written_in_place_is_what_concatenation_gives(counts):
    cache, parts = KeyValues(1), []
    for number, count in enumerate(counts):
        keys, values = tokens(2, count, number)
        parts.append((keys, values))
        seen = cache.update(keys, values, 0)
        for found, kind in zip(seen, range(2), strict=True):
            torch.testing.assert_close(found, torch.cat([part[kind] for part in parts], dim=2))
    assert cache.get_seq_length() == sum(counts)
    assert cache.get_mask_sizes(1, 0) == (sum(counts) + 1, 0)
    assert cache.nbytes == 2 * 2 * HEADS * sum(counts) * DIM * 4


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6)), min_size=1, max_size=6))
def test_spread_moves_each_row_to_the_right(moves):
    cache, expected = filled(3, 5)
    rows, shift = (torch.tensor(part) for part in zip(*moves, strict=True))
    made = KeyValues.spread([cache.row(number) for number in range(3)], rows, shift)
    for layer in range(2):
        for number, (row, by) in enumerate(moves):
            found = held(made, layer)[number]
            torch.testing.assert_close(found[:, by:], expected[layer][row][:, : max(0, 5 - by)])
            assert torch.isfinite(found).all()  # what is masked must not be a NaN
    torch.testing.assert_close(held(cache, 0), expected[0])  # the one it came from is as it was


@given(st.lists(st.integers(0, 3), max_size=3, unique=True), st.integers(1, 8), st.booleans())
def test_rearranged_rows_end_in_the_same_column(keep, width, joins):
    cache, old = filled(4, 6)
    other, new = filled(2, 4, seed=9)
    if not keep and not joins:
        return
    cache.rearrange(torch.tensor(keep, dtype=torch.long), width, other if joins else None)
    for layer in range(2):
        found = held(cache, layer)
        rows = [old[layer][number] for number in keep] + (list(new[layer]) if joins else [])
        assert found.shape == (len(rows), HEADS, width, DIM)
        for one, row in zip(found, rows, strict=True):
            real = min(width, row.shape[1])
            torch.testing.assert_close(one[:, width - real :], row[:, row.shape[1] - real :])
            assert (one[:, : width - real] == 0).all()
    # and the next token goes behind
    keys, values = tokens(len(rows), 1)
    seen, _ = cache.update(keys, values, 0)
    torch.testing.assert_close(seen[:, :, -1:], keys)


def test_layers_that_a_pass_skipped_have_the_length_of_the_last():
    cache = KeyValues(2)
    keys, values = tokens(1, 4)
    cache.update(keys, values, 1)
    assert cache.get_seq_length(0) == cache.get_query_offset(0) == 4
    assert cache.get_mask_sizes(3, 0) == (7, 0)
    made = KeyValues.spread([cache], torch.tensor([0, 0]), torch.tensor([0, 1]), 1)
    assert (made.layers[0].is_initialized, held(made, 1).shape[0]) == (False, 2)
