"""Names of combinations: one name for one set of ranks, whatever its order, and no name for nonsense."""

import re
from itertools import combinations as choose
from math import comb
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.combinations import CONTROLS, PATTERN, Combination, by_folder, expand, parse
from refusal.errors import UserError

ranks = st.sets(st.integers(0, 200), min_size=1, max_size=6)


@given(ranks.flatmap(lambda found: st.permutations(sorted(found))))
def test_any_order_is_the_same_combination(order):
    found = parse("-".join(map(str, order)))
    assert found.ranks == tuple(sorted(order))
    assert found.id == "-".join(map(str, sorted(order)))
    assert (found.kind, found.size) == ("ablation", len(order))
    assert parse(found.id) == found
    assert re.fullmatch(PATTERN, found.id)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", Combination("none", "none")),
        ("0", Combination("0", "ablation", (0,), 1)),
        ("12-3", Combination("3-12", "ablation", (3, 12), 2)),
        ("00-1", Combination("0-1", "ablation", (0, 1), 2)),
        ("random-k2-s7", Combination("random-k2-s7", "random", (), 2, 7)),
        ("shuffled-k2-s7", Combination("shuffled-k2-s7", "shuffled", (0, 1), 2, 7)),
        ("add-3", Combination("add-3", "addition", (3,), 1)),
        ("sub-12", Combination("sub-12", "subtraction", (12,), 1)),
    ],
)
def test_parse(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "0-",
        "-0",
        "0--1",
        "0,1",
        "0 1",
        "None",
        "add",
        "add--1",
        "sub",
        "sub-",
        "sub-0-1",
        "-sub-0",
        "random-k1",
        "1.0",
    ],
)
def test_no_combination(text):
    with pytest.raises(UserError) as caught:
        parse(text)
    assert str(caught.value) == (
        f'"{text}" is no combination: write ranks joined by "-" (0, 0-2), `none`, `random-k2-s0`,'
        " `shuffled-k2-s0`, `add-0` or `sub-0`"
    )


@pytest.mark.parametrize("text", ["1-1", "0-2-0", "01-1"])
def test_a_rank_twice(text):
    with pytest.raises(UserError) as caught:
        parse(text)
    assert str(caught.value) == f'"{text}" names a rank twice: ranks of a combination are distinct'


@pytest.mark.parametrize("kind", CONTROLS)
def test_a_control_of_no_direction(kind):
    with pytest.raises(UserError) as caught:
        parse(f"{kind}-k0-s1")
    assert str(caught.value) == f'"{kind}-k0-s1": a control needs at least one direction ({kind}-k1-s0)'


class TestExpand:
    @given(st.integers(0, 9))
    def test_every_single_pair_and_triple_once(self, top):
        for size, word in enumerate(("singles", "pairs", "triples"), 1):
            found = expand([word], top)
            assert len(found) == len(set(found)) == comb(top, size)
            assert [parse(one).ranks for one in found] == list(choose(range(top), size))

    def test_by_hand(self):
        assert expand(["singles", "pairs"], 3) == ["0", "1", "2", "0-1", "0-2", "1-2"]

    def test_in_order_each_once(self):
        assert expand(["2-0", "pairs", "7", "0-2"], 3) == ["0-2", "0-1", "1-2", "7"]

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            (
                "single",
                'combinations[1]: "single" is no combination: write ranks joined by "-" (0, 0-2), `none`,'
                " `random-k2-s0`, `shuffled-k2-s0`, `add-0` or `sub-0`, or one of singles, pairs, triples",
            ),
            (
                "1-1",
                'combinations[1]: "1-1" names a rank twice: ranks of a combination are distinct,'
                " or one of singles, pairs, triples",
            ),
            *(
                (
                    one,
                    f'combinations[1]: "{one}" is made by `controls`, `additions` or `subtractions`, and not'
                    " listed here",
                )
                for one in ("none", "add-0", "sub-0")
            ),
        ],
    )
    def test_faults(self, entry, message):
        with pytest.raises(UserError) as caught:
            expand(["0", entry], 3)
        assert str(caught.value) == message


class TestByFolder:
    def test_names_are_read_off_the_folder(self):
        paths = [Path("r/combinations/0-1/basis.safetensors"), Path("r/combinations/none/basis.safetensors")]
        assert by_folder(paths) == {"0-1": paths[0], "none": paths[1]}
        deeper = Path("r/combinations/add-0/completions/harmful.jsonl")
        assert by_folder([deeper], depth=2) == {"add-0": deeper}

    def test_one_twice(self):
        with pytest.raises(UserError) as caught:
            by_folder([Path("a/0-1/x"), Path("b/1-0/x")])
        assert str(caught.value) == "b/1-0/x: combination 0-1 is given twice (a/0-1/x)"

    def test_no_combinations_folder(self):
        with pytest.raises(UserError, match=r'^"elsewhere" is no combination'):
            by_folder([Path("elsewhere/basis.safetensors")])
