"""A chat at the keyboard or in a pipe: lines in, replies out, and what the commands change."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from refusal.artifacts import write_jsonl
from refusal.combinations import BASELINE
from refusal.errors import UserError
from refusal.talk import commands
from refusal.talk.screen import Screen
from refusal.talk.turns import Turn, rows

ENDINGS = {
    "length": "longer than --max-new-tokens",
    "context": "the model's context is full: undo or reset",
    "stopped": "stopped",
}


class Talk(Protocol):
    """`refusal.model.conversation.Conversation`, which this level does not import."""

    turns: list[Turn]

    def ask(self, prompt: str, versions: Sequence[Any], scored: bool) -> Iterator[Turn]:
        """Yield the turn while its replies grow."""

    def stop(self) -> None:
        """End the replies that grow now."""


class Session:
    """What is ablated now, what is shown, and the conversation.

    versions: combination as typed -> the model under it, with its id.
    """

    def __init__(
        self,
        talk: Talk,
        versions: Callable[[str], Any],
        screen: Screen,
        combination: str = BASELINE,
        compares: bool = False,
        scores: bool = False,
    ) -> None:
        self._talk, self._versions, self._screen = talk, versions, screen
        self._version = versions(combination)
        self._compares, self._scores = compares, scores

    @property
    def state(self) -> str:
        """What replies: the combination, with the baseline before it where both do."""
        return f"{BASELINE} | {self._version.id}" if self._both else self._version.id

    def say(self, line: str) -> bool:
        """Do what a line says; False when the chat is to end.

        Raises: UserError, a command that cannot be done, or no room for the message; all else stays as it was.
        """
        said = commands.read(line)
        if isinstance(said, commands.Command):
            if said.name == "exit":
                return False
            getattr(self, f"_{said.name}")(*[said.argument] * bool(said.argument))
        elif said.strip():
            self._ask(said)
        return True

    @property
    def _both(self) -> bool:
        return self._compares and self._version.id != BASELINE

    def _ask(self, message: str) -> None:
        versions = [self._versions(BASELINE)] * self._both + [self._version]
        steps = self._talk.ask(message, versions, self._scores)
        # what is wrong with a message is said before anything is shown
        first = next(steps)
        if first.scores:
            said = "   ".join(f"{name} {score:+.2f}" for name, score in first.scores.items())
            self._screen.note(f"refusal score: {said}")
        labels = [BASELINE] * self._both + [f"{self._version.id}, goes into the history"]
        shown, turn = self._screen.turn(labels), first
        for turn in chain([first] * bool(first.replies), steps):
            shown.grow(turn.replies)
        kept = bool(self._talk.turns) and self._talk.turns[-1] is turn
        shown.end(turn, len(self._talk.turns) + (not kept))
        for reply in turn.replies:
            if reply.ending in ENDINGS:
                self._screen.note(f"({reply.combination}: {ENDINGS[reply.ending]})")
        if not kept:
            self._screen.note("(no answer: neither it nor your message is in the history)")

    def _ablate(self, combination: str) -> None:
        self._version = self._versions(combination)
        self._screen.note(f"replies from now on: {self._version.id}")

    def _none(self) -> None:
        self._ablate(BASELINE)

    def _add(self, rank: str) -> None:
        self._ablate(f"add-{rank}")

    def _compare(self) -> None:
        self._compares = not self._compares
        if not self._compares:
            self._screen.note("the baseline no longer replies beside")
        elif self._both:
            self._screen.note(f"two replies a turn; that of {self._version.id} goes into the history")
        else:
            self._screen.note("two replies a turn, once something is ablated (/ablate)")

    def _score(self) -> None:
        self._scores = not self._scores
        self._screen.note(f"refusal score of each turn: {'shown' if self._scores else 'no longer shown'}")

    def _history(self) -> None:
        for number, turn in enumerate(self._talk.turns, 1):
            scores = "".join(f", refusal score {turn.scores[n]:+.2f}" for n in [turn.kept.combination] if turn.scores)
            self._screen.note(f"{number}. you")
            self._screen.note(turn.prompt, "")
            self._screen.note(f"{number}. {turn.kept.combination}{scores}")
            self._screen.note(turn.kept.response, "")
        if not self._talk.turns:
            self._screen.note("nothing was said yet")

    def _undo(self) -> None:
        if not self._talk.turns:
            raise UserError("/undo: nothing was said yet")
        self._screen.note(f"forgotten: {self._talk.turns.pop().prompt}")

    def _reset(self) -> None:
        self._talk.turns.clear()
        self._screen.note("a new conversation")

    def _save(self, file: str) -> None:
        path = Path(file).expanduser()
        if path.exists():
            raise UserError(f"/save: {path} is there already: name another file")
        said = [row for number, turn in enumerate(self._talk.turns, 1) for row in rows(turn, number)]
        if not said:
            raise UserError("/save: nothing was said yet")
        try:
            write_jsonl(path, said)
        except OSError as error:  # it would end the chat, and with it what was to be saved
            raise UserError(f"/save: {error.filename or path}: {error.strerror}: name another file") from None
        self._screen.note(f"{path}: {len(said)} {'reply' if len(said) == 1 else 'replies'}")

    def _help(self) -> None:
        self._screen.note(commands.explained(), "")
        self._screen.note(
            'a "\\" at the end of a line continues the message; Ctrl-C stops a reply, Ctrl-D ends the chat'
        )


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block, Ctrl-C stops a reply between two tokens.

    An exception could come at any place in a pass, and leave the model with hooks that nobody removes.
    """
    before = signal.signal(signal.SIGINT, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def typed(screen: Screen, state: Callable[[], str]) -> Iterator[str]:
    """Lines as they are typed, after a prompt that says what replies. They are remembered in memory alone."""
    import readline

    readline.set_completer_delims(" ")
    readline.set_completer(_complete)
    readline.parse_and_bind("tab: complete")
    ending = False
    while True:
        try:
            line = _typed(screen, f"{state()} > ")
            while line.endswith("\\"):
                line = f"{line[:-1]}\n{_typed(screen, '... ')}"
        except EOFError:
            screen.note("")
            return
        except KeyboardInterrupt:
            screen.note("" if ending else "\nCtrl-C again, or Ctrl-D, ends the chat")
            if ending:
                return
            ending = True
            continue
        except UnicodeDecodeError as error:
            screen.note(f"{_not_text(error)}: type it again", "red")
            continue
        ending = False
        yield line


def piped() -> Iterator[str]:
    """Lines of standard input that is no terminal; one that ends with a backslash goes on in the next.

    Files of other systems too, with their line ends and a mark at the start that they are UTF-8: neither is said.
    Raises: UserError, not UTF-8.
    """
    sys.stdin.reconfigure(encoding="utf-8-sig", newline=None)
    begun = ""
    try:
        for line in sys.stdin:
            begun += line.removesuffix("\n")
            if begun.endswith("\\"):
                begun = f"{begun[:-1]}\n"
                continue
            yield begun
            begun = ""
    except UnicodeDecodeError as error:
        raise UserError(_not_text(error)) from None
    if begun:
        yield begun


def _typed(screen: Screen, prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    # input() would write the prompt among the replies
    screen.prompt(prompt)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def _not_text(error: UnicodeDecodeError) -> str:
    return f"standard input is not UTF-8 text ({error})"


def _complete(text: str, number: int) -> str | None:
    fitting = [f"/{name} " for name in commands.COMMANDS if text.startswith("/") and f"/{name}".startswith(text)]
    return fitting[number] if number < len(fitting) else None
