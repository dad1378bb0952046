"""Agreement of raters: figures by hand, against statsmodels and by their laws; the script on small files."""

import csv
import math
import random

import numpy as np
import pandas as pd
import pytest
from conftest import script
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa as reference_cohen
from statsmodels.stats.inter_rater import fleiss_kappa as reference_fleiss
from statsmodels.stats.proportion import proportion_confint

from refusal.agreement import table as agreement_module
from refusal.agreement.ratings import Place
from refusal.agreement.table import (
    agreement_table,
    cohens_kappa,
    compare,
    compare_all,
    confusion,
    fleiss_kappa,
    resampled,
)
from refusal.agreement.words import narrate_agreement
from refusal.artifacts import read_json, read_table, write_jsonl
from refusal.errors import UserError
from refusal.judges.base import LABELS
from refusal.provenance import verify
from refusal.statistics import clustered_wilson, resampled_sums, wilson

R, C, I = LABELS  # noqa: E741 (their initials)
pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=40)
small = st.integers(0, 30)
tables = st.tuples(small, small, small, small).map(lambda cells: np.array(cells).reshape(2, 2))
clusters = st.lists(
    st.integers(0, 24).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=40
).map(lambda found: np.array(found).T)


def places(count, prompts="harmful"):
    return [Place(prompts, "none", f"{prompts}-{number}") for number in range(count)]


def raters(pairs, prompts="harmful"):
    """Two raters' labels on as many responses."""
    where = places(len(pairs), prompts)
    return tuple(dict(zip(where, labels, strict=True)) for labels in zip(*pairs, strict=True)) if pairs else ({}, {})


def repeated(counts):
    """{(first, second): count} as pairs."""
    return [pair for pair, count in counts.items() for _ in range(count)]


def answered_alike(labels, combinations):
    """A rater's labels, with a copy of each response under every one of the combinations."""
    return {place._replace(combination=name): label for place, label in labels.items() for name in combinations}


def undefined(value):
    return value is None or math.isnan(value)


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr(agreement_module, "DRAWS", 199)


class TestCohen:
    @pytest.mark.parametrize(
        ("table", "kappa"),
        [
            # agreement 0.7, by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5
            ([[20, 5], [10, 15]], 0.4),
            # agreement 0.6 in both; by chance 0.54 and 0.46
            ([[45, 15], [25, 15]], 0.06 / 0.46),
            ([[25, 35], [5, 35]], 0.14 / 0.54),
            ([[5, 5], [5, 5]], 0.0),
            ([[0, 5], [5, 0]], -1.0),
            ([[5, 0], [0, 3]], 1.0),
            # one of them has one label only: chance agrees as often
            ([[8, 2], [0, 0]], 0.0),
        ],
    )
    def test_by_hand(self, table, kappa):
        assert cohens_kappa(np.array(table)) == pytest.approx(kappa, abs=1e-12)

    @pytest.mark.parametrize("table", [[[9, 0], [0, 0]], [[0, 0], [0, 9]], [[0, 0], [0, 0]]])
    def test_one_label_only_is_undefined(self, table):
        assert np.isnan(cohens_kappa(np.array(table)))

    @given(tables)
    def test_agrees_with_statsmodels(self, table):
        kappa = cohens_kappa(table)
        if np.isnan(kappa):
            assert table.sum() in (table[0, 0], table[1, 1])
        else:
            assert kappa == pytest.approx(reference_cohen(table, return_results=False), abs=1e-12)

    @given(tables)
    def test_laws(self, table):
        kappa = cohens_kappa(table)
        for other in (table.T, table[::-1, ::-1], 7 * table):  # raters, labels, and how many of each
            np.testing.assert_allclose(cohens_kappa(other), kappa, rtol=1e-14, atol=1e-15)
        assert np.isnan(kappa) or -1 <= kappa <= 1
        assert (kappa == 1) == (table[0, 1] == table[1, 0] == 0 and min(table[0, 0], table[1, 1]) > 0)

    @given(st.lists(tables, min_size=1, max_size=4))
    def test_many_at_once(self, found):
        expected = [float(cohens_kappa(table)) for table in found]
        np.testing.assert_array_equal(cohens_kappa(np.stack(found)), expected)


