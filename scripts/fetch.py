"""Fetch one published prompt set into data/external, from its repository or a mirror, and check its hash."""

import argparse
from pathlib import Path

from refusal import cli
from refusal.errors import UserError


def parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__)
    made.add_argument("--name", required=True, help="path of the file in the registry")
    made.add_argument("--registry", type=Path, default=Path("data/published.csv"), help="table of published files")
    made.add_argument("--url", help="address that the name is appended to (config: datasets.url)")
    made.add_argument("--mirror", help="folder or address to use in place of --url (config: datasets.mirror)")
    made.add_argument("--output", type=Path, required=True, help="the file to write; kept if its hash is right")
    return made


def main(args: argparse.Namespace) -> None:
    from refusal.fetch import fetch

    base = args.mirror or args.url
    if not base:
        raise UserError("nowhere to fetch from: give --url or --mirror")
    fetch(args.name, args.registry, base, args.output)


if __name__ == "__main__":
    cli.run(main, parser())
