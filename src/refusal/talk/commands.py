"""What a person may type in a chat beside messages."""

from dataclasses import dataclass
from difflib import get_close_matches

from refusal.errors import UserError

COMMANDS = {
    "ablate": ("COMBINATION", "from now on ablate these ranks (0, 0-2); also random-k1-s0, add-0 and all other ids"),
    "none": ("", "from now on ablate nothing"),
    "add": ("RANK", "from now on add the direction of this rank: induces refusal"),
    "compare": ("", "show the baseline's reply beside, or no longer; it does not go into the history"),
    "score": ("", "show the refusal score of each turn, or no longer"),
    "history": ("", "show the conversation so far"),
    "undo": ("", "forget the last turn"),
    "reset": ("", "start anew; combination, /compare and /score stay"),
    "save": ("FILE", "write the conversation so far, a reply a line (JSONL)"),
    "help": ("", "show these lines"),
    "exit": ("", "end the chat; so does Ctrl-D"),
}
"""Name -> its argument, if it takes one, and what it does."""


@dataclass(frozen=True)
class Command:
    """A command of COMMANDS and its argument, empty where it takes none."""

    name: str
    argument: str


def read(line: str) -> Command | str:
    """What a line says: a command, or the message that it is ("//" starts a message with a slash).

    Raises: UserError, no such command, an argument that is missing or too much.
    """
    if not line.startswith("/") or line.startswith("//"):
        return line.removeprefix("/") if line.startswith("//") else line
    name, _, argument = line[1:].strip().partition(" ")
    argument = argument.strip()
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, 1)
        meant = f"did you mean /{close[0]}?" if close else f"there are {', '.join(f'/{one}' for one in COMMANDS)}"
        raise UserError(f"/{name}: no such command: {meant} (// starts a message with a slash)")
    takes = COMMANDS[name][0]
    if takes and not argument:
        raise UserError(f"/{name}: needs an argument: /{name} {takes}")
    if argument and not takes:
        raise UserError(f"/{name}: takes no argument")
    return Command(name, argument)


def explained() -> str:
    """A line for each command."""
    heads = {name: f"/{name} {takes}".strip() for name, (takes, _) in COMMANDS.items()}
    width = max(map(len, heads.values()))
    return "\n".join(f"{heads[name]:<{width}}  {does}" for name, (_, does) in COMMANDS.items())
