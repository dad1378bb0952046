"""One page of a study that opens anywhere: the answer, the plots, every combination, every response."""

import json
from pathlib import Path

from refusal import cli
from refusal.agreement.ratings import completion_files
from refusal.artifacts import atomic, read_json, read_table
from refusal.provenance import spec, stamp, verify


def main(args):
    found = {"claims": args.claims, "summary": args.summary, "ranking": args.ranking, "model": args.model}
    found |= {"agreement": args.agreement} if args.agreement else {}
    if args.plots:
        drawn = {name: args.plots.with_name(f"{name}.svg") for name in read_json(args.plots)}
        found |= {"captions": args.plots, **{f"plot {name}": path for name, path in drawn.items()}}
    completions = completion_files(args.judgements)
    files = [*found.values(), *completions, *args.judgements]
    verify(files)
    claims, table = read_json(args.claims), read_table(args.summary, ("combination", "kind", "k", "bypass"))
    given = json.loads(args.settings)

    from refusal.report.contents import contents, settings
    from refusal.report.figures import read_figures
    from refusal.report.origins import costs, origins, times
    from refusal.report.pages import ASSETS, render
    from refusal.report.responses import gather

    values = contents(
        args.name,
        claims,
        table,
        read_table(args.ranking, ("rank", "layer", "position")),
        read_table(args.agreement, ("raters", "set")) if args.agreement else None,
        read_figures(args.plots) if args.plots else (),
        gather(completions, args.judgements),
        args.summary.read_bytes(),
    )
    values |= settings(given, read_json(args.model), origins(files))
    values |= {"costs": costs(given.get("judges", {}), completions), "times": times(args.times)}
    page = render("report.html", ("theme", "figures", "table", "browse", "data"), values)
    with atomic(args.output) as temporary:
        temporary.write_bytes(page)
    inputs = found | {str(Path(*path.parts[-4:])): path for path in (*completions, *args.judgements)}
    inputs |= {path.name: path for path in ASSETS}
    stamp(args.output, spec("report", {"name": args.name, "settings": given}, inputs), inputs)
    cli.log.info("%s: %.1f MB", args.output, len(page) / 1e6)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--name", required=True, help="of the model, for the title")
    made.add_argument("--claims", type=Path, required=True, help="claims.json")
    made.add_argument("--summary", type=Path, required=True, help="summary.csv")
    made.add_argument("--ranking", type=Path, required=True, help="ranking.csv")
    made.add_argument("--model", type=Path, required=True, help="model.json")
    made.add_argument("--agreement", type=Path, help="agreement.csv, of two judges or more")
    made.add_argument("--plots", type=Path, help="captions.json; the SVG files stand beside it")
    made.add_argument(
        "--judgements", type=Path, nargs="*", default=[], help=".../judgements/JUDGE/SET.jsonl; responses beside them"
    )
    made.add_argument("--settings", default="{}", help="JSON: title -> settings; of `judges` the cost is estimated")
    made.add_argument("--times", type=Path, default=Path("logs"), help="folder of benchmark files; decides no result")
    made.add_argument("--output", type=Path, required=True, help="report.html")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
