"""Intervals, tests and the bootstrap: by hand, against statsmodels, SciPy and plain loops, and by their laws."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, bootstrap, norm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from refusal import statistics
from refusal.statistics import (
    bootstrap_mean_difference,
    bootstrap_ratio_difference,
    chosen_again,
    holm,
    independent_difference,
    mcnemar_exact,
    optimism,
    paired_difference,
    resampled_sums,
    wilson,
)

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


class TestPairedDifference:
    def statistic(self, only_first, only_second, n, difference):
        """Tango's by its definition: the share q that maximises the likelihood under this difference, searched for."""

        def unlikely(q):
            shares = q + difference, q, 1 - 2 * q - difference
            counts = only_first, only_second, n - only_first - only_second
            return -sum(
                count * math.log(max(share, 1e-300)) for count, share in zip(counts, shares, strict=True) if count
            )

        lowest, highest = max(0.0, -difference), (1 - difference) / 2
        q = minimize_scalar(unlikely, bounds=(lowest, highest), method="bounded", options={"xatol": 1e-12}).x
        return (only_first - only_second - n * difference) / math.sqrt(n * (2 * q + difference - difference**2))

    @pytest.mark.parametrize(("only_first", "only_second", "n"), [(12, 2, 50), (3, 9, 40), (5, 5, 100), (1, 0, 30)])
    @pytest.mark.parametrize("confidence", [0.9, 0.95])
    def test_inverts_the_score_test(self, only_first, only_second, n, confidence):
        pair = discordant(only_first, only_second, neither=n - only_first - only_second)
        found = paired_difference(*pair, confidence)
        assert found.estimate == (only_first - only_second) / n
        critical = norm.ppf((1 + confidence) / 2)
        for bound, expected in ((found.low, critical), (found.high, -critical)):
            assert self.statistic(only_first, only_second, n, bound) == pytest.approx(expected, abs=1e-4)

    def test_without_discordant_prompts(self):
        """By hand: n d = z sqrt(n d (1 - d)), so d = z^2 / (n + z^2): as wide as Wilson's interval of 0 of n."""
        found = paired_difference(*discordant(0, 0, both=30, neither=70))
        assert found == pytest.approx((0.0, -0.0369935, 0.0369935), abs=1e-6)
        assert found.high == pytest.approx(wilson(0, 100)[1])

    def test_always_under_one_alone(self):
        found = paired_difference(*discordant(100, 0))
        assert found == pytest.approx((1.0, 1 - 2 * 0.0369935, 1.0), abs=1e-6)
        assert paired_difference(*discordant(0, 100)) == pytest.approx((-1.0, -1.0, -found.low))

    def test_no_prompts(self):
        assert all(math.isnan(one) for one in paired_difference([], []))

    @settings(deadline=None)
    @given(pairs.filter(bool), st.floats(0.5, 0.99))
    def test_laws(self, pairs, confidence):
        first, second = split(pairs)
        found, mirrored = paired_difference(first, second, confidence), paired_difference(second, first, confidence)
        assert -1 <= found.low <= found.estimate <= found.high <= 1
        assert found.low < found.high
        assert mirrored == pytest.approx((-found.estimate, -found.high, -found.low), abs=1e-6)
        wider = paired_difference(first, second, 0.995)
        assert wider.low <= found.low + 1e-9
        assert wider.high >= found.high - 1e-9

    def test_impossible(self):
        with pytest.raises(ValueError, match=r"^confidence 1 is not between 0 and 1$"):
            paired_difference([True], [True], 1)
        with pytest.raises(ValueError, match=r"^not paired: 2 and 1 prompts$"):
            paired_difference([True, False], [True])


class TestIndependentDifference:
    @settings(deadline=None)
    @given(counts, counts)
    def test_squares_and_adds(self, first, second):
        found = independent_difference(*first, *second)
        p, q = (successes / n for successes, n in (first, second))
        (low_p, high_p), (low_q, high_q) = wilson(*first), wilson(*second)
        assert found.estimate == p - q
        assert found.low == pytest.approx(p - q - math.hypot(p - low_p, high_q - q), abs=1e-9)
        assert found.high == pytest.approx(p - q + math.hypot(high_p - p, q - low_q), abs=1e-9)


