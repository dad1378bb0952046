"""Prompts are read with their faults named, drawn by seed, kept apart, and filtered by what the model does."""

import json
import random

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from refusal.errors import UserError
from refusal.prompts import IN_TURN, keep_by_score, read_prompts, sample, sample_in_turn, unlike, without


def prompts(*instructions):
    return [{"id": f"p-{number}", "category": None, "instruction": text} for number, text in enumerate(instructions)]


def written(path, rows):
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text)
    return path


def test_the_projects_borderline_prompts():
    """Enough for the published number of test prompts, each asked once, in ten categories."""
    found = read_prompts(ROOT / "data/borderline_test.jsonl")
    assert len(found) >= 100
    assert len({prompt["instruction"].casefold() for prompt in found}) == len(found)
    assert len({prompt["category"] for prompt in found}) == 10


class TestRead:
    @pytest.mark.parametrize("name", ["harmful_train.jsonl", "harmful_train.json"])
    def test_both_formats(self, tmp_path, name):
        rows = [{"instruction": "a", "category": "x"}, {"instruction": "b", "id": 7, "other": 1}]
        assert read_prompts(written(tmp_path / name, rows)) == [
            {"id": "harmful_train-1", "category": "x", "instruction": "a"},
            {"id": "7", "category": None, "instruction": "b"},
        ]

    @pytest.mark.parametrize(
        ("rows", "fault"),
        [
            ([{"instruction": "a"}, {"text": "b"}], " 2 has no `instruction`: every prompt needs one"),
            ([{"instruction": " \n"}], " 1: `instruction` is empty or no text: mend or remove it"),
            ([{"instruction": 5}], " 1: `instruction` is empty or no text: mend or remove it"),
            (
                [{"instruction": "a", "id": "x"}, {"instruction": "b", "id": "x"}],
                " 2: id x is used twice: ids tell prompts apart",
            ),
        ],
    )
    def test_faults_name_the_row(self, tmp_path, rows, fault):
        for name, word in {"p.jsonl": "line", "p.json": "entry"}.items():
            path = written(tmp_path / name, rows)
            with pytest.raises(UserError) as caught:
                read_prompts(path)
            assert str(caught.value) == f"{path}: {word}{fault}"

    @pytest.mark.parametrize(
        ("name", "content"), [("p.jsonl", ""), ("p.json", "[]"), ("p.json", '{"instruction": "a"}')]
    )
    def test_none(self, tmp_path, name, content):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError) as caught:
            read_prompts(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: holds no prompts: it needs objects with an `instruction`"

    def test_entries_that_are_no_objects(self, tmp_path):
        with pytest.raises(UserError, match=r"p\.json: entry 1 has no `instruction`: every prompt needs one$"):
            read_prompts(written(tmp_path / "p.json", ["a"]))


class TestSample:
    @given(st.integers(0, 30), st.integers(0, 100), st.data())
    def test_distinct_and_the_same_for_the_same_seed(self, size, seed, data):
        pool = prompts(*map(str, range(size)))
        count = data.draw(st.integers(0, size))
        found = sample(pool, count, seed, "file")
        assert len({one["id"] for one in found}) == count
        assert all(one in pool for one in found)
        assert found == sample(tuple(pool), count, seed, "file")

    def test_another_seed_draws_others(self):
        pool = prompts(*map(str, range(100)))
        assert sample(pool, 10, 0, "file") != sample(pool, 10, 1, "file")

    def test_too_few(self):
        with pytest.raises(UserError) as caught:
            sample(prompts("a", "b"), 3, 0, "train.json")
        assert str(caught.value) == (
            "train.json: 3 prompts are asked for and it has 2: lower prompts.counts or add prompts"
        )


class TestSampleInTurn:
    @given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=5), st.integers(0, 100))
    def test_as_one_seeded_stream_draws(self, sizes, seed):
        """The published scripts seed Python's own generator once, then draw set after set from it."""
        pools = [(prompts(*map(str, range(max(sizes_)))), min(sizes_), "file") for sizes_ in sizes]
        random.seed(seed)
        expected = [random.sample(pool, count) for pool, count, _ in pools]
        assert sample_in_turn(pools, seed) == expected
        assert sample_in_turn(pools[:2], seed) == expected[:2]

    def test_the_first_is_the_draw_of_that_file_alone(self):
        pool = prompts(*map(str, range(20)))
        first, second = sample_in_turn([(pool, 5, "a"), (pool, 5, "b")], 42)
        assert first == sample(pool, 5, 42, "a")
        assert second != first

    def test_the_published_order(self):
        assert IN_TURN == ("harmful_train", "harmless_train", "harmful_val", "harmless_val")

    def test_too_few(self):
        with pytest.raises(UserError, match=r"^val\.json: 3 prompts are asked for and it has 2: lower prompts\.counts"):
            sample_in_turn([(prompts("a"), 1, "train.json"), (prompts("a", "b"), 3, "val.json")], 0)


