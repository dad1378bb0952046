"""What a chat shows: whole replies in a pipe; on a terminal as they grow, side by side where it is wide enough."""

import io
import json
import re

import pytest

from refusal.talk.screen import Screen
from refusal.talk.turns import Reply, Turn

ONE = ["0, goes into the history"]
TWO = ["none", *ONE]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 84 columns."""
    for name, value in {"TERM": "xterm", "COLUMNS": "84"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def reply(response, reasoning=None, ending=None, combination="0"):
    return Reply(combination, reasoning, response, (), None, ending)


def shown(screen, labels, *steps):
    """Show steps, each a list of replies; the last has ended."""
    place = screen.turn(labels)
    for replies in steps:
        place.grow(replies)
    place.end(Turn("hi", {"0": 1.5}, tuple(steps[-1])), 3)


def visible(text):
    """What a terminal shows, styles aside: a line that is erased goes."""
    lines = [re.split("\x1b\\[2K\r", line)[-1] for line in text.split("\n")]
    return [re.sub("\x1b\\[[0-9;]*m", "", line).rstrip() for line in lines]


def test_a_pipe_gets_the_answer_to_the_letter_and_nothing_else():
    out, err = io.StringIO(), io.StringIO()
    shown(
        Screen(out, err), ONE, [reply("On")], [reply("One [b]two[/b]\x1b[1m :smile: " + "x" * 200, "<think>", "stop")]
    )
    assert out.getvalue() == "One [b]two[/b]\x1b[1m :smile: " + "x" * 200 + "\n"
    shown(Screen(out, err), TWO, [reply("A", ending="stop"), reply("B", ending="length")])
    assert out.getvalue().endswith("\nA\nB\n")
    assert err.getvalue() == "none\n0, goes into the history\n"


def test_json():
    out = io.StringIO()
    shown(Screen(out, io.StringIO(), as_json=True), ONE, [reply("Ü\n2", "r", "stop")])
    (line,) = out.getvalue().splitlines()
    assert json.loads(line) == {
        "turn": 3, "combination": "0", "in_history": True, "prompt": "hi", "reasoning": "r", "response": "Ü\n2",
        "n_tokens": 0, "finish_reason": "stop", "stop_token": None, "token_ids": [], "refusal_score": 1.5,
    }  # fmt: skip


def test_one_reply_as_it_grows(terminal):
    screen = Screen(terminal, io.StringIO())
    place, seen = screen.turn(ONE), []
    for step in ([reply("", "<think>a")], [reply("", "<think>ab</think>")], [reply("Yes", "<think>ab</think>\n")]):
        place.grow(step)
        seen.append(visible(terminal.getvalue()))
    assert seen == [["<think>a"], ["<think>ab</think>"], ["<think>ab</think>", "Yes"]]
    assert "\x1b[2m<think>a\x1b[0m" in terminal.getvalue()
    assert terminal.getvalue().endswith("Yes")
    last = reply("Yes.", "<think>ab</think>\n", "stop")
    place.end(Turn("hi", {}, (last,)), 1)
    assert visible(terminal.getvalue()) == ["<think>ab</think>", "Yes.", ""]


def test_a_reply_that_starts_over_is_not_shown_twice(terminal):
    steps = [[reply("One tw")], [reply("")], [reply("One")], [reply("One two", ending="stop")]]
    shown(Screen(terminal, io.StringIO()), ONE, *steps)
    assert visible(terminal.getvalue()) == ["One two", ""]


def test_a_tokenizer_that_takes_back_what_it_said(terminal):
    shown(Screen(terminal, io.StringIO()), ONE, [reply("do n")], [reply("don't", ending="stop")])
    assert visible(terminal.getvalue()) == ["do n", "don't", ""]


def test_control_characters_do_not_reach_a_terminal(terminal):
    screen = Screen(terminal, terminal)
    shown(screen, ONE, [reply("a\x1b]0;title\x07\r\x9bb", ending="stop")])
    screen.note("\x1b[2J", "")
    assert visible(terminal.getvalue()) == ["a\ufffd]0;title\ufffd\ufffd\ufffdb", "\ufffd[2J", ""]


def test_side_by_side(terminal):
    """Lines of 40 columns; the second column is ahead of the first, and then behind."""
    screen, words = Screen(terminal, io.StringIO()), "one two three four five six seven eight nine ten eleven"
    steps = [[reply(words[: 2 * n]), reply("世界" * n)] for n in range(30)]
    last = [reply(words, ending="stop"), reply("世界" * 30, ending="stop")]
    shown(screen, TWO, *steps, last)
    assert visible(terminal.getvalue()) == [
        f"{'none':40} │ 0, goes into the history",
        f"{'─' * 40} │ {'─' * 40}",
        f"{'one two three four five six seven eight':40} │ {'世界' * 10}",
        f"{'nine ten eleven':40} │ {'世界' * 10}",
        f"{'':40} │ {'世界' * 10}",
        "",
    ]


@pytest.mark.parametrize("name", ["narrow", "dumb"])
def test_one_after_the_other_where_two_columns_do_not_fit(terminal, monkeypatch, name):
    monkeypatch.setenv(*{"narrow": ("COLUMNS", "79"), "dumb": ("TERM", "dumb")}[name])
    steps = [
        [reply("A"), reply("B")],
        [reply("Aa", ending="stop"), reply("Bb")],
        [reply("Aa", ending="stop"), reply("Bbb", ending="stop")],
    ]
    screen = Screen(terminal, io.StringIO())
    shown(screen, TWO, *steps)
    assert visible(terminal.getvalue()) == ["none", "Aa", "0, goes into the history", "Bbb", ""]


def test_no_colour_where_it_is_not_wanted(terminal, monkeypatch):
    Screen(io.StringIO(), terminal).note("wrong", "red")
    assert terminal.getvalue() == "\x1b[31mwrong\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    plain, piped = Terminal(), io.StringIO()
    Screen(io.StringIO(), plain).note("wrong", "red")
    Screen(io.StringIO(), piped).note("wrong", "red")
    assert (plain.getvalue(), piped.getvalue()) == ("wrong\n", "wrong\n")
