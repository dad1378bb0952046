"""A chat's commands and lines, with a conversation that stands in for the model's."""

import io
import json
import signal
from dataclasses import dataclass

import pytest

from refusal.artifacts import read_jsonl
from refusal.combinations import parse
from refusal.errors import UserError
from refusal.talk.screen import Screen
from refusal.talk.session import Session, piped, stopping
from refusal.talk.turns import Reply, Turn


@dataclass
class Version:
    id: str


class Parrot:
    """Says the message back, a letter a step, under each combination; says nothing to "hush"."""

    def __init__(self):
        self.turns, self.stopped, self.asked = [], False, []

    def stop(self):
        self.stopped = True

    def ask(self, prompt, versions, scored):
        self.stopped = False
        self.asked.append((prompt, [one.id for one in versions], len(self.turns)))
        if prompt == "too long":
            raise UserError("no room")
        scores = {one.id: 1.5 - number for number, one in enumerate(versions)} if scored else {}
        if scored:
            yield Turn(prompt, scores, ())
        text = "" if prompt == "hush" else prompt
        for count in range(len(text) + 1):
            ending = "stop" if count == len(text) else "stopped" if self.stopped else None
            replies = tuple(Reply(one.id, None, text[:count], (), None, ending) for one in versions)
            turn = Turn(prompt, scores, replies)
            if ending:
                break
            yield turn
            if prompt == "interrupt" and count == 4:
                signal.raise_signal(signal.SIGINT)
        if turn.kept.response:
            self.turns.append(turn)
        yield turn


def versions(text):
    combination = parse(text)
    if combination.ranks and max(combination.ranks) > 2:
        raise UserError(f'"{combination.id}": no such rank')
    return Version(combination.id)


class Chat:
    """A session in a pipe; what it says on either stream."""

    def __init__(self, **options):
        self.out, self.err, self.talk = io.StringIO(), io.StringIO(), Parrot()
        self.session = Session(self.talk, versions, Screen(self.out, self.err), **options)

    def say(self, *lines):
        """What was shown on both streams, by line."""
        for stream in (self.out, self.err):
            stream.seek(0)
            stream.truncate()
        for line in lines:
            assert self.session.say(line)
        return self.out.getvalue().splitlines(), self.err.getvalue().splitlines()


def test_switching_within_a_conversation():
    chat = Chat(combination="2-0")
    assert chat.say("one", "", "  ", "/ablate 1", "two", "/none", "three", "/add 2", "four") == (
        ["one", "two", "three", "four"],
        [f"replies from now on: {name}" for name in ("1", "none", "add-2")],
    )
    assert chat.talk.asked == [("one", ["0-2"], 0), ("two", ["1"], 1), ("three", ["none"], 2), ("four", ["add-2"], 3)]


def test_compare_and_score():
    chat = Chat(compares=True)
    assert chat.session.state == "none"
    assert chat.say("one", "/ablate 0")[1] == ["replies from now on: 0"]
    assert chat.session.state == "none | 0"
    assert chat.say("/score", "two") == (
        ["two", "two"],
        [
            "refusal score of each turn: shown",
            "refusal score: none +1.50   0 +0.50",
            "none",
            "0, goes into the history",
        ],
    )
    assert chat.say("/history")[1][-2:] == ["2. 0, refusal score +0.50", "two"]
    assert chat.say("/compare", "/score", "three") == (
        ["three"],
        ["the baseline no longer replies beside", "refusal score of each turn: no longer shown"],
    )
    assert [asked[1] for asked in chat.talk.asked] == [["none"], ["none", "0"], ["0"]]
    assert chat.say("/compare")[1] == ["two replies a turn; that of 0 goes into the history"]
    assert chat.say("/none", "/compare", "/compare")[1][1:] == [
        "the baseline no longer replies beside",
        "two replies a turn, once something is ablated (/ablate)",
    ]


