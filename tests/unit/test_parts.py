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


@pytest.mark.parametrize("text", ["", "1", "2/2", "a/b", "1/0"])
def test_what_is_no_part(text, capsys):
    made = argparse.ArgumentParser()
    parts.flags(made)
    with pytest.raises(SystemExit):
        made.parse_args(["--part", text])
    assert f"'{text}' is no part: I/N with I from 0, such as 0/4" in capsys.readouterr().err


def test_a_marker_says_what_is_in_the_cache(tmp_path):
    made = argparse.ArgumentParser()
    parts.flags(made)
    args = made.parse_args(["--part", "1/3", "--marker", str(tmp_path / "one.json")])
    parts.mark(args.marker, args.part, ["key"])
    assert read_json(tmp_path / "one.json") == {"part": "1/3", "items": ["key"]}
