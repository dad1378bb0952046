"""Parts of a stage: disjoint, together all, and named so that a mistake is said."""

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal import parts
from refusal.artifacts import read_json


@given(st.lists(st.integers()), st.integers(1, 9))
def test_parts_are_disjoint_and_together_all(items, count):
    shares = [parts.share(items, (number, count)) for number in range(count)]
    assert sorted(item for share in shares for item in share) == sorted(items)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert parts.share(items, parts.WHOLE) == items


def parsed(*flags):
    made = argparse.ArgumentParser()
    parts.flags(made).add_argument("--outputs", nargs="+")
    return made.parse_args(list(flags))


@pytest.mark.parametrize("text", ["", "1", "2/2", "a/b", "1/0"])
def test_what_is_no_part(text, capsys):
    with pytest.raises(SystemExit):
        parsed("--part", text, "one.json")
    assert f"'{text}' is no part: I/N with I from 0, such as 0/4" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--part", "0/2", "one.json", "--outputs", "a"]])
def test_either_a_part_or_the_outputs(flags, capsys):
    with pytest.raises(SystemExit):
        parsed(*flags)
    assert "--part" in capsys.readouterr().err


def test_without_a_part_one_job_does_it_all():
    args = parsed("--outputs", "a", "b")
    assert (args.part, args.marker, args.outputs) == (parts.WHOLE, None, ["a", "b"])


def test_a_marker_says_what_is_in_the_cache(tmp_path):
    args = parsed("--part", "1/3", str(tmp_path / "one.json"))
    parts.mark(args.marker, args.part, ["key"])
    assert read_json(tmp_path / "one.json") == {"part": "1/3", "items": ["key"]}
