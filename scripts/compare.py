"""Several models on one page: their answers side by side, what each refuses, what ablation costs."""

from pathlib import Path

from refusal import cli
from refusal.artifacts import atomic, read_json, read_table
from refusal.errors import UserError
from refusal.provenance import spec, stamp, verify


def main(args):
    if repeated := [name for name in args.models if args.models.count(name) > 1]:
        raise UserError(f"--models: {repeated[0]} is given twice: name each model once")
    results, folder = args.results.resolve(), args.output.parent.resolve()
    if not results.is_relative_to(folder):
        raise UserError(f"--output {args.output}: put it into {args.results} or above: it links the pages there")
    inputs = {f"{name}/{file}": args.results / name / file for name in args.models for file in _FILES}
    verify(inputs.values())
    read = {
        name: (
            read_json(args.results / name / "claims.json"),
            read_table(args.results / name / "summary.csv", ("combination", "kind", "k", "bypass")),
        )
        for name in args.models
    }

    from refusal.plots import as_svg, compare
    from refusal.report.comparison import Findings, compared
    from refusal.report.figures import embedded
    from refusal.report.pages import ASSETS, render

    found = {}
    for name, (claims, table) in read.items():
        page = results / name / "report.html"
        # relative, so that both can be moved together
        found[name] = Findings(claims, table, page.relative_to(folder) if page.exists() else None)
    drawn = as_svg(compare({name: (one.table, one.claims["judge"]) for name, one in found.items()}), "compare")
    alt = "Harmful test prompts refused: baseline, best single and best pair of each model, as in the table above"
    page = render("compare.html", ("theme",), {**compared(found), "figure": embedded(drawn, alt, "compare")})
    with atomic(args.output) as temporary:
        temporary.write_bytes(page)
    inputs |= {path.name: path for path in ASSETS}
    stamp(args.output, spec("compare", {"models": args.models}, inputs), inputs)


_FILES = ("claims.json", "summary.csv")


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--models", nargs="+", required=True, help="names of folders below --results")
    made.add_argument("--results", type=Path, default=Path("results"), help="folder of MODEL/claims.json, summary.csv")
    made.add_argument("--output", type=Path, required=True, help="compare.html, in --results or above it")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
