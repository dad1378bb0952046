"""Sample test prompts by seed; the model has no say in which."""

from pathlib import Path

from refusal import cli
from refusal.artifacts import write_jsonl
from refusal.prompts import read_prompts, sample
from refusal.provenance import spec, stamp


def main(args):
    write_jsonl(args.output, sample(read_prompts(args.prompts), args.count, args.seed, str(args.prompts)))
    inputs = {"prompts": args.prompts}
    stamp(args.output, spec("test_prompts", {"count": args.count, "seed": args.seed}, inputs), inputs)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--prompts", type=Path, required=True, help="prompt file (.jsonl or .json)")
    made.add_argument("--count", type=int, default=100)
    made.add_argument("--seed", type=int, default=42)
    made.add_argument("--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
