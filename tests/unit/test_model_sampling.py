"""Drawing a token: the right frequencies, the cut at top_p, and a row's numbers its own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refusal.model.sampling import Sampling, drawn, likeliest

LOGITS = torch.tensor([2.0, 0.5, 1.0, -3.0, 0.0])


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.8)])
def test_frequencies_are_the_probabilities(temperature, top_p):
    count = 20_000
    grid = (torch.arange(count) + 0.5) / count  # every uniform number alike
    found = drawn(LOGITS.expand(count, -1), Sampling(temperature, top_p, 0), grid)
    expected = (LOGITS / temperature).softmax(-1).numpy()
    order = np.argsort(-expected)
    kept = order[: int(np.searchsorted(np.cumsum(expected[order]), top_p)) + 1]
    cut = np.where(np.isin(np.arange(5), kept), expected, 0)
    np.testing.assert_allclose(np.bincount(found, minlength=5) / count, cut / cut.sum(), atol=1e-3)


@given(st.floats(0, 1, exclude_max=True), st.floats(0.01, 1), st.floats(0.05, 5))
def test_what_is_cut_is_never_drawn(uniform, top_p, temperature):
    found = int(drawn(LOGITS[None], Sampling(temperature, top_p, 0), torch.tensor([uniform]))[0])
    p = (LOGITS / temperature).softmax(-1)
    assert float(p[p > p[found]].sum()) < top_p


def test_a_small_top_p_is_greedy():
    rows = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn(rows, Sampling(1.0, 1e-6, 0), torch.rand(20)), likeliest(rows))


def test_the_lowest_id_of_equals_is_greedy():
    assert likeliest(torch.tensor([[1.0, 3.0, 3.0]])).tolist() == [1]


def test_the_numbers_of_a_row_depend_on_seed_and_row_alone():
    one = Sampling(1.0, 1.0, 5)
    np.testing.assert_array_equal(one.draws("a", 4), Sampling(0.3, 0.5, 5).draws("a", 8)[:4])
    assert not np.array_equal(one.draws("a", 4), one.draws("b", 4))
    assert not np.array_equal(one.draws("a", 4), Sampling(1.0, 1.0, 6).draws("a", 4))
