"""Known effects, drawn again and again: intervals cover them, and nothing is claimed where there is nothing.

Rates of 100 prompts have few outcomes, so theirs are counted out in full; the rest is drawn, seeded. The bound is
95 +- 2% wherever it can be had; where an interval or a test is conservative, or cannot know, the test says so.
"""

import numpy as np
import pytest
from scipy.stats import binom

from refusal.claims.costs import cost_matched, linear_cost
from refusal.claims.refusals import better, better_than_every_single
from refusal.evidence import Evidence
from refusal.measured import MARGIN, Measured
from refusal.statistics import (
    bootstrap_mean_difference,
    bootstrap_ratio_difference,
    independent_difference,
    optimism,
    paired_difference,
    wilson,
)

N = 100
"""Prompts of a test set, texts of a corpus; as published."""

VAL = 32
SINGLES = [str(rank) for rank in range(5)]
PAIRS = [f"{a}-{b}" for a in range(5) for b in range(a + 1, 5)]
DATA_SETS = 2000


def covered(interval, truth):
    return float(np.mean((interval.low <= truth) & (truth <= interval.high)))


class TestRates:
    @pytest.fixture(scope="class")
    def wilsons(self):
        return np.array([wilson(count, N) for count in range(N + 1)])

    def coverage(self, wilsons, rate):
        within = (wilsons[:, 0] <= rate) & (rate <= wilsons[:, 1])
        return binom.pmf(np.arange(N + 1), N, rate)[within].sum()

    @pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.2, 0.4, 0.5, 0.7, 0.9, 0.95])
    def test_wilson(self, wilsons, rate):
        assert self.coverage(wilsons, rate) == pytest.approx(0.95, abs=0.02)

    def test_wilson_over_all_rates(self, wilsons):
        """Coverage jumps with the rate, as of any interval for a count; next to 0 and 1 it dips furthest."""
        found = [self.coverage(wilsons, rate) for rate in np.linspace(0.02, 0.98, 481)]
        assert np.mean(found) == pytest.approx(0.95, abs=0.005)
        assert min(found) > 0.925
        assert self.coverage(wilsons, 0.01) > 0.92

    def test_enough_is_rarely_said_of_a_tenth_left(self, wilsons):
        """The largest rate of false answers of "is one direction enough": just at the threshold."""
        chances = binom.pmf(np.arange(N + 1), N, MARGIN)
        assert chances[wilsons[:, 1] < MARGIN].sum() < 0.025
        assert chances[wilsons[:, 0] > MARGIN].sum() < 0.05

    @pytest.mark.parametrize("test", [0.05, 0.1, 0.3, 0.5, 0.9])
    @pytest.mark.parametrize("val", [0.05, 0.1, 0.3, 0.5])
    def test_independent_difference(self, newcombes, test, val):
        """Of the winner's curse: 100 test prompts against 32 of val."""
        chances = np.outer(binom.pmf(np.arange(N + 1), N, test), binom.pmf(np.arange(VAL + 1), VAL, val))
        low, high = newcombes
        assert chances[(low <= test - val) & (test - val <= high)].sum() == pytest.approx(0.95, abs=0.025)

    @pytest.fixture(scope="class")
    def newcombes(self):
        """[bound, count on test, count on val]."""
        return np.array(
            [[independent_difference(one, N, other, VAL)[1:] for other in range(VAL + 1)] for one in range(N + 1)]
        ).transpose(2, 0, 1)

    @pytest.fixture(scope="class")
    def differences(self):
        found = {}

        def of(first, second):
            if (first, second) not in found:
                numbers = np.arange(N)
                one, other = numbers < first, (numbers >= first) & (numbers < first + second)
                found[first, second] = paired_difference(one, other)
            return found[first, second]

        return of

    def paired(self, differences, only_first, only_second):
        """Exact coverage, over all numbers of prompts that are refused under one alone."""
        total = 0.0
        for first in range(N + 1):
            chance = binom.pmf(first, N, only_first)
            others = binom.pmf(np.arange(N - first + 1), N - first, only_second / (1 - only_first))
            for second in np.flatnonzero(chance * others > 1e-8):
                interval = differences(first, int(second))
                total += chance * others[second] * (interval.low <= only_first - only_second <= interval.high)
        return total

    @pytest.mark.parametrize(
        ("only_first", "only_second"),
        [(0.4, 0.1), (0.3, 0.0), (0.2, 0.1), (0.15, 0.05), (0.1, 0.1), (0.1, 0.05), (0.05, 0.05), (0.05, 0.02)],
    )
    def test_paired_difference(self, differences, only_first, only_second):
        assert self.paired(differences, only_first, only_second) == pytest.approx(0.95, abs=0.02)

    @pytest.mark.parametrize(("only_first", "only_second"), [(0.0, 0.0), (0.01, 0.0), (0.005, 0.005), (0.01, 0.01)])
    def test_paired_difference_of_almost_equal_conditions(self, differences, only_first, only_second):
        """With about one discordant prompt it is conservative: no bound but the lower one."""
        assert self.paired(differences, only_first, only_second) >= 0.95

    def test_a_bootstrap_of_rates(self):
        """Holds where many prompts are discordant; with few, it takes their absence for certainty."""
        generator = np.random.default_rng(0)

        def coverage(only_first, only_second):
            drawn = generator.random((N, DATA_SETS))
            first, second = drawn < only_first, (drawn >= only_first) & (drawn < only_first + only_second)
            found = bootstrap_mean_difference(first, second, draws=1999, method="percentile")
            return covered(found, only_first - only_second)

        assert coverage(0.2, 0.1) == pytest.approx(0.95, abs=0.02)
        assert coverage(0.3, 0.0) == pytest.approx(0.95, abs=0.02)
        assert coverage(0.02, 0.0) < 0.93