class TestFleiss:
    def test_the_example_that_textbooks_have(self):
        """Ten items, fourteen raters, five labels: 0.210."""
        counts = [
            [0, 0, 0, 0, 14],
            [0, 2, 6, 4, 2],
            [0, 0, 3, 5, 6],
            [0, 3, 9, 2, 0],
            [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0],
            [2, 5, 3, 2, 2],
            [6, 5, 2, 1, 0],
            [0, 2, 2, 3, 7],
        ]
        assert fleiss_kappa(np.array(counts)) == pytest.approx(0.210, abs=5e-4)

    def test_by_hand(self):
        # three raters, items 3:0 and 2:1: agreeing pairs 1 and 1/3, mean 2/3; chance (5/6)^2 + (1/6)^2 = 26/36
        assert fleiss_kappa(np.array([[3, 0], [2, 1]])) == pytest.approx((2 / 3 - 26 / 36) / (10 / 36))

    @given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
    def test_agrees_with_statsmodels(self, refusals):
        counts = np.array([[count, 4 - count] for count in refusals])
        if set(refusals) <= {0} or set(refusals) <= {4}:
            assert math.isnan(fleiss_kappa(counts))
        else:
            assert fleiss_kappa(counts) == pytest.approx(reference_fleiss(counts), abs=1e-12)

    def test_no_items(self):
        assert math.isnan(fleiss_kappa(np.zeros((0, 2), dtype=int)))

    def test_invalid_anywhere_leaves_the_item_out(self):
        first, second, third = ([R, C, C, I], [R, C, R, R], [R, C, C, C])
        where = places(4)
        figures = compare_all([dict(zip(where, labels, strict=True)) for labels in (first, second, third)])
        assert (figures["n"], figures["valid"], figures["agreement"]) == (4, 3, pytest.approx(2 / 3))
        assert figures["kappa"] == pytest.approx(fleiss_kappa(np.array([[3, 0], [0, 3], [1, 2]])))
        assert figures["same_label"] == 0.5

    def test_only_what_all_have_rated(self):
        figures = compare_all([dict.fromkeys(places(count), R) for count in (5, 3, 4)])
        assert (figures["n"], figures["note"]) == (3, "one label only: kappa is undefined")
        assert undefined(figures["kappa"])


class TestResampling:
    def parts(self, counts):
        """A table a prompt, one response each."""
        return np.concatenate([np.eye(4, dtype=int)[[cell] * count] for cell, count in enumerate(counts)]).reshape(
            -1, 2, 2
        )

    def test_near_the_asymptotic_interval_where_responses_are_independent(self, monkeypatch):
        monkeypatch.setattr(agreement_module, "DRAWS", 1999)
        counts = [80, 12, 20, 88]
        expected = reference_cohen(np.array(counts).reshape(2, 2))
        found = resampled(self.parts(counts), cohens_kappa, 0)
        assert found == pytest.approx((expected.kappa_low, expected.kappa_upp), abs=0.02)

    def test_copies_of_a_response_narrow_nothing(self):
        """As under a control that changes no response."""
        parts = self.parts([20, 6, 3, 15])
        assert resampled(10 * parts, cohens_kappa, 0) == pytest.approx(resampled(parts, cohens_kappa, 0))

    def test_the_seed_decides(self):
        parts = self.parts([20, 6, 3, 15])
        assert resampled(parts, cohens_kappa, 1) == resampled(parts, cohens_kappa, 1)
        assert resampled(parts, cohens_kappa, 1) != resampled(parts, cohens_kappa, 2)

    @pytest.mark.parametrize(
        ("counts", "why"),
        [
            ([20, 0, 0, 20], "nobody ever differs: no spread"),
            ([20, 0, 0, 0], "kappa is undefined"),
            ([1, 0, 0, 60], "the only refusal is missing in a third of the draws"),
            ([0, 0, 0, 1], "one prompt"),
            ([0, 0, 0, 0], "none"),
        ],
    )
    def test_no_interval(self, counts, why):
        assert all(math.isnan(bound) for bound in resampled(self.parts(counts), cohens_kappa, 0)), why


