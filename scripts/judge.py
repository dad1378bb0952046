"""Check a judge before any other work: its settings, and what it needs to be asked (a key, a model that can be had)."""

from pathlib import Path

from refusal import cli
from refusal.artifacts import write_json
from refusal.checking import read_judge
from refusal.judges.kinds import load_judge


def main(args):
    judge = load_judge(read_judge(args.judge))
    if judge.check is not None:
        judge.check()
    write_json(args.output, {"judge": args.judge.stem, "kind": judge.name, "needs": judge.needs})


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--judge", type=Path, required=True, help="config/judges/NAME.yaml")
    made.add_argument("--output", type=Path, required=True, help="judges/NAME.json")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
