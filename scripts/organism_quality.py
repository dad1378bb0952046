"""Measure a trained organism on held-out prompts; leaves with 2 if a figure is outside its limits."""

import sys
from argparse import Namespace
from pathlib import Path

from refusal import artifacts, cli

# This file's folder stands first on the path, and organism.py in it would hide the package of the same name.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]


def main(args: Namespace) -> None:
    from organism import quality

    organism = quality.load(args.organism)
    directions = organism.manifest["directions"]
    found = quality.figures(organism, args.data)
    limits = quality.limits(directions)
    print(f"{'figure':<38}{'value':>9}{'lowest':>9}{'highest':>9}")
    for figure, (low, high) in limits.items():
        print(f"{figure:<38}{found[figure]:>9.4f}{low:>9}{high:>9}")
    if args.output:
        artifacts.write_json(args.output, {"figures": found, "limits": limits})
    quality.require(found, directions, args.organism)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--organism", type=Path, required=True, help="folder that scripts/organism.py wrote")
    made.add_argument("--data", type=Path, default=Path("data/organism"), help="folder of the prompts")
    made.add_argument("--output", type=Path, help="also write the figures to this JSON file")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
