"""Talk to a study's model, with any combination of its ranks ablated: streaming, several turns, beside the baseline.

A line is a message or a command (/help). In a pipe, standard output has the replies alone. Nothing leaves this machine.
"""

import os
import sys
from contextlib import nullcontext

from refusal import cli
from refusal.errors import UserError
from refusal.talk import finished
from refusal.talk.screen import Screen
from refusal.talk.session import Session, piped, stopping, typed


def main(args):
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8")  # as models write it, whatever the locale
    study = finished.of_model(args.model) if args.model else finished.of_place(args.model_path)
    combination = study.combination(args.ablate).id
    at_keyboard = sys.stdin.isatty()
    screen = Screen(sys.stdout, sys.stderr, args.json)

    from refusal.model.conversation import Opened

    opened = Opened(study, args.device_map)
    talk = opened.conversation(args.max_new_tokens)
    session = Session(talk, opened.version, screen, combination, args.compare, args.score)
    if at_keyboard:
        screen.note(f"{study.described}; replies of at most {args.max_new_tokens} tokens. /help shows the commands.")
    lines = typed(screen, lambda: session.state) if at_keyboard else piped()
    try:
        for line in lines:
            try:
                # in a pipe Ctrl-C ends all, however many lines are left
                with stopping(talk.stop) if at_keyboard else nullcontext():
                    going = session.say(line)
                if not going:
                    break
            except UserError as error:
                if not at_keyboard:
                    raise  # a script's next lines count on this one
                screen.note(str(error), "red")
    except BrokenPipeError:
        # who reads the replies has enough; what is left of them would fail once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser():
    made = cli.chat_parser(__doc__)
    made.add_argument("--compare", action="store_true", help="show the baseline's replies beside")
    made.add_argument("--score", action="store_true", help="show the refusal score of each turn")
    made.add_argument("--json", action="store_true", help="write replies as JSON, a line each")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
