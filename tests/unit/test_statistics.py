"""Wilson, McNemar and Holm: by hand, against statsmodels and SciPy, and by their laws."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from refusal.statistics import holm, mcnemar_exact, wilson

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)
# multipletests collects garbage at each call: 50 ms each.
few = settings(max_examples=25, deadline=None)
p_value = st.floats(0, 1) | st.just(math.nan)


def split(pairs):
    return np.array([a for a, _ in pairs], dtype=bool), np.array([b for _, b in pairs], dtype=bool)


def discordant(only_first, only_second, both=0, neither=0):
    return split(
        [(True, False)] * only_first
        + [(False, True)] * only_second
        + [(True, True)] * both
        + [(False, False)] * neither
    )


class TestWilson:
    # By hand, z = 1.959964: centre (k + z^2/2) / (n + z^2), half-width z / (n + z^2) * sqrt(k (n - k) / n + z^2 / 4).
    @pytest.mark.parametrize(
        ("successes", "n", "low", "high"),
        [
            (5, 10, 0.236593, 0.763407),
            (0, 10, 0.0, 0.277533),
            (10, 10, 0.722467, 1.0),
            (1, 1, 0.206549, 1.0),
            (90, 100, 0.825634, 0.944771),
        ],
    )
    def test_by_hand(self, successes, n, low, high):
        assert wilson(successes, n) == pytest.approx((low, high), abs=1e-6)

    def test_no_prompts_no_interval(self):
        assert all(math.isnan(bound) for bound in wilson(0, 0))

    @settings(deadline=None)
    @given(counts, st.floats(0.5, 0.999))
    def test_agrees_with_statsmodels(self, count, confidence):
        expected = proportion_confint(*count, alpha=1 - confidence, method="wilson")
        assert wilson(*count, confidence) == pytest.approx(expected, abs=1e-12)

    @settings(deadline=None)
    @given(counts)
    def test_within_zero_and_one_around_the_rate(self, count):
        low, high = wilson(*count)
        assert 0 <= low <= count[0] / count[1] <= high <= 1
        assert low < high

    @settings(deadline=None)
    @given(counts)
    def test_failures_mirror_successes(self, count):
        successes, n = count
        low, high = wilson(successes, n)
        assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)

    @settings(deadline=None)
    @given(counts)
    def test_more_confidence_is_wider(self, count):
        low, high = wilson(*count, 0.9)
        wider_low, wider_high = wilson(*count, 0.99)
        assert wider_low <= low
        assert high <= wider_high

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((3, 2), "3 successes of 2"),
            ((-1, 2), "-1 successes of 2"),
            ((1, 2, 1.0), "confidence 1.0 is not between 0 and 1"),
        ],
    )
    def test_impossible(self, arguments, message):
        with pytest.raises(ValueError, match=f"^{message}$"):
            wilson(*arguments)


class TestMcNemar:
    # By hand: min(1, 2 * sum of C(n, i) / 2^n for i up to the smaller discordant count).
    @pytest.mark.parametrize(
        ("only_first", "only_second", "expected"),
        [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (5, 0, 2 / 32),
            (6, 0, 2 / 64),
            (1, 5, 14 / 64),
            (1, 9, 22 / 1024),
            (3, 3, 1.0),
        ],
    )
    def test_by_hand(self, only_first, only_second, expected):
        assert mcnemar_exact(*discordant(only_first, only_second, both=4, neither=7)) == pytest.approx(expected)

    @settings(deadline=None)
    @given(pairs)
    def test_symmetric_and_a_probability(self, pairs):
        first, second = split(pairs)
        p = mcnemar_exact(first, second)
        assert p == mcnemar_exact(second, first)
        assert 0 < p <= 1

    @settings(deadline=None)
    @given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 50))
    def test_is_the_binomial_test_on_discordant_prompts(self, only_first, only_second, concordant):
        p = mcnemar_exact(*discordant(only_first, only_second, both=concordant))
        if only_first + only_second:
            assert p == pytest.approx(binomtest(only_first, only_first + only_second).pvalue)
        else:
            assert p == 1.0

    @settings(deadline=None)
    @given(pairs, st.randoms(use_true_random=False))
    def test_order_of_prompts_does_not_matter(self, pairs, random):
        p = mcnemar_exact(*split(pairs))
        random.shuffle(pairs)
        assert mcnemar_exact(*split(pairs)) == p

    def test_no_prompts(self):
        assert mcnemar_exact([], []) == 1.0

    def test_unpaired(self):
        with pytest.raises(ValueError, match=r"^not paired: 2 and 1 prompts$"):
            mcnemar_exact([True, False], [True])

    @pytest.mark.parametrize("values", [[True, None], [0.0, 1.0], [1, 0], [[True], [False]]])
    def test_a_missing_verdict_is_not_false(self, values):
        with pytest.raises(ValueError, match="need one boolean a prompt"):
            mcnemar_exact(values, [True, False])


class TestHolm:
    def test_by_hand(self):
        # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2, 0.5 * 1, each at least the one before.
        assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])

    def test_capped_at_one(self):
        assert holm([0.6, 0.7]) == [1.0, 1.0]

    def test_missing_stay_missing_and_do_not_count(self):
        adjusted = holm([0.01, math.nan, 0.02])
        assert adjusted[0::2] == pytest.approx([0.02, 0.02])
        assert math.isnan(adjusted[1])

    def test_names_stay_with_their_values(self):
        adjusted = holm({"0-1": 0.04, "1": math.nan, "0": 0.01})
        assert list(adjusted) == ["0-1", "1", "0"]
        assert adjusted["0-1"] == pytest.approx(0.04)
        assert adjusted["0"] == pytest.approx(0.02)
        assert math.isnan(adjusted["1"])

    @pytest.mark.parametrize("empty", [[], {}])
    def test_no_tests(self, empty):
        assert holm(empty) == empty

    def test_all_missing(self):
        assert all(math.isnan(p) for p in holm([math.nan, math.nan]))

    @few
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
    def test_agrees_with_statsmodels(self, raw):
        assert holm(raw) == pytest.approx(multipletests(raw, method="holm")[1].tolist())

    @few
    @given(st.lists(p_value, max_size=20))
    def test_laws(self, raw):
        adjusted = holm(raw)
        assert [math.isnan(p) for p in adjusted] == [math.isnan(p) for p in raw]
        made = sorted((p, a) for p, a in zip(raw, adjusted, strict=True) if not math.isnan(p))
        assert all(p <= a <= 1 for p, a in made)
        assert all(a <= b for (_, a), (_, b) in pairwise(made))

    @pytest.mark.parametrize("raw", [[1.5], [-0.1, 0.5], [math.inf]])
    def test_not_probabilities(self, raw):
        with pytest.raises(ValueError, match=r"^p-values outside 0\.\.1"):
            holm(raw)
