"""Bring a model of the hub into HF_HOME: its weights, tokenizer and config, for jobs that have no network."""

from pathlib import Path

from refusal import cli
from refusal.artifacts import write_json


def main(args):
    from refusal.model.fetching import fetch

    files = fetch(args.id, args.revision)
    write_json(args.output, {"id": args.id, "revision": args.revision, "weights": files})
    cli.log.info("%s@%s is in HF_HOME", args.id, args.revision)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--id", required=True, help="name on the hub (HF_TOKEN is read from the environment)")
    made.add_argument("--revision", default="main", help="commit on the hub")
    made.add_argument("--output", type=Path, required=True, help="the note that it is there")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
