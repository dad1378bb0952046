"""One row per combination: rates with intervals, tests, CE loss, KL; and the same in plain words."""

from pathlib import Path

from refusal import cli
from refusal.artifacts import atomic, read_jsonl, write_table
from refusal.combinations import by_folder
from refusal.errors import UserError
from refusal.provenance import spec, stamp, verify


def main(args):
    bases, scores, losses = by_folder(args.bases), by_folder(args.scores), by_folder(args.losses)
    verify([*args.bases, *args.scores, *args.losses, *args.judgements])
    verdicts = {name: {} for name in bases}
    for path in args.judgements:
        name, _, judge, file = path.parts[-4:]
        verdicts[name][file.removesuffix(".jsonl"), judge] = {row["id"]: row["verdict"] for row in read_jsonl(path)}
    for name in bases:
        whole = name in scores and name in losses and set(verdicts[name]) == set(verdicts[next(iter(bases))])
        if not whole and not args.partial:
            raise UserError(f"combination {name}: scores, loss or judgements are missing: give those of every basis")
    judges = list(dict.fromkeys(judge for one in verdicts.values() for _, judge in one))
    if not judges and not args.narrator:
        raise UserError("no judgements are given: name the judge by --narrator")

    from refusal.evidence import read_evidence
    from refusal.narration import narrate
    from refusal.summary import summarize

    evidence = read_evidence(bases, scores, losses, verdicts)
    table = summarize(evidence)
    text = narrate(table, args.name, args.narrator or judges[0])
    write_table(args.output, table)
    with atomic(args.words) as temporary:
        temporary.write_text(text)
    files = [*args.bases, *args.scores, *args.losses, *args.judgements]
    inputs = {str(Path(*path.parts[-4:])): path for path in files}
    made = spec("summary", {"name": args.name}, inputs)
    for path in (args.output, args.words):
        stamp(path, made, inputs)
    cli.log.info("%s", text.split("\n\n|")[0])


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--name", required=True, help="of the model, for the title")
    made.add_argument("--bases", type=Path, nargs="+", required=True, help="COMBINATION/basis.safetensors")
    made.add_argument("--scores", type=Path, nargs="*", default=[], help="COMBINATION/scores.json")
    made.add_argument("--losses", type=Path, nargs="*", default=[], help="COMBINATION/loss.json")
    made.add_argument("--judgements", type=Path, nargs="*", default=[], help=".../judgements/JUDGE/SET.jsonl")
    made.add_argument(
        "--partial", action="store_true", help="leave cells empty where a combination lacks figures (imported runs)"
    )
    made.add_argument("--narrator", help="judge whose verdicts are put into words; the first when left out")
    made.add_argument("--output", type=Path, required=True, help="summary.csv")
    made.add_argument("--words", type=Path, required=True, help="summary.md")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
