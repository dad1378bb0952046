"""The study's questions, answered in words and figures: one direction, a pair, the top two, what they cost."""

from pathlib import Path

from refusal import cli
from refusal.artifacts import atomic, read_jsonl, write_json
from refusal.combinations import BASELINE, by_folder
from refusal.errors import UserError
from refusal.provenance import spec, stamp, verify

SET = "harmful"


def main(args):
    bases, scores, losses = by_folder(args.bases), by_folder(args.scores), by_folder(args.losses)
    files = [*args.bases, *args.scores, *args.losses, *args.judgements]
    verify(files)
    judged = {path.parts[-4]: path for path in args.judgements if path.parts[-2:] == (args.judge, f"{SET}.jsonl")}
    if BASELINE not in bases:
        raise UserError(f"--bases: {BASELINE} is not among them: every question is about what differs from it")
    for name in bases:
        if not args.partial and not all(name in given for given in (scores, losses, judged)):
            raise UserError(
                f"combination {name}: scores, loss, or {args.judge}'s judgements of {SET} prompts are missing: give"
                " those of every basis"
            )

    from refusal.claims.costs import BEND
    from refusal.claims.questions import claims
    from refusal.claims.refusals import COPIES
    from refusal.claims.words import narrate_claims
    from refusal.evidence import read_evidence
    from refusal.measured import HARDLY, LEVEL, MARGIN

    verdicts = {
        name: {(SET, args.judge): {row["id"]: row["verdict"] for row in read_jsonl(path)}}
        for name, path in judged.items()
    }
    evidence = read_evidence(bases, scores, losses, verdicts)
    found = claims(evidence, args.judge, SET)
    rules = {"level": LEVEL, "margin": MARGIN, "hardly": HARDLY, "copies": COPIES, "bend": BEND}
    text = narrate_claims(found, args.name, args.judge, SET)
    write_json(args.output, {"judge": args.judge, "set": SET, "rules": rules, "claims": found})
    with atomic(args.words) as temporary:
        temporary.write_text(text)
    inputs = {str(Path(*path.parts[-4:])): path for path in files}
    made = spec("claims", {"name": args.name, "judge": args.judge}, inputs)
    for path in (args.output, args.words):
        stamp(path, made, inputs)
    cli.log.info("%s", text)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--name", required=True, help="of the model, for the title")
    made.add_argument("--bases", type=Path, nargs="+", required=True, help="COMBINATION/basis.safetensors")
    made.add_argument("--scores", type=Path, nargs="*", default=[], help="COMBINATION/scores.json")
    made.add_argument("--losses", type=Path, nargs="*", default=[], help="COMBINATION/loss.json")
    made.add_argument("--judgements", type=Path, nargs="*", default=[], help=".../judgements/JUDGE/SET.jsonl")
    made.add_argument("--judge", required=True, help="whose verdicts on harmful prompts the answers rest on")
    made.add_argument(
        "--partial", action="store_true", help="leave questions unanswered where figures lack (imported runs)"
    )
    made.add_argument("--output", type=Path, required=True, help="claims.json")
    made.add_argument("--words", type=Path, required=True, help="claims.md")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