def test_history_undo_reset():
    chat = Chat(scores=True)
    assert chat.say("/history")[1] == ["nothing was said yet"]
    chat.say("one", "two")
    told = ["1. you", "one", "1. none, refusal score +1.50", "one"]
    assert chat.say("/history") == (
        [],
        [*told, "2. you", "two", "2. none, refusal score +1.50", "two"],
    )
    assert chat.say("/undo", "/history")[1] == ["forgotten: two", *told]
    assert chat.say("/reset", "/history")[1] == ["a new conversation", "nothing was said yet"]
    with pytest.raises(UserError, match=r"^/undo: nothing was said yet$"):
        chat.say("/undo")


def test_save(tmp_path):
    chat = Chat(combination="0", compares=True)
    chat.say("one", "two")
    assert chat.say(f"/save {tmp_path}/a b.jsonl")[1] == [f"{tmp_path}/a b.jsonl: 4 replies"]
    saved = read_jsonl(tmp_path / "a b.jsonl")
    assert [(row["turn"], row["combination"], row["in_history"], row["response"]) for row in saved] == [
        (1, "none", False, "one"), (1, "0", True, "one"), (2, "none", False, "two"), (2, "0", True, "two"),
    ]  # fmt: skip
    chat.say("/compare", "/reset", "one")
    assert chat.say(f"/save {tmp_path}/one.jsonl")[1] == [f"{tmp_path}/one.jsonl: 1 reply"]
    for file, said in {
        "a b.jsonl": f"{tmp_path}/a b.jsonl is there already",
        # a folder that cannot be made ends no chat
        "one.jsonl/in": f"{tmp_path}/one.jsonl: File exists",
    }.items():
        with pytest.raises(UserError) as caught:
            chat.say(f"/save {tmp_path / file}")
        assert str(caught.value) == f"/save: {said}: name another file"
    chat.say("/reset")
    with pytest.raises(UserError, match=r"^/save: nothing was said yet$"):
        chat.say(f"/save {tmp_path}/none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_what_is_wrong_changes_nothing():
    chat = Chat(combination="0")
    chat.say("one")
    for line in ("/ablate 0-7", "/ablate first", "/add x", "too long", "/what"):
        with pytest.raises(UserError):
            chat.say(line)
        assert (chat.out.getvalue(), chat.session.state, len(chat.talk.turns)) == ("", "0", 1)


def test_an_empty_answer_leaves_nothing():
    chat = Chat()
    assert chat.say("hush") == ([""], ["(no answer: neither it nor your message is in the history)"])
    assert chat.talk.turns == []


def test_turns_are_numbered_as_they_stand_in_the_history():
    out, talk = io.StringIO(), Parrot()
    session = Session(talk, versions, Screen(out, io.StringIO(), as_json=True))
    for line in ("one", "hush", "two"):
        session.say(line)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(row["turn"], row["response"]) for row in rows] == [(1, "one"), (2, ""), (2, "two")]


def test_ctrl_c_stops_a_reply_and_what_was_said_stays():
    chat = Chat()
    before = signal.getsignal(signal.SIGINT)
    with stopping(chat.talk.stop):
        assert chat.say("interrupt", "/history") == (
            ["inter"],
            ["(none: stopped)", "1. you", "interrupt", "1. none", "inter"],
        )
    assert signal.getsignal(signal.SIGINT) is before
    assert chat.say("more")[0] == ["more"]


def test_help_and_exit():
    chat = Chat()
    assert chat.say("/help")[1][0] == (
        "/ablate COMBINATION  from now on ablate these ranks (0, 0-2); also random-k1-s0, add-0 and all other ids"
    )
    assert not chat.session.say("/exit")


def test_lines_of_a_pipe(monkeypatch):
    def lines(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        return list(piped())

    assert lines("one\ntwo\\\nthree\\\nfour\n\nfünf".encode()) == ["one", "two\nthree\nfour", "", "fünf"]
    assert lines(b"one\\") == ["one\n"]
    assert lines(b"\xef\xbb\xbfone\\\r\ntwo\r\n/none\r\n") == ["one\ntwo", "/none"]
    with pytest.raises(UserError, match=r"^standard input is not UTF-8 text \('utf-8' codec can't decode byte 0xff"):
        lines(b"\xff\n")
