"""Questions about costs: each answer by hand, on evidence of a hundred prompts."""

from dataclasses import replace

import numpy as np
import pytest
from evidence import ROWS, N, answers, asked, of, study

from refusal.claims.questions import claims
from refusal.statistics import wilson


class TestCostMatched:
    @pytest.mark.parametrize(
        ("cost", "noise", "answer"),
        [(0.01, 0.002, "yes"), (0.02, 0.002, "undecided"), (0.04, 0.002, "no"), (0.01, 0.2, "undecided")],
    )
    def test_answers(self, cost, noise, answer):
        """A single removes 50 points for 0.01 nats, a pair 98."""
        pair = of("0-2", 2, -6.0, cost=cost, noise=noise)
        found = asked(study(**{"0-2": pair}), "cost_matched")
        assert found["answer"] == answer
        assert found["rests_on"] == {
            "judge": "substring",
            "set": "harmful",
            "corpus": "text",
            "combinations": ["none", "0", "0-2"],
        }
        figures = found["figures"]
        assert figures["single"]["removed"]["estimate"] == 0.5
        assert figures["single"]["ce_delta"]["estimate"] == pytest.approx(0.01, abs=0.001)
        assert figures["single"]["per_nat"] == pytest.approx(50, rel=0.1)
        assert (figures["pair"]["per_nat"] is None) == (noise > 0.1)
        assert figures["estimate"] == pytest.approx(0.98 * 0.01 - 0.5 * cost, abs=0.002 if noise < 0.1 else 1)
        assert (figures["n"], figures["rows"]) == (N, ROWS)

    def test_a_cost_below_zero_counts_as_none(self):
        """The single's CE falls: neither its gain nor its sign makes it cheaper than free."""
        single = of("0", 50, -2.0, cost=-0.01, noise=0.002)
        found = asked(study(**{"0": single}), "cost_matched")
        assert found["figures"]["estimate"] == pytest.approx(0.98 * 0 - 0.5 * 0.02, abs=0.002)
        assert found["answer"] == "no"

    @pytest.mark.parametrize(
        ("refused", "noise", "words"),
        [
            (50, 0.2, "neither surely costs anything."),
            (100, 0.002, "neither surely removes refusals."),
            (100, 0.2, "neither surely removes refusals, and neither surely costs anything."),
        ],
    )
    def test_what_has_no_rate_of_exchange(self, refused, noise, words):
        cost = 0.01 if noise < 0.1 else 0.0
        ablations = {
            name: of(name, refused, bypass, cost=cost, noise=noise) for name, bypass in (("0", -2.0), ("0-2", -6.0))
        }
        found = asked(study(**ablations), "cost_matched")
        assert found["answer"] == "undecided"
        assert found["words"].endswith(f" There is no rate of exchange: {words}")

    def test_costs_without_an_interval(self):
        """Every text costs the same: nothing says how texts vary."""
        alike = {name: of(name, 50, bypass, cost=0.01) for name, bypass in (("0", -2.0), ("0-2", -6.0))}
        found = asked(study(**alike), "cost_matched")
        assert found["answer"] == "undecided"
        assert "+0.0100 nats per token (no interval: the texts are too few, or too alike)." in found["words"]
        assert "nan" not in found["words"]

    def test_without_loss_by_row_the_front_is_still_described(self):
        evidence = {
            name: replace(one, loss={"text": {"ce_loss": one.loss["text"]["ce_loss"]}}) for name, one in study().items()
        }
        found = asked(evidence, "cost_matched")
        assert (found["answer"], found["words"]) == (
            "not measurable",
            "There is no loss by row of text under none, so the uncertainty over its texts is unknown.",
        )
        assert {one["combination"] for one in found["descriptive"]["pareto"] if one["pareto"]} == {"none", "0", "1-2"}
        assert {one["per_nat"] for one in found["descriptive"]["pareto"]} == {None}

    def test_pareto(self):
        """By hand: costs nothing and removes nothing; half for 0.01; all for 0.02. Ties do not push each other out."""
        exact = {
            name: of(name, refused, 0.0, cost=cost)
            for name, refused, cost in [("0", 50, 0.01), ("1", 60, 0.01), ("2", 50, 0.01), ("0-1", 45, 0.02),
                                        ("0-2", 0, 0.02), ("1-2", 0, 0.03)]
        }  # fmt: skip
        (*_, found) = [one for one in claims(study(**exact), "substring", draws=99) if one["claim"] == "cost_matched"]
        points = {one["combination"]: one for one in found["descriptive"]["pareto"]}
        assert {name for name, one in points.items() if one["pareto"]} == {"none", "0", "2", "0-2"}
        assert "add-0" not in points
        assert points["0"]["refusal_rate"] == 0.5
        assert (points["0"]["refusal_low"], points["0"]["refusal_high"]) == wilson(50, 100)
        # every row costs the same, which says nothing on the spread
        assert points["0"]["ce_low"] is points["0"]["per_nat"] is None
        assert found["descriptive"]["note"] == "Test rates of all: a description, no choice."

    def test_per_nat_where_the_cost_is_there(self):
        points = {one["combination"]: one for one in asked(study(), "cost_matched")["descriptive"]["pareto"]}
        assert points["0-2"]["ce_low"] < 0.02 < points["0-2"]["ce_high"]
        assert points["0-2"]["per_nat"] == pytest.approx(49, rel=0.05)
        assert points["none"]["per_nat"] is None