class TestResampledSums:
    def test_whole_rows_are_drawn(self):
        values = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
        sums = resampled_sums(values, draws=500, seed=1)
        assert sums.shape == (500, 2)
        assert np.array_equal(sums[:, 1], 10 * sums[:, 0])
        assert set(sums[:, 0]) <= {a + b + c for a in (1, 2, 4) for b in (1, 2, 4) for c in (1, 2, 4)}

    def test_mean_and_spread_are_those_of_the_sample(self):
        values = np.random.default_rng(0).normal(size=(50, 1))
        sums = resampled_sums(values, draws=20000)
        assert sums.mean() == pytest.approx(values.sum(), abs=4 * math.sqrt(50 * values.var() / 20000))
        assert sums.var() == pytest.approx(50 * values.var(), rel=0.05)

    def test_the_same_seed_draws_the_same_rows(self):
        one, other = resampled_sums([[1.0], [2.0]], 20, 3), resampled_sums([[1.0], [2.0]], 20, 3)
        assert np.array_equal(one, other)
        assert not np.array_equal(one, resampled_sums([[1.0], [2.0]], 20, 4))

    def test_what_is_held_at_once_is_bounded(self, monkeypatch):
        monkeypatch.setattr(statistics, "_WEIGHTS", 7)
        sums = resampled_sums(np.eye(3), draws=11)
        assert sums.shape == (11, 3)
        assert np.array_equal(sums.sum(axis=1), np.full(11, 3.0))

    @pytest.mark.parametrize("values", [[1.0, 2.0], np.empty((0, 2))])
    def test_no_table(self, values):
        with pytest.raises(ValueError, match=r"^need rows and columns, got shape \("):
            resampled_sums(values)


rows = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 9)), min_size=8, max_size=25)
DRAWS = 199


class TestBootstrap:
    def by_loop(self, first, second, counts, draws, seed, method):
        """One resample after another, with formulas of a single sample."""

        def ratio(numbers):
            return sum(first[i] - second[i] for i in numbers) / sum(counts[i] for i in numbers)

        def error(numbers, at):
            squares = sum((first[i] - second[i] - at * counts[i]) ** 2 for i in numbers)
            return math.sqrt(squares) / sum(counts[i] for i in numbers)

        n, generator, found = len(first), np.random.default_rng(seed), []
        whole = ratio(range(n))
        for numbers in generator.integers(n, size=(draws, n)):
            here = ratio(numbers)
            found.append((here - whole) / (error(numbers, here) if method == "studentized" else 1))
        found.sort()
        low, high = found[round(0.025 * (draws + 1)) - 1], found[-round(0.025 * (draws + 1))]
        if method == "percentile":
            return whole, whole + low, whole + high
        return whole, whole - high * error(range(n), whole), whole - low * error(range(n), whole)

    @pytest.mark.parametrize("method", ["studentized", "percentile"])
    def test_as_by_a_loop(self, method):
        generator = np.random.default_rng(5)
        first, second = generator.normal(size=(2, 30))
        counts = generator.integers(1, 40, size=30)
        found = bootstrap_ratio_difference(first, second, counts, draws=399, seed=7, method=method)
        assert found == pytest.approx(self.by_loop(first, second, counts, 399, 7, method), rel=1e-9)

    def test_percentiles_agree_with_scipy(self):
        first, second = np.random.default_rng(6).normal(size=(2, 60))
        found = bootstrap_mean_difference(first, second, method="percentile")
        interval = bootstrap((first - second,), np.mean, method="percentile", rng=8).confidence_interval
        assert (found.low, found.high) == pytest.approx(tuple(interval), abs=0.02)

    def test_a_mean_of_many_normal_scores(self):
        """There the studentized bounds are Student's."""
        scores = np.random.default_rng(7).normal(3, 2, 400)
        found = bootstrap_mean_difference(scores, np.zeros(400))
        half = 1.966 * scores.std(ddof=1) / 20
        assert found == pytest.approx((scores.mean(), scores.mean() - half, scores.mean() + half), abs=0.02)

    @settings(max_examples=50, deadline=None)
    @given(rows, st.sampled_from(["studentized", "percentile"]), st.integers(-9, 9))
    def test_laws(self, rows, method, moved):
        first, second, counts = np.array(rows, dtype=float).T
        found = bootstrap_ratio_difference(first, second, counts, draws=DRAWS, method=method)
        assert found.estimate == pytest.approx(np.sum(first - second) / np.sum(counts))
        assert math.isnan(found.low) == math.isnan(found.high)
        assert not found.low > found.high
        # the same amount more per token, or twice as much, or the other way round
        more = bootstrap_ratio_difference(first + moved * counts, second, counts, draws=DRAWS, method=method)
        assert more == pytest.approx([one + moved for one in found], abs=1e-8, nan_ok=True)
        double = bootstrap_ratio_difference(2 * first, 2 * second, counts, draws=DRAWS, method=method)
        assert double == pytest.approx([2 * one for one in found], abs=1e-8, nan_ok=True)
        turned = bootstrap_ratio_difference(second, first, counts, draws=DRAWS, method=method)
        assert turned == pytest.approx((-found.estimate, -found.high, -found.low), abs=1e-8, nan_ok=True)

    def test_columns_at_once_are_as_one_by_one(self):
        generator = np.random.default_rng(9)
        first, second = generator.normal(size=(2, 20, 3))
        first[:, 1] = second[:, 1]  # says nothing on its spread
        for counts in (np.full(20, 2), generator.integers(1, 9, size=(20, 3))):
            found = bootstrap_ratio_difference(first, second, counts, draws=DRAWS)
            each = counts[:, None].repeat(3, axis=1) if counts.ndim == 1 else counts
            for column in range(3):
                alone = bootstrap_ratio_difference(first[:, column], second[:, column], each[:, column], draws=DRAWS)
                assert [one[column] for one in found] == pytest.approx(list(alone), nan_ok=True)
            assert list(np.isnan(found.low)) == [False, True, False]

    @pytest.mark.parametrize("method", ["studentized", "percentile"])
    @pytest.mark.parametrize(
        ("first", "second", "counts"),
        [([3.0], [1.0], [1]), ([1.0] * 9, [0.5] * 9, [1] * 9), ([0.2, 0.4, 0.6], [0.1, 0.2, 0.3], [1, 2, 3])],
        ids=["one row", "all alike", "all alike per token"],
    )
    def test_data_that_say_nothing_on_their_spread(self, first, second, counts, method):
        found = bootstrap_ratio_difference(first, second, counts, method=method)
        assert found.estimate == pytest.approx(sum(a - b for a, b in zip(first, second, strict=True)) / sum(counts))
        assert math.isnan(found.low)
        assert math.isnan(found.high)

    def test_too_few_that_differ_for_a_spread_of_each_resample(self):
        """A third of the samples lacks the one that differs: studentized, they are infinitely far off."""
        first = [1.0] * 19 + [2.0]
        assert math.isnan(bootstrap_mean_difference(first, [0.0] * 20).high)
        found = bootstrap_mean_difference(first, [0.0] * 20, method="percentile")
        assert (found.low, found.high) == pytest.approx((1.0, 1.15))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([1.0, 2.0], [1.0], [1, 1]), r"not paired: shapes \(2,\), \(1,\) and \(2,\)"),
            (([1.0, 2.0], [1.0, 1.0], [1]), r"not paired: shapes \(2,\), \(2,\) and \(1,\)"),
            (([1.0, math.nan], [1.0, 1.0], [1, 1]), "a value is not finite"),
            (([1.0, 2.0], [1.0, 1.0], [1, -1]), "counts are negative, or none is above zero"),
            (([1.0, 2.0], [1.0, 1.0], [0, 0]), "counts are negative, or none is above zero"),
            (([], [], []), "counts are negative, or none is above zero"),
            (([1.0, 2.0], [1.0, 1.0], [1, 1], 0.0), "confidence 0.0 is not between 0 and 1"),
        ],
    )
    def test_impossible(self, arguments, message):
        with pytest.raises(ValueError, match=f"^{message}$"):
            bootstrap_ratio_difference(*arguments)


