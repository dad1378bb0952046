"""Figures of a study as SVG and PNG, from its tables alone, with what each shows in words (captions.json)."""

from pathlib import Path

from refusal import cli
from refusal.artifacts import atomic, read_table, write_json
from refusal.filters import Filters
from refusal.plots import NAMES
from refusal.provenance import spec, stamp, verify


def main(args):
    inputs = {"summary": args.summary, "ranking": args.ranking, "cosines": args.cosines}
    inputs |= {"agreement": args.agreement} if args.agreement else {}
    verify(inputs.values())
    ranking = read_table(args.ranking, ("source", "position", "layer", "bypass", "induce", "kl", "reason", "rank"))
    # every layer has its candidates
    filters = Filters(args.max_kl, args.min_induce, args.max_layer_share, int(ranking.layer.max()) + 1)

    from refusal.plots.figures import FIGURES
    from refusal.plots.files import png, svg
    from refusal.plots.tables import Tables

    tables = Tables(
        summary=read_table(args.summary, ("combination", "kind", "k", "effective_rank", "max_cosine", "bypass", "kl")),
        ranking=ranking,
        cosines=read_table(args.cosines, ("rank", "other", "cosine")),
        agreement=read_table(args.agreement, ("raters", "first", "second", "set")) if args.agreement else None,
        judge=args.judge,
        filters=filters,
    )
    made = spec("plots", {"name": args.name, "judge": args.judge, "filters": vars(filters)}, inputs)
    captions = {}
    for name in cli.progress(NAMES, "plots", unit="figures"):
        drawn = FIGURES[name](tables)
        captions[name] = {"title": drawn.title, "caption": drawn.caption, "alt": drawn.alt}
        for ending, content in (("svg", svg(drawn.figure, f"{args.name}-{name}").encode()), ("png", png(drawn.figure))):
            path = args.output_dir / f"{name}.{ending}"
            with atomic(path) as temporary:
                temporary.write_bytes(content)
            stamp(path, made, inputs)
    path = args.output_dir / "captions.json"
    write_json(path, captions)
    stamp(path, made, inputs)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--name", required=True, help="of the model: ids in its SVG files begin with it")
    made.add_argument("--summary", type=Path, required=True, help="summary.csv")
    made.add_argument("--ranking", type=Path, required=True, help="ranking.csv")
    made.add_argument("--cosines", type=Path, required=True, help="cosines.csv")
    made.add_argument("--agreement", type=Path, help="agreement.csv, with two judges or more")
    made.add_argument("--judge", required=True, help="whose verdicts are shown")
    cli.filter_flags(made)
    made.add_argument("--output-dir", type=Path, required=True, help="folder of NAME.svg, NAME.png and captions.json")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