class TestClusteredWilson:
    def test_by_hand(self):
        """Rate 4 of 8; sizes (16 + 4 + 4) / 8 = 3; with two prompts of 3, 7 of 14 is 1/2, and squares of what is left
        are 1 + 0 + 1 + 2 * 9/4 = 6.5, of independent responses 14/4: a design effect of 13/7, 56/13 responses."""
        n = 56 / 13
        expected = proportion_confint(n / 2, n, method="wilson")
        assert clustered_wilson([3, 1, 0], [4, 2, 2]) == pytest.approx(expected)

    @given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(1, 24))
    def test_of_prompts_that_are_all_alike_within(self, count, copies):
        """One response each, or copies of it: Wilson's interval of the prompts."""
        successes, prompts = count
        found = clustered_wilson(copies * (np.arange(prompts) < successes), np.full(prompts, copies))
        assert found == pytest.approx(wilson(*count), abs=1e-12)

    @pytest.mark.parametrize(("rate", "bound"), [(1, 0), (0, 1)])
    def test_where_nothing_differs_a_prompt_counts_once(self, rate, bound):
        equal = np.full(30, 24)
        assert clustered_wilson(rate * equal, equal) == pytest.approx(wilson(30 * rate, 30))
        unequal = np.array([1] * 20 + [24] * 10)
        intervals = wilson(30 * rate, 30), clustered_wilson(rate * unequal, unequal), wilson(10 * rate, 10)
        widths = [abs(interval[bound] - rate) for interval in intervals]
        assert widths == sorted(widths)

    def test_one_slip_tells_no_more_than_none(self):
        """A single response of 2,400 that differs does not make the other prompts worth more."""
        totals = np.full(100, 24)
        low, _ = clustered_wilson(totals - (np.arange(100) == 0), totals)
        assert low == pytest.approx(wilson(100, 100)[0], abs=1e-3)

    @given(clusters, st.integers(2, 24), st.randoms(use_true_random=False))
    def test_laws(self, counts, copies, chance):
        found = clustered_wilson(*counts)
        if not counts[1].sum():
            assert all(map(math.isnan, found))
            return
        low, high = found
        assert 0 <= low <= counts[0].sum() / counts[1].sum() <= high <= 1
        assert low < high
        same = pytest.approx(found, abs=1e-9)
        assert clustered_wilson(*(copies * counts)) == same
        assert clustered_wilson(*np.array(chance.sample(counts.T.tolist(), counts.shape[1])).T) == same
        assert clustered_wilson(*np.append(counts, [[0], [0]], axis=1)) == same
        mirrored = clustered_wilson(counts[1] - counts[0], counts[1])
        assert (1 - mirrored[1], 1 - mirrored[0]) == same
        wider = clustered_wilson(*counts, confidence=0.99)
        assert wider[0] <= low <= high <= wider[1]
        more = clustered_wilson(*np.tile(counts, 2))
        assert more[1] - more[0] < high - low

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([2], [1]), "successes are outside 0..totals"),
            (([-1], [1]), "successes are outside 0..totals"),
            (([math.nan], [1]), "successes are outside 0..totals"),
            (([1], [1, 1]), r"not paired: shapes \(1,\) and \(2,\)"),
            (([[1]], [[1]]), r"not paired: shapes \(1, 1\) and \(1, 1\)"),
            (([1], [1], 1), "confidence 1 is not between 0 and 1"),
        ],
    )
    def test_impossible(self, arguments, message):
        with pytest.raises(ValueError, match=f"^{message}$"):
            clustered_wilson(*arguments)


class TestCoverage:
    """Many draws of 100 prompts with a response under each of 24 combinations, or fewer of them."""

    DATA_SETS = 1500

    def alike(self, rate, correlation, sizes="equal"):
        """Successes and totals, [data set, prompt]; each prompt has a rate of its own."""
        generator = np.random.default_rng(0)
        shape = self.DATA_SETS, 100
        totals = {
            "equal": np.full(shape, 24),
            "unequal": generator.integers(1, 25, shape),
            "few or all": np.where(generator.random(shape) < 0.6, generator.integers(1, 4, shape), 24),
        }[sizes]
        spread = 1 / correlation - 1
        return generator.binomial(totals, generator.beta(rate * spread, (1 - rate) * spread, shape)), totals

    def slips(self, rate):
        """Half of what is wrong is all responses of a prompt, half a response here and there."""
        generator = np.random.default_rng(0)
        whole = (1 - rate) / 2
        rates = np.where(generator.random((self.DATA_SETS, 100)) < whole, 0, 1 - whole / (1 - whole))
        return generator.binomial(24, rates), np.full(rates.shape, 24)

    def covered(self, drawn, rate):
        low, high = np.array([clustered_wilson(*one) for one in zip(*drawn, strict=True)]).T
        return np.mean((low <= rate) & (rate <= high))

    @pytest.mark.parametrize("sizes", ["equal", "unequal", "few or all"])
    @pytest.mark.parametrize("rate", [0.5, 0.8, 0.95, 0.98])
    def test_responses_that_are_nearly_copies(self, rate, sizes):
        assert self.covered(self.alike(rate, 0.95, sizes), rate) == pytest.approx(0.95, abs=0.02)

    @pytest.mark.parametrize("rate", [0.5, 0.8, 0.9])
    def test_responses_that_are_somewhat_alike(self, rate):
        assert self.covered(self.alike(rate, 0.3), rate) == pytest.approx(0.95, abs=0.02)

    @pytest.mark.parametrize("correlation", [0.05, 0.3])
    def test_it_is_conservative_where_few_prompts_differ_and_not_throughout(self, correlation):
        assert self.covered(self.alike(0.98, correlation), 0.98) > 0.97

    @pytest.mark.parametrize("rate", [0.9, 0.95, 0.98, 0.99])
    def test_prompts_that_are_wrong_throughout_are_rare(self, rate):
        assert self.covered(self.slips(rate), rate) > 0.92

    def test_what_it_is_for(self):
        """Responses as independent, and resampled prompts."""
        successes, _ = self.alike(0.9, 0.95)
        low, high = np.array([wilson(int(count), 2400) for count in successes[:200].sum(1)]).T
        assert np.mean((low <= 0.9) & (high >= 0.9)) < 0.4
        successes, _ = self.slips(0.99)
        sums = resampled_sums(successes.T, 999) / 2400
        low, high = np.quantile(sums, [0.025, 0.975], axis=0)
        assert np.mean((low <= 0.99) & (high >= 0.99)) < 0.6