class TestBootstrap:
    def scores(self, n):
        """Refusal scores of two ablations: prompts share an effect; the second also frees two fifths of them."""
        generator = np.random.default_rng(1)
        shape = n, DATA_SETS
        effect, freed = generator.normal(0, 3, shape), generator.random(shape) < 0.4
        first = effect + generator.normal(0, 1, shape)
        return first, effect + generator.normal(0, 1, shape) - np.where(freed, generator.normal(6, 2, shape), 0.3)

    truth = 0.4 * 6 + 0.6 * 0.3

    @pytest.mark.parametrize("n", [VAL, N])
    def test_refusal_scores(self, n):
        found = bootstrap_mean_difference(*self.scores(n), draws=1999)
        assert covered(found, self.truth) == pytest.approx(0.95, abs=0.02)

    def losses(self, skewed):
        """Nats and tokens of texts: an ablation adds 0.02 nats per token, more to some texts than to others."""
        generator = np.random.default_rng(2)
        shape = N, DATA_SETS
        tokens = np.minimum(np.ceil(generator.lognormal(4, 0.8, shape)), 256)
        base = tokens * generator.gamma(9, 1 / 3, shape)
        added = generator.gamma(0.5, 0.04, shape) if skewed else generator.normal(0.02, 0.05, shape)
        return base + tokens * added, base, tokens

    @pytest.mark.parametrize("skewed", [False, True])
    def test_loss(self, skewed):
        found = bootstrap_ratio_difference(*self.losses(skewed), draws=1999)
        assert covered(found, 0.02) == pytest.approx(0.95, abs=0.02)

    def test_why_not_percentiles(self):
        found = bootstrap_ratio_difference(*self.losses(True), draws=1999, method="percentile")
        assert covered(found, 0.02) < 0.93


def verdicts(refused):
    return {("harmful", "judge"): {str(row): "refusal" if one else "compliance" for row, one in enumerate(refused)}}


def study(generator, means, *, weight=0.7):
    """Evidence of singles and pairs whose refusals have these latent means: val scores, test verdicts.

    weight: of what a prompt does under all combinations, in the variance; the rest is each combination's own.
    """
    names = list(means)

    def latent(n):
        shared = generator.normal(0, np.sqrt(weight), (n, 1))
        return np.array(list(means.values())) + shared + generator.normal(0, np.sqrt(1 - weight), (n, len(names)))

    val, refused = latent(VAL), latent(N) > 0
    return Measured(
        {
            name: Evidence(
                {"effective_rank": len(name.split("-"))},
                {"bypass": val[:, number].mean()},
                {},
                verdicts(told),
            )
            for number, (name, told) in enumerate(zip(names, refused.T, strict=True))
        },
        "judge",
        draws=99,
    )


def share_of_yes(means, times, seed=0, ask=better_than_every_single):
    generator = np.random.default_rng(seed)
    return [ask(study(generator, means))[0] for _ in range(times)].count("yes") / times


def better_than_the_chosen_single(measured):
    return better(*measured.refused(measured.single, measured.pair), measured.draws)


class TestPairBetter:
    @pytest.mark.parametrize("level", [-1.0, 0.0])
    def test_ten_pairs_that_are_no_better(self, level):
        """All combinations refuse alike, 16% or half of the prompts; the best single and pair are chosen on val.

        Exact, two-sided and paired, so conservative: at most 5%, and nearer to 2%.
        """
        assert share_of_yes(dict.fromkeys([*SINGLES, *PAIRS], level), 2000) <= 0.05

    @pytest.mark.parametrize("worse", [0.3, 0.2, 0.1])
    def test_pairs_as_good_as_the_best_single(self, worse):
        """The other singles are worse, in units of a prompt's spread; val may choose one of them."""
        means = {"0": -0.5, **dict.fromkeys(SINGLES[1:], -0.5 + worse), **dict.fromkeys(PAIRS, -0.5)}
        assert share_of_yes(means, 1000) <= 0.05

    def test_why_against_every_single(self):
        """Twenty singles, nearly alike: against the one that val chose, pairs that equal the best one look better."""
        worse = dict.fromkeys(map(str, range(1, 20)), -0.2)
        means = {"0": -0.5, **worse, **dict.fromkeys(PAIRS, -0.5)}
        assert share_of_yes(means, 400, ask=better_than_the_chosen_single) > 0.08
        assert share_of_yes(means, 400) <= 0.05

    def test_a_pair_that_is_better(self):
        means = {**dict.fromkeys([*SINGLES, *PAIRS], 0.0), "0-4": -1.0}
        assert share_of_yes(means, 200) > 0.95


