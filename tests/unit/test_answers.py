"""Answers of models that judge: kept as they come, whole or not at all, apart by what was asked."""

import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.answers import keeping, kept, key_of
from refusal.cache import ANSWERS, prune
from refusal.judges.base import Answer, Item

ASKED = {"kind": "rubric", "model": "m"}
ITEM = Item("instruction", "response")


def test_what_was_kept_is_found_by_what_was_asked(tmp_path):
    with keeping(tmp_path, ASKED) as keep:
        keep(ITEM, Answer("yes"))
        assert kept(tmp_path, ASKED) == {ITEM: Answer("yes")}  # at once, before the block ends
        keep(Item("other", "response"), Answer("", "HTTP 400"))
    assert kept(tmp_path, ASKED) == {ITEM: Answer("yes"), Item("other", "response"): Answer("", "HTTP 400")}
    assert kept(tmp_path, ASKED | {"model": "n"}) == {}
    folder = tmp_path / ANSWERS / key_of(ASKED)
    assert json.loads((folder / "asked.json").read_text()) == ASKED


def test_two_writers_at_once(tmp_path):
    with keeping(tmp_path, ASKED) as one, keeping(tmp_path, ASKED) as other:
        one(ITEM, Answer("yes"))
        other(Item("b", "b"), Answer("no"))
    assert len(kept(tmp_path, ASKED)) == 2


def test_nothing_kept_leaves_no_file(tmp_path):
    with keeping(tmp_path, ASKED):
        pass
    assert not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_a_killed_process_left_is_no_answer(tmp_path, caplog, cut):
    with keeping(tmp_path, ASKED) as keep:
        keep(ITEM, Answer("yes"))
        keep(Item("b", "b"), Answer("no"))
    (path,) = tmp_path.rglob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-cut])
    assert kept(tmp_path, ASKED) == (
        {ITEM: Answer("yes")} if cut > 1 else {ITEM: Answer("yes"), Item("b", "b"): Answer("no")}
    )
    said = [f"{path}: line 2: an unfinished answer, asked for again"] if cut > 1 else []
    assert caplog.messages == said


def test_answers_are_never_pruned(tmp_path):
    with keeping(tmp_path / "cache", ASKED) as keep:
        keep(ITEM, Answer("yes"))
    (tmp_path / "cache" / "scores" / "unused").mkdir(parents=True)
    assert prune(tmp_path / "cache", tmp_path) == 1
    assert kept(tmp_path / "cache", ASKED) == {ITEM: Answer("yes")}


@given(st.text(), st.text(), st.text())
def test_any_text(tmp_path_factory, instruction, response, raw):
    root = tmp_path_factory.mktemp("answers")
    with keeping(root, ASKED) as keep:
        keep(Item(instruction, response), Answer(raw))
    assert kept(root, ASKED) == {Item(instruction, response): Answer(raw)}


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(_file):
        raise OSError(errno.ENOSPC, "full")

    with keeping(tmp_path, ASKED) as keep:
        keep(ITEM, Answer("yes"))
        (path,) = tmp_path.rglob("*.jsonl")
        monkeypatch.setattr("refusal.answers.json.dumps", full)
        with pytest.raises(OSError, match="full") as caught:
            keep(Item("b", "b"), Answer("no"))
    assert caught.value.filename == str(path)
