"""What is chosen on val, what is counted on test, and what is said where neither can be."""

from dataclasses import replace
from math import isnan

import pytest
from evidence import N, of, study, verdicts, without

from refusal.measured import Measured, UnmeasurableError, refusal_share
from refusal.statistics import wilson


def measured(**changes):
    return Measured(study(**changes), "substring")


def test_ablations_from_the_lowest_bypass_up():
    """Neither controls nor what was not scored; ties in the order given."""
    found = measured(**{"1": of("1", 60, -2.0), "2": without(of("2", 80), "scores")})
    assert found.ablations == ["0-2", "0-1", "0", "1", "1-2"]
    assert (found.single, found.pair) == ("0", "0-2")


def test_a_pair_that_is_one_direction_twice_is_none():
    assert measured(**{"0-2": of("0-2", 2, -6.0, directions=1)}).pairs == ["0-1", "1-2"]


@pytest.mark.parametrize(
    ("choice", "gone", "words"),
    [
        ("single", ["0", "1", "2"], "No single direction was ablated and scored on val."),
        ("pair", ["0-1", "0-2", "1-2"], "No pair of two distinct directions was ablated and scored on val."),
    ],
)
def test_nothing_to_choose_from(choice, gone, words):
    with pytest.raises(UnmeasurableError) as caught:
        getattr(measured(**dict.fromkeys(gone)), choice)
    assert str(caught.value) == words


def test_prompts_whose_verdict_is_valid_under_all():
    told = {"0": verdicts(20, 10), "1": verdicts(60, 15)}
    found = measured(**{name: of(name, 0, told=one) for name, one in told.items()}).refused("0", "1")
    assert found.shape == (2, N - 15)
    assert found.sum(axis=1).tolist() == [5, 45]


def test_no_prompt_valid_under_all():
    with pytest.raises(UnmeasurableError) as caught:
        measured(**{"0-2": of("0-2", 0, told=verdicts(0, N))}).refused("0", "0-2")
    assert str(caught.value) == "No harmful prompt has a valid verdict under each of 0, 0-2."


def test_what_files_do_not_say_is_nan():
    pair = of("0-2", 2)
    del pair.basis["cosines"]
    found = measured(**{"0-2": replace(pair, loss={})})
    assert (found.cosine("0-1"), found.cost("0-1", "text")) == (0.2, pytest.approx(0.02, abs=0.002))
    assert isnan(found.cosine("0-2"))
    assert isnan(found.cost("0-2", "text"))


def test_an_invalid_verdict_could_be_either():
    found = refusal_share(["refusal"] * 30 + ["compliance"] * 50 + ["invalid"] * 20)
    assert found == {
        "estimate": 0.3, "low": wilson(30, 100)[0], "high": wilson(50, 100)[1], "n": 100, "refused": 30, "invalid": 20,
    }  # fmt: skip