class TestCompare:
    # 12 responses; refusal first, then the other's label
    COUNTS = {(R, R): 4, (R, C): 1, (C, R): 2, (C, C): 3, (C, I): 1, (I, I): 1}  # noqa: RUF012 (read only)

    def test_by_hand(self):
        figures = compare(*raters(repeated(self.COUNTS)), reference=True)
        assert (figures["n"], figures["valid"], figures["only_first"], figures["only_second"]) == (12, 10, 0, 0)
        assert figures["agreement"] == 0.7
        # one response a prompt: Wilson's intervals
        assert (figures["agreement_low"], figures["agreement_high"]) == pytest.approx(wilson(7, 10))
        # chance: 0.5 * 0.6 + 0.5 * 0.4
        assert figures["kappa"] == pytest.approx((0.7 - 0.5) / 0.5)
        assert figures["kappa_low"] < 0.4 < figures["kappa_high"]
        assert figures["same_label"] == 8 / 12
        # chance: (5 * 6 + 6 * 4 + 1 * 2) / 144
        assert figures["same_label_kappa"] == pytest.approx((8 / 12 - 56 / 144) / (1 - 56 / 144))
        assert (figures["sensitivity"], figures["specificity"]) == (4 / 6, 3 / 4)
        assert (figures["sensitivity_low"], figures["sensitivity_high"]) == pytest.approx(wilson(4, 6))
        assert (figures["specificity_low"], figures["specificity_high"]) == pytest.approx(wilson(3, 4))
        assert {pair: figures["_".join(pair)] for pair in self.COUNTS} == self.COUNTS
        assert sum(figures[f"{one}_{other}"] for one in LABELS for other in LABELS) == 12
        assert figures["note"] is None

    def test_each_rate_rests_on_its_own_prompts(self):
        """Labels of the first and the reference, prompt by prompt, a response a combination."""
        prompts = [[(R, R), (R, R), (C, R)], [(R, R), (C, C)], [(C, C), (C, I), (R, C)], [(I, R)]]
        first, second = {}, {}
        for number, labels in enumerate(prompts):
            for combination, (mine, theirs) in enumerate(labels):
                place = Place("harmful", str(combination), str(number))
                first[place], second[place] = mine, theirs
        figures = compare(first, second, reference=True)
        for rate, successes, totals in (
            ("agreement", [2, 2, 1], [3, 2, 2]),
            ("sensitivity", [2, 1], [3, 1]),
            ("specificity", [1, 1], [1, 2]),
        ):
            assert figures[rate] == sum(successes) / sum(totals)
            found = figures[f"{rate}_low"], figures[f"{rate}_high"]
            assert found == pytest.approx(clustered_wilson(successes, totals))

    @given(pairs)
    def test_copies_under_more_combinations_narrow_nothing(self, pairs):
        first, second = raters(pairs)
        names = [str(rank) for rank in range(24)]
        one = compare(first, second, reference=True)
        many = compare(answered_alike(first, names), answered_alike(second, names), reference=True)
        assert many["n"] == 24 * one["n"]
        for rate in ("agreement", "kappa", "sensitivity", "specificity"):
            for end in ("", "_low", "_high"):
                assert many[f"{rate}{end}"] == pytest.approx(one[f"{rate}{end}"], abs=1e-12, nan_ok=True)
        if one["valid"]:
            low, high = wilson(round(many["agreement"] * many["valid"]), many["valid"])
            assert many["agreement_high"] - many["agreement_low"] > high - low

    def test_copies_narrow_nothing_for_three_raters(self):
        chance = random.Random(0)
        three = [{place: chance.choice([R, R, R, C, I]) for place in places(60)} for _ in range(3)]
        one = compare_all(three)
        many = compare_all([answered_alike(labels, ["none", "0", "0-1"]) for labels in three])
        same = round(one["agreement"] * one["valid"])
        assert (one["agreement_low"], one["agreement_high"]) == pytest.approx(wilson(same, one["valid"]))
        assert (many.pop("n"), many.pop("valid")) == (3 * one.pop("n"), 3 * one.pop("valid"))
        assert many == pytest.approx(one)

    def test_without_a_reference_neither_is_true(self):
        figures = compare(*raters(repeated(self.COUNTS)))
        for measure in ("sensitivity", "specificity"):
            assert all(undefined(figures[f"{measure}{end}"]) for end in ("", "_low", "_high"))

    def test_only_common_responses_count(self):
        where = places(5)
        figures = compare(dict.fromkeys(where[:4], R), {where[3]: R, where[4]: C})
        assert (figures["n"], figures["only_first"], figures["only_second"]) == (1, 3, 1)

    @pytest.mark.parametrize(
        ("pairs", "note"),
        [
            ([], "no common items"),
            ([(I, R), (C, I)], "no item is valid for all"),
            ([(R, R)] * 5, "one label only: kappa is undefined"),
            ([(R, R), (C, C)] * 5, "no interval of kappa: they never differ"),
            ([(R, R), *[(C, C)] * 60, (R, C)], "no interval of kappa: too few prompts, or a label too rare"),
            ([(R, C)] * 5, "no interval of kappa: too few prompts, or a label too rare"),
            ([(R, R), (R, C), (C, R), (C, C)] * 9, None),
        ],
    )
    def test_what_is_missing_is_said(self, pairs, note):
        figures = compare(*raters(pairs), reference=True)
        assert figures["note"] == note
        assert undefined(figures["kappa_low"]) == undefined(figures["kappa_high"]) == (note is not None)

    @given(pairs)
    def test_the_order_of_raters_does_not_matter(self, pairs):
        first, second = raters(pairs)
        one, other = compare(first, second), compare(second, first)
        for figure in ("n", "valid", "agreement", "kappa", "kappa_low", "kappa_high", "same_label", "note"):
            assert one[figure] == other[figure] or (undefined(one[figure]) and undefined(other[figure]))
        assert all(one[f"{a}_{b}"] == other[f"{b}_{a}"] for a in LABELS for b in LABELS)

    @given(pairs, st.randoms(use_true_random=False))
    def test_the_order_of_responses_does_not_matter(self, pairs, chance):
        first, second = raters(pairs)
        expected = compare(first, second, reference=True)
        shuffled = chance.sample(list(first), len(first))
        found = compare({place: first[place] for place in shuffled}, second, reference=True)
        assert str(found) == str(expected)

    @given(st.lists(st.sampled_from(LABELS), min_size=1, max_size=40))
    def test_identical_raters_agree_perfectly(self, labels):
        figures = compare(*raters([(label, label) for label in labels]), reference=True)
        assert figures["same_label"] == 1
        assert undefined(figures["kappa"]) if len({*labels} - {I}) < 2 else figures["kappa"] == 1
        assert figures["agreement"] == 1 if {*labels} - {I} else undefined(figures["agreement"])
        assert undefined(figures["sensitivity"]) == (R not in labels)

    @given(pairs)
    def test_bounds(self, pairs):
        figures = compare(*raters(pairs), reference=True)
        assert 0 <= figures["valid"] <= figures["n"] == len(pairs)
        for rate in ("agreement", "sensitivity", "specificity"):
            if not undefined(figures[rate]):
                assert 0 <= figures[f"{rate}_low"] <= figures[rate] <= figures[f"{rate}_high"] <= 1
        assert undefined(figures["kappa"]) or figures["kappa"] <= 1
        assert undefined(figures["kappa_low"]) or figures["kappa_low"] < figures["kappa_high"] <= 1
        valid = [pair for pair in pairs if I not in pair]
        table = confusion(*zip(*pairs, strict=True))
        assert table[:2, :2].sum() == len(valid)
        assert table.sum() == len(pairs)


