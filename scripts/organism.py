"""Train a planted model organism: a tiny chat model that refuses through known directions."""

import sys
from argparse import Namespace
from pathlib import Path

from refusal import cli

# This file's folder stands first on the path, and the file would hide the package of the same name.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

from organism import spec  # noqa: E402

KEYS = ("directions", "seed", "pretrain_steps", "plant_steps", "batch_rows")


def main(args: Namespace) -> None:
    values = spec.read(args.spec) if args.spec else {}
    flags = {key: getattr(args, key) for key in (*KEYS, "layers", "margins")}
    values |= {key: value for key, value in flags.items() if value is not None}
    checked = spec.check(values, str(args.spec or "flags"))

    from organism import build

    build.build(checked, args.data, args.output_dir, args.threads)


def parser():
    made = cli.parser(__doc__)
    made.add_argument(
        "--spec", type=Path, help="YAML or JSON with the organism's keys, such as config/models/tiny.yaml"
    )
    for key in KEYS:
        made.add_argument(f"--{key.replace('_', '-')}", type=int, help="instead of the spec's")
    made.add_argument("--layers", type=int, nargs="+", help="first layer of each plant, instead of the spec's")
    made.add_argument("--margins", type=float, nargs="+", help="length of each plant, instead of the spec's")
    made.add_argument("--data", type=Path, default=Path("data/organism"), help="folder of the prompts")
    made.add_argument("--output-dir", type=Path, required=True, help="folder of the organism; replaced when finished")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