class TestWithout:
    def test_case_and_spaces_aside(self):
        found = without(prompts("Pick a  lock", "Bake bread"), prompts("pick\na lock ", "other"))
        assert [one["instruction"] for one in found] == ["Bake bread"]

    @given(st.lists(st.text(max_size=3), max_size=8), st.lists(st.text(max_size=3), max_size=8))
    def test_nothing_is_in_both_and_nothing_else_is_lost(self, mine, others):
        pool, taken = prompts(*mine), prompts(*others)
        kept = without(pool, taken)
        assert without(kept, taken) == kept
        assert not without(taken, taken)
        assert {one["instruction"] for one in pool} - {one["instruction"] for one in kept} <= {
            one
            for one in mine
            if any(" ".join(one.casefold().split()) == " ".join(o.casefold().split()) for o in others)
        }


class TestUnlike:
    @pytest.mark.parametrize(
        ("other", "share"),
        [("b A", 1), ("a b c", 2 / 3), ("a c", 1 / 3), ("c d", 0), ("a b c d e f", 1 / 3)],
    )
    def test_the_share_of_common_words(self, other, share):
        for most in (0.2, 0.33, 0.34, 0.5, 0.66, 0.67, 1):
            assert bool(unlike(prompts("A, b?"), prompts("x y z", other), most)) == (share < most)

    @given(st.lists(st.text("ab ", max_size=5), max_size=6), st.lists(st.text("ab ", max_size=5), max_size=6))
    def test_one_is_stricter_than_no_more_than_the_same_text(self, pool, others):
        pool, others = prompts(*pool), prompts(*others)
        kept = unlike(pool, others, 1)
        assert unlike(unlike(pool, others, 0.5), others, 0.5) == unlike(kept, others, 0.5)
        assert without(kept, others) == kept
        assert unlike(pool, [], 0.5) == pool


class TestKeepByScore:
    def test_harmful_above_and_harmless_below_zero(self):
        pool = prompts("a", "b", "c")
        assert keep_by_score(pool, [1.0, 0.0, -1.0], "harmful", "x") == pool[:1]
        assert keep_by_score(pool, [1.0, 0.0, -1.0], "harmless", "x") == pool[2:]

    @pytest.mark.parametrize(
        ("kind", "does", "mean"), [("harmful", "refuses none of", -1.5), ("harmless", "refuses all of", 1.5)]
    )
    def test_none_left(self, kind, does, mean):
        with pytest.raises(UserError) as caught:
            keep_by_score(prompts("a", "b"), [mean - 0.5, mean + 0.5], kind, f"{kind}_train")
        assert str(caught.value) == (
            f"{kind}_train: the model {does} the 2 {kind} prompts (refusal score, mean {mean:.2f} nats):"
            " check refusal_tokens, or set prompts.filter_by_refusal_score: false"
        )

    def test_a_score_for_each(self):
        with pytest.raises(ValueError, match="zip"):
            keep_by_score(prompts("a", "b"), [1.0], "harmful", "x")
