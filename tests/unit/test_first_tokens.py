"""Which tokens start refusals: by the contrast of first tokens, or an error that names the strongest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.errors import UserError
from refusal.first_tokens import MIN_CONTRAST, MIN_RATIO, MOST, SHOWN, FirstToken, propose, strongest


def table(*pairs):
    return [FirstToken(number, f"t{number}", *pair) for number, pair in enumerate(pairs)]


def chosen(*pairs):
    return [one.id for one in propose(table(*pairs), "here")]


class TestStrongest:
    def test_by_contrast_then_id(self):
        harmful, harmless = np.array([0.1, 0.5, 0.3, 0.1]), np.array([0.0, 0.6, 0.0, 0.0])
        assert strongest(harmful, harmless) == [2, 0, 3, 1]

    def test_at_most(self):
        values = np.arange(5.0 * SHOWN)
        assert strongest(values, np.zeros_like(values)) == list(range(5 * SHOWN - 1, 4 * SHOWN - 1, -1))

    @given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60))
    def test_none_left_out_is_stronger(self, pairs):
        harmful, harmless = np.array(pairs).T
        found = strongest(harmful, harmless)
        contrast = harmful - harmless
        assert len(set(found)) == min(SHOWN, len(pairs))
        assert list(contrast[found]) == sorted(contrast, reverse=True)[: len(found)]


class TestPropose:
    def test_those_that_start_refusals(self):
        assert chosen((0.9, 0.0), (0.12, 0.01), (0.08, 0.0)) == [0, 1]

    def test_one_that_starts_any_reply_is_left_out(self):
        assert chosen((0.6, 0.35), (0.2, 0.01)) == [1]
        assert chosen((0.6, 0.3)) == [0]  # exactly twice

    def test_at_most(self):
        assert chosen(*[(0.1, 0.0)] * (MOST + 3)) == list(range(MOST))

    def test_none(self):
        with pytest.raises(UserError) as caught:
            propose(table((0.5, 0.45), (0.02, 0.0), (0.01, 0.0), (0.0, 0.0)), "results/mine")
        assert str(caught.value) == (
            "results/mine: no token starts clearly more replies to harmful prompts than to harmless ones (strongest:"
            ' "t0" 50.0% of replies to harmful prompts, 45.0% to harmless;'
            ' "t1" 2.0% of replies to harmful prompts, 0.0% to harmless;'
            ' "t2" 1.0% of replies to harmful prompts, 0.0% to harmless): perhaps it hardly refuses; read some'
            " replies, and name `refusal_tokens` in the model file by hand"
        )

    @given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
    def test_each_meets_both_bounds(self, pairs):
        try:
            found = propose(table(*pairs), "here")
        except UserError:
            found = []
        meets = [
            one for one in table(*pairs) if one.contrast >= MIN_CONTRAST and one.harmful >= MIN_RATIO * one.harmless
        ]
        assert found == meets[:MOST]
