"""Sample test prompts by seed; the model has no say in which.

With --sampling published they are those of the published scripts: harmless ones the next draw of the random stream that
train and val were drawn from (--drawn-before), others the whole file as it is.
"""

from pathlib import Path

from refusal import cli
from refusal.artifacts import write_jsonl
from refusal.errors import UserError
from refusal.prompts import read_prompts, sample, sample_in_turn
from refusal.provenance import spec, stamp


def main(args):
    prompts, before = read_prompts(args.prompts), [_file_and_count(one) for one in args.drawn_before]
    parameters, by_seed = {"sampling": args.sampling}, {"count": args.count, "seed": args.seed}
    inputs = {"prompts": args.prompts} | {f"drawn before {number}": file for number, (file, _) in enumerate(before)}
    if args.sampling == "apart":
        if before:
            raise UserError("--drawn-before goes with --sampling published: leave it out")
        parameters |= by_seed
        drawn = sample(prompts, args.count, args.seed, str(args.prompts))
    elif before:
        sets = [(read_prompts(file), count, str(file)) for file, count in before]
        drawn = sample_in_turn([*sets, (prompts, args.count, str(args.prompts))], args.seed)[-1]
        parameters |= by_seed | {"drawn_before": [count for _, count in before]}
    else:
        drawn = prompts
    write_jsonl(args.output, drawn)
    stamp(args.output, spec("test_prompts", parameters, inputs), inputs)


def _file_and_count(text):
    file, _, count = text.rpartition(":")
    if not file or not count.isdecimal():
        raise UserError(f"--drawn-before {text}: give FILE:COUNT, such as harmful_train.json:128")
    return Path(file), int(count)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--prompts", type=Path, required=True, help="prompt file (.jsonl or .json)")
    made.add_argument("--count", type=int, default=100)
    made.add_argument("--seed", type=int, default=42)
    made.add_argument("--sampling", choices=["apart", "published"], default="apart")
    made.add_argument(
        "--drawn-before", nargs="+", default=[], metavar="FILE:COUNT", help="in turn, where the sampling is published"
    )
    made.add_argument("--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