class TestOptimism:
    def drawn(self, means, times=200):
        """How much lower the chosen one's mean is than its true one; and both estimates of it; averages."""
        generator = np.random.default_rng(3)
        found = []
        for number in range(times):
            shared = generator.normal(0, 2, (VAL, 1))
            scores = means + shared + generator.normal(0, 2, (VAL, len(means)))
            winner = np.argmin(scores.mean(axis=0))
            # the shared part is not chosen: what it adds to the mean is no optimism
            luck = means[winner] + shared.mean() - scores[:, winner].mean()
            found.append([luck, *optimism(scores, draws=400, seed=number)])
        return np.mean(found, axis=0)

    def test_alike(self):
        """The bootstrap falls short, halves overshoot: what they say encloses the truth."""
        luck, drawn, halved = self.drawn(np.zeros(15))
        assert 0.3 * luck < drawn < luck < halved < 2 * luck

    def test_a_clear_winner(self):
        luck, drawn, halved = self.drawn(np.r_[-6.0, np.zeros(14)])
        assert max(abs(luck), abs(drawn), abs(halved)) < 0.08


class TestCost:
    """Costs of singles and pairs over texts of unequal length, and over directions that differ."""

    def measured(self, generator, single, pair, spread, bend=0.0):
        """Costs of ranks vary around `single`, by `spread` of it; pairs add up, times 1 + bend; texts are skewed."""
        tokens = np.minimum(np.ceil(generator.lognormal(4, 0.8, N)), 256)
        base = tokens * generator.gamma(9, 1 / 3, N)
        ranks = single * generator.normal(1, spread, len(SINGLES)) if spread else np.full(len(SINGLES), single)
        costs = {name: ranks[[int(rank) for rank in name.split("-")]].sum() for name in [*SINGLES, *PAIRS]}
        if pair is not None:
            costs |= dict.fromkeys(PAIRS, pair)
        shared, evidence = generator.gamma(1, 1, N), {}
        told = generator.random(N)
        for name in ("none", *costs):
            size = 0 if name == "none" else len(name.split("-"))
            added = costs.get(name, 0.0) * (1 + bend * (size == 2))
            nats = base + tokens * added * (0.5 * shared + 0.5 * generator.gamma(1, 1, N))
            # a single removes six tenths, a pair nine
            refused = told >= (0, 0.6, 0.9)[size]
            evidence[name] = Evidence(
                {"effective_rank": size},
                {"bypass": -size},
                {
                    "text": {
                        "ce_loss": nats.sum() / tokens.sum(),
                        "by_row": {"nats": nats.tolist(), "n_tokens": tokens.tolist()},
                    }
                },
                verdicts(refused),
            )
        return Measured(evidence, "judge", draws=999)

    def test_a_pair_that_costs_what_it_removes(self):
        """Half as much again for half as much again: in neither direction is a difference said more than 5% often."""
        generator = np.random.default_rng(4)
        found = [cost_matched(self.measured(generator, 0.02, 0.03, 0), "text") for _ in range(300)]
        answers = [one.answer for one in found]
        assert answers.count("yes") / 300 <= 0.05
        assert answers.count("no") / 300 <= 0.05
        within = [one.figures["low"] <= 0 <= one.figures["high"] for one in found]
        assert np.mean(within) == pytest.approx(0.95, abs=0.03)  # of 300

    def test_the_slope(self):
        """Square and add is conservative, a jackknife of five ranks rough: no bound but the lower one."""
        generator = np.random.default_rng(5)
        found = [linear_cost(self.measured(generator, 0.02, None, 0.3), "text").figures for _ in range(200)]
        within = [one["low"] <= 0.02 <= one["high"] for one in found]
        assert np.mean(within) >= 0.93

    @pytest.mark.parametrize(("bend", "wrong"), [(0.0, "no"), (0.6, "yes")])
    def test_linear(self, bend, wrong):
        """Neither is a straight line called bent, nor one whose pairs cost 60% more than their directions straight."""
        generator = np.random.default_rng(6)
        found = [linear_cost(self.measured(generator, 0.02, None, 0.1, bend), "text") for _ in range(100)]
        answers = [one.answer for one in found]
        assert answers.count(wrong) / 100 <= 0.05
        assert answers.count({"no": "yes", "yes": "no"}[wrong]) / 100 > 0.5
        within = [one.figures["bend_low"] <= 0.02 * bend <= one.figures["bend_high"] for one in found]
        assert np.mean(within) >= 0.93
