"""The summary of a small study, every figure by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from evidence import VAL, of
from evidence import study as hand_made

from refusal.errors import UserError
from refusal.evidence import Evidence, best_single
from refusal.measured import Measured
from refusal.statistics import bootstrap_mean_difference, wilson
from refusal.summary import summarize

R, C, X = "refusal", "compliance", "invalid"
CANDIDATES = [{"source": "mean_difference", "rank": rank, "position": -1, "layer": rank} for rank in range(3)]


def evidence(bypass, verdicts, ce=1.0, k=0, effective_rank=None, cosines=None, ranks=()):
    basis = {
        "k": k,
        "effective_rank": k if effective_rank is None else effective_rank,
        "ablation": "span",
        "candidates": [CANDIDATES[rank] for rank in ranks],
    } | ({"cosines": cosines} if cosines else {})
    return Evidence(
        basis=basis,
        scores={"bypass": bypass, "harmless_refusal_score": bypass - 1, "kl": 0.01 * k},
        loss={"text": {"ce_loss": ce, "perplexity": math.exp(ce)}},
        verdicts={
            ("harmful", "substring"): {f"p{number}": one for number, one in enumerate(verdicts)},
            ("harmless", "substring"): {"q0": C, "q1": C if k < 2 else R},
        },
    )


@pytest.fixture(scope="module")
def study():
    """Eight harmful prompts; the baseline refuses seven, one of its responses is invalid."""
    return {
        "none": evidence(5.0, [R, R, R, R, R, R, R, X]),
        "0": evidence(1.0, [R, R, R, R, C, C, C, C], 1.25, k=1, ranks=[0], cosines=[[1.0]]),
        "1": evidence(-1.0, [R, C, C, C, C, C, X, C], 1.5, k=1, ranks=[1], cosines=[[1.0]]),
        "0-1": evidence(
            -2.0, [C] * 8, 1.5, k=2, effective_rank=1, ranks=[0, 1], cosines=[[1.0, -0.999], [-0.999, 1.0]]
        ),
        "random-k1-s0": evidence(4.5, [R, R, R, R, R, R, R, R], 1.0, k=1, cosines=[[1.0]]),
        "add-0": evidence(6.0, [R] * 8, 1.0, k=1, effective_rank=0, ranks=[0]),
    }


@pytest.fixture(scope="module")
def table(study):
    return summarize(study).set_index("combination")


def test_a_row_each_in_the_order_given(study, table):
    assert list(table.index) == list(study)
    assert list(table.kind) == ["none", "ablation", "ablation", "ablation", "random", "addition"]


def test_a_corpus_may_be_called_as_if_it_were_a_count(study):
    named = {name: replace(one, loss={"text_n": one.loss["text"]}) for name, one in study.items()}
    found = summarize(named)
    assert list(found.ce_text_n) == [one.loss["text"]["ce_loss"] for one in study.values()]


def test_what_was_done(table):
    assert list(table.k) == [0, 1, 1, 2, 1, 1]
    assert list(table.effective_rank) == [0, 1, 1, 1, 1, 0]
    assert table.ablation.dropna().to_dict() == dict.fromkeys(("0", "1", "0-1", "random-k1-s0"), "span")
    assert table.source.dropna().to_dict() == dict.fromkeys(("0", "1", "0-1", "add-0"), "mean_difference")
    assert table.max_cosine["0-1"] == 0.999
    assert table.max_cosine.drop("0-1").isna().all()


@pytest.mark.parametrize(
    ("name", "counts"), [("none", (7, 0, 1)), ("0", (4, 4, 0)), ("1", (1, 6, 1)), ("0-1", (0, 8, 0))]
)
def test_rates_over_all_prompts_invalid_ones_included(table, name, counts):
    for verdict, count in zip((R, C, X), counts, strict=True):
        prefix = f"harmful_substring_{verdict}"
        assert table[f"{prefix}_rate"][name] == count / 8
        assert (table[f"{prefix}_low"][name], table[f"{prefix}_high"][name]) == wilson(count, 8)
    assert table.harmful_n[name] == 8
    assert table.harmless_n[name] == 2


def test_rates_of_each_set_apart(table):
    assert list(table.harmless_substring_refusal_rate) == [0, 0, 0, 0.5, 0, 0]


def test_loss_against_the_baseline(table):
    assert list(table.ce_text) == [1.0, 1.25, 1.5, 1.5, 1.0, 1.0]
    assert list(table.ce_text_delta) == [0.0, 0.25, 0.5, 0.5, 0.0, 0.0]
    assert table.perplexity_text["0"] == math.exp(1.25)
    assert list(table.kl) == [0.0, 0.01, 0.01, 0.02, 0.01, 0.01]


def test_the_best_single_is_chosen_on_val(study, table):
    assert best_single(study) == "1"
    assert list(table.index[table.best_single]) == ["1"]
    tied = {**study, "2": evidence(-1.0, [C] * 8, k=1, ranks=[2])}
    assert best_single(tied) == "1"  # the better rank
    assert best_single({"none": study["none"], "0-1": study["0-1"]}) is None


def test_mcnemar_on_prompts_valid_on_both_sides(table):
    # against the baseline (p7 invalid): "0" differs on p4, p5, p6 of 7; "1" (p6 invalid too) on p1..p5 of 6
    prefix = "harmful_substring"
    pairs = table[f"{prefix}_pairs_vs_baseline"]
    assert pairs.dtype == "Int64"
    assert [pairs["none"] is pd.NA, *pairs.iloc[1:]] == [True, 7, 6, 7, 7, 7]
    p = table[f"{prefix}_p_vs_baseline"]
    expected = {"0": 2 / 2**3, "1": 2 / 2**5, "0-1": 2 / 2**7, "random-k1-s0": 1.0, "add-0": 1.0}
    assert p.dropna().to_dict() == pytest.approx(expected)
    # against the best single "1" (p6 invalid): "0" differs on p1, p2, p3; the pair on p0
    assert table[f"{prefix}_pairs_vs_best_single"].drop("1").tolist() == [6, 7, 7, 7, 7]
    p = table[f"{prefix}_p_vs_best_single"]
    assert p.drop("1").to_dict() == pytest.approx(
        {"none": 2 / 2**5, "0": 2 / 2**3, "0-1": 1.0, "random-k1-s0": 2 / 2**6, "add-0": 2 / 2**6}
    )
    assert math.isnan(p["1"])


def test_holm_over_the_ablations_alone(table):
    adjusted = table["harmful_substring_p_holm_vs_baseline"]
    # three ablations: 2/128 x 3, 2/32 x 2, 2/8 x 1
    assert adjusted.dropna().to_dict() == pytest.approx({"0": 0.25, "1": 0.125, "0-1": 6 / 128})
    adjusted = table["harmful_substring_p_holm_vs_best_single"]
    # two: the reference itself is no test
    assert adjusted.dropna().to_dict() == pytest.approx({"0": 0.5, "0-1": 1.0})


def test_without_a_single_nothing_is_compared_with_one(study):
    table = summarize({name: study[name] for name in ("none", "0-1")}).set_index("combination")
    for column in ("p", "p_holm", "pairs"):
        assert table[f"harmful_substring_{column}_vs_best_single"].isna().all()
    assert not table.best_single.any()
    assert table["harmful_substring_p_vs_baseline"]["0-1"] == pytest.approx(2 / 2**7)


def test_no_pair_valid_on_both_sides():
    table = summarize({"none": evidence(0.0, [X, R]), "0": evidence(0.0, [R, X], k=1, ranks=[0])}).set_index(
        "combination"
    )
    assert math.isnan(table["harmful_substring_p_vs_baseline"]["0"])
    assert table["harmful_substring_pairs_vs_baseline"]["0"] == 0


class TestBounds:
    @pytest.fixture(scope="class")
    def made(self):
        return hand_made()

    @pytest.fixture(scope="class")
    def table(self, made):
        return summarize(made, draws=999).set_index("combination")

    def test_of_scores_over_val_prompts(self, made, table):
        for name, one in made.items():
            by_prompt = one.scores["by_prompt"]["harmful_refusal_score"]
            expected = bootstrap_mean_difference(by_prompt, np.zeros(VAL), draws=999)
            row = table.loc[name]
            assert (row.bypass_low, row.bypass_high) == pytest.approx((expected.low, expected.high))
            assert row.bypass_low < row.bypass < row.bypass_high
            assert row.val_refused == np.mean(np.array(by_prompt) > 0)
        # no values by prompt there
        assert table[["harmless_refusal_score_low", "kl_high"]].isna().all().all()

    def test_of_costs_over_texts(self, made, table):
        costs = Measured(made, "substring", draws=999).costs("text", "0-2")
        row = table.loc["0-2"]
        assert (row.ce_text_delta, row.ce_text_delta_low, row.ce_text_delta_high) == pytest.approx(
            tuple(one[0] for one in costs)
        )
        assert row.ce_text_delta_low < row.ce_text_delta < row.ce_text_delta_high
        assert math.isnan(table.ce_text_delta_low["none"])

    def test_gap_between_val_and_test(self, made, table):
        ablations = table[table.kind == "ablation"]
        measured = Measured(made, "substring")
        for name, row in ablations.iterrows():
            expected = measured.gap(name)
            assert (
                row.harmful_substring_gap, row.harmful_substring_gap_low, row.harmful_substring_gap_high
            ) == (expected["estimate"], expected["low"], expected["high"])  # fmt: skip
        assert table.harmful_substring_gap[table.kind != "ablation"].isna().all()

    def test_a_judge_each(self, made):
        two = {
            name: replace(one, verdicts={**one.verdicts, ("harmful", "other"): one.verdicts["harmful", "substring"]})
            for name, one in made.items()
        }
        table = summarize(two, draws=99)
        assert table.harmful_other_gap.equals(table.harmful_substring_gap.rename("harmful_other_gap"))

    def test_nothing_by_prompt_or_row(self, study):
        bare = summarize(study)
        for column in ("bypass_low", "val_refused", "ce_text_delta_high", "harmful_substring_gap"):
            assert bare[column].isna().all()

    def test_prompts_that_do_not_fit_together(self, made):
        shorter = {**made, "1": of("1", 60, scores=[1.0, 2.0])}
        with pytest.raises(UserError, match=r"^0 was scored on 32 val prompts, 1 on 2: score both again$"):
            summarize(shorter, draws=9)


class TestPartial:
    """What was not measured leaves its cells empty, and changes no other one."""

    @pytest.fixture
    def partial(self, study):
        lacking = {
            "0": replace(study["0"], scores={"bypass": 1.0, "harmless_refusal_score": None, "kl": 0.01}, loss={}),
            "add-0": replace(study["add-0"], scores={}, verdicts={}),
            "sub-0": replace(study["add-0"], scores={}, loss={"text": {"ce_loss": None, "perplexity": None}}),
        }
        only_harmful = {key: one for key, one in study["1"].verdicts.items() if key[0] == "harmful"}
        return {**study, "1": replace(study["1"], verdicts=only_harmful), **lacking}

    @pytest.mark.parametrize(
        ("name", "empty", "filled"),
        [
            (
                "0",
                ("harmless_refusal_score", "ce_text", "ce_text_delta", "perplexity_text"),
                ("bypass", "kl", "harmful_n"),
            ),
            ("1", ("harmless_n", "harmless_substring_refusal_rate"), ("harmful_substring_refusal_low", "ce_text")),
            ("0-1", ("harmless_substring_p_vs_best_single",), ("harmless_substring_p_vs_baseline", "harmless_n")),
            ("add-0", ("bypass", "kl", "harmful_n", "harmful_substring_p_vs_baseline"), ("ce_text", "k")),
            ("sub-0", ("bypass", "ce_text", "ce_text_delta", "perplexity_text"), ("harmful_n", "harmless_n")),
        ],
    )
    def test_empty_cells(self, partial, name, empty, filled):
        row = summarize(partial).set_index("combination").loc[name]
        assert [column for column in empty if not pd.isna(row[column])] == []
        assert [column for column in filled if pd.isna(row[column])] == []

    def test_cells_that_are_there_are_the_same(self, partial, study):
        table, whole = (summarize(one).set_index("combination") for one in (partial, study))
        assert list(table.kind[-2:]) == ["addition", "subtraction"]
        assert table.harmless_n.dtype == table.harmful_n.dtype == "Int64"
        for column in ("harmful_substring_p_vs_baseline", "harmful_substring_refusal_rate", "harmful_n", "ce_text"):
            there = table[column].drop("sub-0").dropna()
            assert len(there) >= 4
            pd.testing.assert_series_equal(there, whole[column][there.index])

    def test_a_single_without_bypass_is_not_the_best(self, partial):
        partial |= {"1": replace(partial["1"], scores={})}
        assert best_single(partial) == "0"
        assert best_single({**partial, "0": replace(partial["0"], scores={"bypass": None})}) is None

    def test_a_baseline_without_responses_or_loss(self, study):
        table = summarize({**study, "none": replace(study["none"], verdicts={}, loss={})}).set_index("combination")
        assert table.harmful_substring_p_vs_baseline.isna().all()
        assert table.ce_text_delta.isna().all()
        assert table.ce_text.notna().sum() == 5
        assert table.harmful_substring_p_vs_best_single["0"] == pytest.approx(2 / 2**3)


def test_judges_and_sets_are_never_pooled(study):
    two = {
        name: Evidence(one.basis, one.scores, one.loss, {**one.verdicts, ("harmful", "other"): {"p0": C, "p1": R}})
        for name, one in study.items()
    }
    table = summarize(two).set_index("combination")
    alone = summarize(study).set_index("combination")
    assert list(table.harmful_other_refusal_rate) == [0.5] * 6
    shared = [column for column in alone if "substring" in column]
    pd.testing.assert_frame_equal(table[shared], alone[shared])
