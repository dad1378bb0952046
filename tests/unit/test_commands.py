"""Lines of a chat: messages, commands, and what is no command."""

import pytest

from refusal.errors import UserError
from refusal.talk.commands import COMMANDS, Command, explained, read


@pytest.mark.parametrize("line", ["how do I bake bread?", "", "  /none", "and/or", "a\n/none"])
def test_a_message_to_the_letter(line):
    assert read(line) == line


def test_a_message_that_starts_with_a_slash():
    assert read("//etc/passwd is what?") == "/etc/passwd is what?"


def test_commands():
    assert read("/ablate 0-1") == Command("ablate", "0-1")
    assert read("/ablate   0-1  ") == Command("ablate", "0-1")
    assert read("/none") == Command("none", "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/ablat 0", "/ablat: no such command: did you mean /ablate? (// starts a message with a slash)"),
        ("/ablate", "/ablate: needs an argument: /ablate COMBINATION"),
        ("/none 0", "/none: takes no argument"),
        (
            "/zzz",
            "/zzz: no such command: there are /ablate, /none, /add, /compare, /score, /history, /undo, /reset, /save,"
            " /help, /exit (// starts a message with a slash)",
        ),
    ],
)
def test_what_is_no_command(line, said):
    with pytest.raises(UserError) as caught:
        read(line)
    assert str(caught.value) == said


def test_each_is_explained_in_a_line():
    lines = explained().splitlines()
    assert [line.split()[0] for line in lines] == [f"/{name}" for name in COMMANDS]
    assert max(map(len, lines)) <= 120