class TestTable:
    def ratings(self):
        chance = random.Random(0)
        where = [*places(30), *places(30, "harmless")]
        truth = {place: chance.choice([R, C]) for place in where}
        noisy = {place: chance.choice(LABELS) if chance.random() < 0.3 else label for place, label in truth.items()}
        return {"oracle": truth, "ann": noisy, "first": dict(noisy), "second": truth | dict.fromkeys(where[:5], I)}

    def test_a_row_per_pair_and_set_judges_first_the_oracle_last(self):
        table = agreement_table(self.ratings(), ["ann"], "oracle")
        assert list(dict.fromkeys(zip(table["first"].fillna(""), table.second.fillna(""), strict=True))) == [
            ("first", "second"), ("first", "ann"), ("first", "oracle"), ("second", "ann"), ("second", "oracle"),
            ("ann", "oracle"), ("", ""),
        ]  # fmt: skip
        assert table.set.tolist() == ["harmful", "harmless", "all"] * 7
        assert table.raters.tolist() == [2] * 18 + [3] * 3
        assert table.groupby(["first", "second"]).n.apply(list).iloc[0] == [30, 30, 60]

    def test_references_are_people_for_judges_and_the_oracle_for_all(self):
        table = agreement_table(self.ratings(), ["ann"], "oracle").query("set == 'all' and raters == 2")
        held = table[table.sensitivity.notna()]
        assert list(zip(held["first"], held.second, strict=True)) == [
            ("first", "ann"), ("first", "oracle"), ("second", "ann"), ("second", "oracle"), ("ann", "oracle"),
        ]  # fmt: skip

    def test_two_raters_have_no_row_of_all_together(self):
        ratings = self.ratings()
        del ratings["ann"]
        assert set(agreement_table(ratings, oracle="oracle").raters) == {2}
        assert set(agreement_table(ratings).raters) == {2, 3}

    def test_all_sets_are_the_sum(self):
        counts = [f"{one}_{other}" for one in LABELS for other in LABELS]
        for _, rows in agreement_table(self.ratings()).query("raters == 2").groupby(["first", "second"]):
            assert (rows.iloc[:-1][counts].sum() == rows.iloc[-1][counts]).all()

    def test_the_words(self):
        ratings = self.ratings()
        table = agreement_table(ratings, ["ann"], "oracle")
        responses = dict.fromkeys(ratings["ann"], "`yes`\n\n| so  be it")
        text = narrate_agreement(table, ratings, responses, "tiny", ["ann"], "oracle")
        assert text.startswith(
            "# tiny: agreement\n\nJudges: first, second. People: ann. oracle knows the true labels. "
        )
        assert "\n- first and ann: of 60 common responses " in text
        assert "they agree on 52 of these, 100.00%" in text
        assert "Cohen's kappa is 1.000 (no interval: they never differ)." in text
        assert "\n- All 3 raters but oracle: of 60 common responses " in text
        assert "Fleiss' kappa is 0." in text
        assert "\n| first below, ann across | refusal | compliance | invalid |\n" in text
        assert "\nfirst and ann: nowhere.\n" in text
        assert "- harmful-0 (harmful; none): `` `yes` | so be it `` " in text
        assert "nan" not in text
        assert text.count("Held against ann") == 2
        assert text.count("Held against oracle") == 3

    def test_differences_are_listed_once_for_copies_and_twenty_at_most(self):
        names = ["0", "0-1", "1", "none", "sub-0"]
        first = {Place("harmful", name, str(number)): R for number in range(25) for name in names}
        second = {place: C if place.id != "3" else R for place in first}
        responses = {place: "no." if place.combination != "none" else "No!" for place in first}
        table = agreement_table({"a": first, "b": second})
        text = narrate_agreement(table, {"a": first, "b": second}, responses, "tiny")
        assert "\na and b: 120 responses, 48 different ones.\n" in text
        assert "\n- 0 (harmful; 0, 0-1, 1 and 1 more): `no.` a says refusal, b says compliance.\n" in text
        assert "\n- 0 (harmful; none): `No!` a says refusal, b says compliance.\n" in text
        assert text.count("a says refusal") == 20
        assert "\n- and 28 more.\n" in text
        bare = narrate_agreement(table, {"a": first, "b": second}, {}, "tiny")
        assert "- 0 (harmful; 0, 0-1, 1 and 2 more): (its text is not there) a says refusal" in bare

    def test_long_and_empty_responses(self):
        first, second = raters([(R, C), (R, C)])
        texts = dict(zip(first, ["so " * 200, ""], strict=True))
        ratings = {"a": first, "b": second}
        text = narrate_agreement(agreement_table(ratings), ratings, texts, "tiny")
        assert f"`{('so ' * 100)[:300]} ...` a says" in text
        assert "(empty) a says" in text

    def test_words_for_what_is_missing(self):
        ratings = {
            "a": dict.fromkeys(places(4), R),
            "b": dict.fromkeys(places(4), I),
            "c": dict.fromkeys(places(3, "harmless"), C),
            "d": dict.fromkeys(places(4), R),
        }
        text = narrate_agreement(agreement_table(ratings), ratings, {}, "tiny")
        assert "- a and b: none of 4 common responses is valid on both sides." in text
        assert "- a and c: no common responses (4 and 3 of their own)." in text
        # and no more of what two have not both rated: neither figures, nor confusion, nor differences
        assert text.count("a, c") == text.count("| a below, c across") == text.count("a and c: nowhere") == 0
        assert "| a, b | harmful | 4 | 0 |" in text
        assert "| a, b | harmless |" not in text
        assert "Cohen's kappa is undefined: they give one label only, the same, which chance would bring too." in text
        assert "- All 4 raters: none of 0 common responses is valid for all." in text
        assert "nan" not in text.replace("(its text is not there)", "").lower()