class TestChoice:
    def test_one_that_is_lower_on_every_prompt(self):
        scores = np.random.default_rng(0).normal(size=(10, 1)) + np.array([0.0, -1.0, 2.0])
        assert chosen_again(scores, draws=99).tolist() == [0, 1, 0]
        drawn, halved = optimism(scores, draws=2000)
        assert abs(drawn) < 0.05
        assert halved == pytest.approx(0, abs=1e-12)

    def test_by_hand(self):
        """Two prompts, two options; samples are aa, ab, ba, bb; those of ab and ba are tied, and go to the first."""
        scores = [[0.0, 1.0], [1.0, 0.0]]
        drawn, halved = optimism(scores, draws=40000)
        # the chosen has 0, 1/2, 1/2, 0 there, and 1/2 here
        assert drawn == pytest.approx(0.25, abs=0.01)
        # each prompt chooses the option that has 1 on the other
        assert halved == pytest.approx(1.0)
        assert chosen_again(scores, draws=40000) == pytest.approx([0.75, 0.25], abs=0.01)

    def test_one_prompt_has_no_halves(self):
        drawn, halved = optimism([[1.0, 2.0]], draws=9)
        assert drawn == 0
        assert math.isnan(halved)


@pytest.mark.parametrize("n", range(1, 301))
def test_every_prompt_under_one_of_two_conditions_alone(n):
    """Rounding once made a root negative, for 117 of the first thousand n."""
    never, always = np.zeros(n, dtype=bool), np.ones(n, dtype=bool)
    found = paired_difference(never, always)
    assert found.low == found.estimate == -1 <= found.high < 1
    assert paired_difference(always, never).estimate == 1
