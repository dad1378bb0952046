"""Size of the cache by stage; with --prune, delete what no result was made from.

It is safe to delete it all but answers/: what models that judge have answered, which was paid for.
"""

from pathlib import Path

from refusal import cache, cli


def main(args):
    if args.prune:
        cli.log.info("%d items deleted", cache.prune(args.cache, args.results))
    for stage, (items, size) in cache.sizes(args.cache).items():
        cli.log.info("%-20s %6d items %10.1f MB", stage, items, size / 1e6)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--cache", type=Path, default=Path("cache"))
    made.add_argument("--results", type=Path, default=Path("results"))
    made.add_argument("--prune", action="store_true", help="delete items that no file of --results was made from")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