class TestLinearCost:
    def costing(self, single, pair, noise=0.0005, **changes):
        made = {name: of(name, 50, -float(name[0]), cost=cost, noise=noise)
                for names, cost in ((("0", "1", "2", "3"), single), (("0-1", "0-2", "1-2", "0-3", "1-3", "2-3"), pair))
                for name in names}  # fmt: skip
        return study(**made, **changes)

    @pytest.mark.parametrize(
        ("single", "pair", "answer"),
        [(0.01, 0.02, "yes"), (0.01, 0.022, "yes"), (0.01, 0.04, "no"), (0.01, 0.01, "no"), (-0.01, -0.02, "no")],
    )
    def test_answers(self, single, pair, answer):
        assert answers(self.costing(single, pair), "linear_cost") == answer

    def test_texts_that_leave_it_open(self):
        assert answers(self.costing(0.01, 0.02, noise=0.1), "linear_cost") == "undecided"

    def test_directions_that_leave_it_open(self):
        """One direction costs a hundred times what the others do: with another five it might be otherwise."""
        costs = {"0": 1.0, "1": 0.01, "2": 0.01, "3": 0.01}
        made = {name: of(name, 50, cost=sum(costs[rank] for rank in name.split("-")), noise=0.0005)
                for name in [*costs, "0-1", "0-2", "1-2", "0-3", "1-3", "2-3"]}  # fmt: skip
        found = asked(study(**made), "linear_cost")
        assert found["answer"] == "undecided"
        assert found["figures"]["low_over_texts"] > 0 > found["figures"]["low"]

    def test_figures(self):
        found = asked(self.costing(0.01, 0.03, noise=0.0005), "linear_cost")
        figures = found["figures"]
        # by hand: (4 x 1 x 0.01 + 6 x 2 x 0.03) / (4 x 1 + 6 x 4)
        assert figures["estimate"] == pytest.approx(0.4 / 28, abs=2e-4)
        # a direction costs 0.015 in a pair, 0.01 alone
        assert figures["bend"] == pytest.approx(0.005, abs=2e-4)
        assert figures["low"] < figures["estimate"] < figures["high"]
        assert figures["bend_low"] < figures["bend"] < figures["bend_high"]
        assert (figures["n"], figures["combinations"]) == (ROWS, 10)
        assert [one["combinations"] for one in figures["by_directions"].values()] == [4, 6]
        assert figures["by_directions"]["2"]["ce_delta"] == pytest.approx(0.03, abs=2e-4)
        assert len(found["rests_on"]["combinations"]) == 10

    def test_over_directions(self):
        """Where costs add up, the slope is the mean cost of a rank, and without a rank that of the others."""
        costs = [0.01, 0.02, 0.04, 0.05]
        names = ["0", "1", "2", "3", "0-1", "0-2", "0-3", "1-2", "1-3", "2-3"]
        made = {
            name: of(name, 50, cost=sum(costs[int(rank)] for rank in name.split("-")), noise=1e-7) for name in names
        }
        figures = asked(study(**made), "linear_cost")["figures"]
        assert figures["estimate"] == pytest.approx(0.03, abs=1e-6)
        # Student's interval of a mean of four, t = 3.182446
        half = 3.182446 * np.std(costs, ddof=1) / 2
        assert figures["half_width_over_directions"] == pytest.approx(half, abs=1e-6)
        assert (figures["low"], figures["high"]) == pytest.approx((0.03 - half, 0.03 + half), abs=1e-6)
        assert figures["bend"] == pytest.approx(0, abs=1e-6)

    def test_near_copies_count_by_what_is_ablated(self):
        evidence = self.costing(0.01, 0.02)
        evidence["0-1"] = of("0-1", 50, cost=0.01, noise=0.0005, directions=1)
        found = asked(evidence, "linear_cost")
        assert found["figures"]["by_directions"]["1"]["combinations"] == 5
        assert found["figures"]["fewer_directions_than_named"] == ["0-1"]
        assert "(of the near-copies in 0-1, only what is ablated counts)" in found["words"]
        assert found["answer"] == "yes"

    def test_all_singles_of_one_rank(self):
        """Without it, only pairs would be left."""
        evidence = self.costing(0.01, 0.02)
        for name in ("1", "2", "3"):
            del evidence[name]
        found = asked(evidence, "linear_cost")
        assert found["answer"] == "undecided"
        assert found["words"].endswith(
            "the choice of directions leaves it open: without some rank, one number of directions is left."
        )
        assert found["figures"]["low"] is None
        assert found["figures"]["low_over_texts"] > 0

    def test_texts_that_all_cost_the_same(self):
        found = asked(self.costing(0.01, 0.02, noise=0.0), "linear_cost")
        assert (found["answer"], found["figures"]["low"]) == ("undecided", None)
        assert found["words"].endswith("; its texts are too few, or too alike, to tell how it varies.")

    def test_one_number_of_directions(self):
        found = asked(study(**dict.fromkeys(["0-1", "0-2", "1-2"])), "linear_cost")
        assert (found["answer"], found["words"]) == (
            "not measurable",
            "Ablations of at least two different numbers of directions are needed.",
        )

    def test_without_loss_by_row(self):
        """There is a slope, but no interval of it."""
        evidence = self.costing(0.01, 0.02)
        evidence["1"] = replace(evidence["1"], loss={"text": {"ce_loss": 3.01}})
        found = asked(evidence, "linear_cost")
        assert found["answer"] == "not measurable"
        assert found["words"] == (
            "Over 10 ablations, each direction adds +0.0100 nats per token of text. There is no loss by row of text"
            " under 1, so the uncertainty over its texts is unknown."
        )
        assert found["figures"]["estimate"] == pytest.approx(0.01, abs=1e-4)
        assert "low" not in found["figures"]


def test_a_pair_that_removes_nothing_is_no_bargain_because_it_costs_less_than_nothing():
    evidence = study(**{"0-2": of("0-2", 100, -6.0, cost=-0.02, noise=0.002)})
    found = asked(evidence, "cost_matched")
    assert found["figures"]["pair"]["removed"]["estimate"] == 0
    assert found["answer"] == "undecided"
