"""Headline figures of a summary: without ablation, the best single and the best pair on val; for `dvc metrics`."""

from pathlib import Path

from refusal import cli
from refusal.artifacts import read_table, write_json
from refusal.provenance import spec, stamp, verify


def main(args):
    verify([args.summary])
    columns = ("combination", "kind", "k", "effective_rank", "bypass", f"harmful_{args.judge}_refusal_rate")
    table = read_table(args.summary, columns)

    from refusal.headline import headline

    write_json(args.output, headline(table, args.judge))
    inputs = {"summary": args.summary}
    stamp(args.output, spec("metrics", {"judge": args.judge}, inputs), inputs)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--summary", type=Path, required=True, help="summary.csv")
    made.add_argument("--judge", required=True, help="whose refusal rates are shown")
    made.add_argument("--output", type=Path, required=True, help="metrics.json")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
