"""Where a chat is shown: on a terminal as it grows, one reply or two side by side; in a pipe whole replies alone."""

import json
import re
from collections.abc import Sequence
from typing import Protocol, TextIO

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from refusal.talk.turns import Reply, Turn, rows

_NARROWEST, _WIDEST = 80, 200
"""Columns of a terminal from which on two replies stand side by side, and up to which they spread."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_ANEW = Control((ControlType.ERASE_IN_LINE, 2), ControlType.CARRIAGE_RETURN)


class Shown(Protocol):
    """The replies of one turn, while they grow and when they have ended."""

    def grow(self, replies: Sequence[Reply]) -> None:
        """Show what is new."""

    def end(self, turn: Turn, number: int) -> None:
        """Show what is left of a turn with this number."""


class Screen:
    """Replies on `out`, all else on `err`; styles only on a terminal, and no colours where NO_COLOR is set.

    as_json: replies as rows of JSON, also on a terminal.
    """

    def __init__(self, out: TextIO, err: TextIO, as_json: bool = False) -> None:
        self._out, self._err = Console(file=out), Console(file=err)
        self._as_json = as_json

    def note(self, text: str, style: str = "dim") -> None:
        """Say something to the person, not to a script."""
        self._err.out(_harmless(text), style=style, highlight=False)

    def prompt(self, text: str) -> None:
        """Ask for what is typed on the same line."""
        self._err.out(text, end="", highlight=False)

    def turn(self, labels: Sequence[str]) -> Shown:
        """A place for as many replies as there are labels, which stand above them where there are several."""
        if self._as_json:
            return _Rows(self._out)
        if not self._out.is_terminal:
            return _Whole(self, self._out, labels)
        if len(labels) == 2 and self._out.width >= _NARROWEST and not self._out.is_dumb_terminal:
            return _SideBySide(self._out, labels)
        return _OneByOne(self._out, labels)


class _Rows:
    """Replies as JSON when they have ended, a line each."""

    def __init__(self, out: Console) -> None:
        self._out = out

    def grow(self, replies: Sequence[Reply]) -> None:
        pass

    def end(self, turn: Turn, number: int) -> None:
        for row in rows(turn, number):
            self._out.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._out.file.flush()


class _Whole:
    """Answers to the letter when they have ended, a line break behind each."""

    def __init__(self, screen: Screen, out: Console, labels: Sequence[str]) -> None:
        self._screen, self._out, self._labels = screen, out, labels

    def grow(self, replies: Sequence[Reply]) -> None:
        pass

    def end(self, turn: Turn, number: int) -> None:
        for label, reply in zip(self._labels, turn.replies, strict=True):
            if len(turn.replies) > 1:
                self._screen.note(label)
            self._out.file.write(reply.response + "\n")
            self._out.file.flush()


class _OneByOne:
    """As they grow, the second from its start when the first has ended."""

    def __init__(self, out: Console, labels: Sequence[str]) -> None:
        self._out, self._labels = out, labels
        self._place, self._shown = 0, ""

    def grow(self, replies: Sequence[Reply]) -> None:
        while self._place < len(replies):
            reply = replies[self._place]
            if not self._shown and len(self._labels) > 1:
                self._out.out(self._labels[self._place], style="bold", highlight=False)
            self._more(reply)
            if reply.ending is None:
                return
            self._out.out("")
            self._place, self._shown = self._place + 1, ""

    def end(self, turn: Turn, number: int) -> None:
        self.grow(turn.replies)

    def _more(self, reply: Reply) -> None:
        reasoning, whole = _harmless(reply.reasoning or ""), _harmless((reply.reasoning or "") + reply.response)
        if self._shown.startswith(whole):
            return  # nothing new, or out of memory, and the same grows again
        if not whole.startswith(self._shown):
            # a tokenizer that changes what stood before: once more from the start
            self._out.out("")
            self._shown = ""
        start, cut = len(self._shown), max(len(self._shown), len(reasoning))
        self._out.out(whole[start:cut], style="dim", end="", highlight=False)
        self._out.out(whole[cut:], end="", highlight=False)
        self._shown = whole


class _SideBySide:
    """As they grow, in two columns; only the last line is written anew, so what scrolled away stays as it is."""

    def __init__(self, out: Console, labels: Sequence[str]) -> None:
        self._out, self._written = out, 0
        self._width = (min(out.width, _WIDEST) - 4) // 2
        for heads in (
            [Text(label, "bold") for label in labels],
            [Text("─" * self._width, "dim")] * 2,
        ):
            self._write(heads)
            out.out("")

    def grow(self, replies: Sequence[Reply]) -> None:
        columns = [self._lines(reply) for reply in replies]
        most = max(map(len, columns))
        # the last line of a reply may change while it grows
        ready = [most if reply.ending else len(lines) - 1 for reply, lines in zip(replies, columns, strict=True)]
        for number in range(self._written, most):
            self._out.control(_ANEW)
            self._write([lines[number] if number < len(lines) else Text() for lines in columns])
            if number >= min(ready):
                return
            self._out.out("")
            self._written += 1

    def end(self, turn: Turn, number: int) -> None:
        self.grow(turn.replies)

    def _lines(self, reply: Reply) -> list[Text]:
        text = Text.assemble((_harmless(reply.reasoning or ""), "dim"), _harmless(reply.response))
        return list(text.wrap(self._out, self._width, tab_size=4))

    def _write(self, sides: Sequence[Text]) -> None:
        left, right = sides
        gap = Text(" " * (self._width - left.cell_len) + " │ ")
        self._out.print(Text.assemble(left, gap, right), end="", soft_wrap=True, highlight=False)


def _harmless(text: str) -> str:
    """Without control characters, by which a reply could take over the terminal."""
    return _CONTROL.sub("\ufffd", text)