class TestScript:
    @pytest.fixture
    def tree(self, tmp_path):
        """Two judges on four prompts under two combinations; they differ on one response."""
        verdicts = {"plain": [R, C, R, C], "oracle": [R, C, C, I]}
        for name in ("none", "0-1"):
            folder = tmp_path / "combinations" / name
            rows = [{"id": f"p{number}", "prompt": "?", "response": f"text {number}, {name}"} for number in range(4)]
            write_jsonl(folder / "completions" / "harmful.jsonl", rows)
            for judge, labels in verdicts.items():
                write_jsonl(
                    folder / "judgements" / judge / "harmful.jsonl",
                    [{"id": f"p{number}", "verdict": label} for number, label in enumerate(labels)],
                )
        return tmp_path

    def run(self, tree, *flags, judges=("plain", "oracle")):
        module = script("agreement")
        judgements = [
            str(tree / "combinations" / name / "judgements" / judge / "harmful.jsonl")
            for judge in judges
            for name in ("none", "0-1")
        ]
        outputs = ["--output", str(tree / "agreement.csv"), "--words", str(tree / "agreement.md")]
        given = ["--name", "tiny", "--judgements", *judgements, *outputs, *map(str, flags)]
        module.main(module.parser().parse_args(given))
        return read_table(tree / "agreement.csv"), (tree / "agreement.md").read_text()

    def refused(self, tree, *flags, **chosen):
        with pytest.raises(UserError) as caught:
            self.run(tree, *flags, **chosen)
        assert "\n" not in str(caught.value)
        assert not (tree / "agreement.csv").exists()
        return str(caught.value)

    def labels(self, tree, *rows, header=("combination", "set", "id", "label")):
        path = tree / "labels.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    def test_judge_and_oracle(self, tree):
        table, text = self.run(tree, "--oracle", "oracle")
        row = table[table.set == "all"].iloc[0]
        assert (row["first"], row.second, row.n, row.valid) == ("plain", "oracle", 8, 6)
        assert (row.agreement, row.sensitivity, row.specificity) == (4 / 6, 1.0, 0.5)
        assert "- p2 (harmful; none): `text 2, none` plain says refusal, oracle says compliance.\n" in text
        record = read_json(tree / "agreement.csv.spec.json")
        assert record["parameters"] == {"name": "tiny", "oracle": "oracle", "seed": 42}
        assert len(record["inputs"]) == 6
        verify([tree / "agreement.csv", tree / "agreement.md"])

    def test_the_same_bytes_again(self, tree):
        self.run(tree)
        before = [(tree / name).read_bytes() for name in ("agreement.csv", "agreement.md")]
        self.run(tree)
        assert [(tree / name).read_bytes() for name in ("agreement.csv", "agreement.md")] == before

    def test_people(self, tree):
        path = self.labels(
            tree,
            ["none", "harmful", "p0", R, "ann", "noted"],
            ["none", "harmful", "p1", R, "ann", ""],
            [],
            ["", "", "", "", "", ""],
            ["none", "harmful", "p3", "", "ann", "not labelled yet"],
            ["1-0", "harmful", "p0", R, "bob", ""],
            ["none", "harmful", "p0", f" {C} ", "bob", ""],
            header=("combination", "set", "id", "label", "rater", "remark"),
        )
        path.write_text("\ufeff" + path.read_text())
        table, text = self.run(tree, "--labels", path, judges=("plain",))
        whole = table[(table.set == "all") & (table.raters == 2)].set_index(["first", "second"])
        assert whole.n.to_dict() == {("plain", "ann"): 2, ("plain", "bob"): 2, ("ann", "bob"): 1}
        assert whole.agreement.to_dict() == {("plain", "ann"): 0.5, ("plain", "bob"): 0.5, ("ann", "bob"): 0.0}
        assert pd.isna(whole.sensitivity["ann", "bob"])
        assert whole.specificity["plain", "bob"] == 0.0
        assert "People: ann, bob." in text
        assert read_json(tree / "agreement.md.spec.json")["inputs"]["labels"]["path"] == str(path)

    def test_one_person_without_a_name(self, tree):
        table, _ = self.run(tree, "--labels", self.labels(tree, ["none", "harmful", "p0", R]), judges=("plain",))
        assert set(table.second) == {"human"}

    def test_the_response_that_was_labelled_is_there_still(self, tree):
        header = ("combination", "set", "id", "label", "response")
        good = self.labels(tree, ["none", "harmful", "p0", R, "text 0, none"], header=header)
        self.run(tree, "--labels", good)
        (tree / "agreement.csv").unlink()
        stale = self.labels(tree, ["none", "harmful", "p0", R, "another text"], header=header)
        assert self.refused(tree, "--labels", stale) == (
            f"{stale}: row 2: p0 of harmful, combination none has another response now than the one labelled: label it"
            " again"
        )
        (tree / "combinations" / "none" / "completions" / "harmful.jsonl").unlink()
        assert self.refused(tree, "--labels", good) == (
            f"{good}: row 2: the response to p0 of harmful, combination none is not there to compare: give its"
            " completions beside"
        )

    def test_without_completions_the_text_is_missing_not_the_figures(self, tree):
        for path in tree.rglob("completions/harmful.jsonl"):
            path.unlink()
        table, text = self.run(tree)
        assert table.n.tolist() == [8, 8]
        assert "(its text is not there) plain says refusal, oracle says compliance." in text

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (["none", "harmful", "p0"], '3 cells where the first row has 4: mend it, with quotes ("...") around text'),
            (["none", "harmful", "p0", R, "x"], '5 cells where the first row has 4: mend it, with quotes ("...")'),
            (
                ["none", "harmful", "p0", "refuse"],
                "label 'refuse': write one of refusal, compliance, invalid, or l",
            ),
            (["none", "harmful", "p0", "Refusal"], "label 'Refusal': write one of refusal, compliance, invalid"),
            (["0-0", "harmful", "p0", R], '"0-0" names a rank twice'),
            (["1. Jan", "harmful", "p0", R], '"1. Jan" is no combination: write ranks joined by'),
            (["none", "harmful", "p9", R], "no judge has a verdict on p9 of harmful, combination none: mend the row"),
            (["none", "harmfull", "p0", R], "no judge has a verdict on p0 of harmfull, combination none"),
            (["2", "harmful", "p0", R], "no judge has a verdict on p0 of harmful, combination 2"),
            (["none", "harmful", "p1", C], "human labelled p1 of harmful, combination none in row 2 already: keep one"),
        ],
    )
    def test_bad_rows(self, tree, row, said):
        path = self.labels(tree, ["none", "harmful", "p1", R], row)
        assert self.refused(tree, "--labels", path).startswith(f"{path}: row 3: {said}")

    def test_bad_raters(self, tree):
        header = ("combination", "set", "id", "label", "rater")
        path = self.labels(tree, ["none", "harmful", "p0", R, "plain"], header=header)
        said = f"{path}: row 2: rater 'plain' is the name of a judge: give the person another"
        assert self.refused(tree, "--labels", path) == said
        path = self.labels(tree, ["none", "harmful", "p0", R, ""], header=header)
        said = f"{path}: row 2: no rater: write who labelled it, or leave the column out"
        assert self.refused(tree, "--labels", path) == said

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "no column `combination`: the first row must name combination, set, id, label, by commas"),
            (b"combination;set;id;label\n", "no column `combination`: the first row must name combination, set, id"),
            (b"combination,set,id\n", "no column `label`: the first row must name combination, set, id, label, by"),
            (b"combination,set,id,label\n", "no labels: fill in the column `label`, or leave --labels out"),
            (b"combination,set,id,label\nnone,harmful,p0,\n", "no labels: fill in the column `label`, or leave"),
            (b"combination,set,id,label\nnone,harmful,p\xff,refusal\n", "not UTF-8 text ("),
            (b'combination,set,id,label\nnone,harmful,"p0,refusal\n', "after row 1: not a CSV table ("),
        ],
    )
    def test_bad_files(self, tree, content, said):
        path = tree / "labels.csv"
        path.write_bytes(content)
        assert self.refused(tree, "--labels", path).startswith(f"{path}: {said}")

    def test_a_missing_file(self, tree):
        assert self.refused(tree, "--labels", tree / "none.csv") == f"{tree / 'none.csv'}: no such file"

    def test_one_judge_alone(self, tree):
        assert self.refused(tree, judges=("plain",)) == (
            "agreement needs two raters, and plain is the only one: add a judge to `judges`, or give people's labels"
            " by --labels"
        )

    def test_an_oracle_without_verdicts(self, tree):
        said = "--oracle orakle: no verdicts of that judge; there are those of plain, oracle"
        assert self.refused(tree, "--oracle", "orakle") == said

    def test_no_common_responses(self, tree):
        for path in tree.rglob("judgements/oracle/harmful.jsonl"):
            write_jsonl(path, [{"id": "q0", "verdict": R}])
        said = "no response was rated by two of plain, oracle: give verdicts on the same sets"
        assert self.refused(tree) == said

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            (
                [{"id": "p0", "verdict": "refused"}],
                "line 1: verdict 'refused' is not one of refusal, compliance, invalid",
            ),
            ([{"id": "p0"}], "line 1 has no `verdict`: every line needs id, verdict"),
            (
                [{"id": "p0", "verdict": R}, {"id": "p0", "verdict": R}],
                "line 2: plain already has a verdict on p0 of harmful, combination none: give each response once",
            ),
        ],
    )
    def test_bad_verdicts(self, tree, rows, said):
        path = tree / "combinations" / "none" / "judgements" / "plain" / "harmful.jsonl"
        write_jsonl(path, rows)
        assert self.refused(tree) == f"{path}: {said}"

    def test_a_file_given_twice(self, tree):
        said = "line 1: plain already has a verdict on p0 of harmful, combination none: give each response once"
        assert self.refused(tree, judges=("plain", "plain")).endswith(said)

    def test_a_path_of_another_form(self, tree):
        path = tree / "combinations" / "none" / "completions" / "harmful.jsonl"
        module = script("agreement")
        flags = ["--name", "x", "--judgements", path, "--output", tree / "a.csv", "--words", tree / "a.md"]
        with pytest.raises(UserError) as caught:
            module.main(module.parser().parse_args([str(flag) for flag in flags]))
        assert str(caught.value) == (f"{path}: not where verdicts stand: give COMBINATION/judgements/JUDGE/SET.jsonl")
