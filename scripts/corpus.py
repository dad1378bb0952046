"""The first rows of a corpus for CE loss, from a local file or streamed from the hub, into one JSONL."""

from pathlib import Path

from refusal import cli
from refusal.artifacts import write_jsonl
from refusal.corpora import read_hub, read_local
from refusal.errors import UserError
from refusal.provenance import spec, stamp


def main(args):
    if (args.path is None) == (args.hub is None):
        raise UserError("give --path or --hub, one of them")
    if args.path:
        rows, inputs = read_local(args.path, args.format, args.rows), {"corpus": args.path}
    else:
        rows, inputs = read_hub(args.hub, args.config, args.split, args.revision, args.format, args.rows), {}
    write_jsonl(args.output, rows)
    chosen = {key: getattr(args, key) for key in ("hub", "config", "split", "revision", "format", "rows")}
    stamp(args.output, spec("corpus", chosen, inputs), inputs)
    cli.log.info("%d rows", len(rows))


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--path", type=Path, help="local .jsonl or .txt")
    made.add_argument("--hub", help="data set on the hub")
    made.add_argument("--config", help="its configuration")
    made.add_argument("--split", default="train")
    made.add_argument("--revision", help="its commit")
    made.add_argument("--format", choices=["text", "chat"], required=True)
    made.add_argument("--rows", type=int, required=True, help="rows taken, from the first")
    made.add_argument("--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
