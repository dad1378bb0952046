"""How far judges agree with each other, with people's labels in a CSV, and with an oracle that knows the true labels.

The CSV has the columns combination, set, id and label (refusal, compliance, invalid; empty: not labelled yet), and may
have rater (who labelled) and response (the text that was read, checked against the one that is there).
"""

from pathlib import Path

from refusal import cli
from refusal.agreement.ratings import completion_files, read_labels, read_responses, read_verdicts
from refusal.artifacts import atomic, write_table
from refusal.errors import UserError
from refusal.provenance import spec, stamp, verify


def main(args):
    completions = completion_files(args.judgements)
    verify([*args.judgements, *completions])
    judged, responses = read_verdicts(args.judgements), read_responses(completions)
    if args.oracle is not None and args.oracle not in judged:
        raise UserError(f"--oracle {args.oracle}: no verdicts of that judge; there are those of {', '.join(judged)}")
    labelled = read_labels(args.labels, judged, responses) if args.labels else {}
    ratings, people = judged | labelled, list(labelled)
    if len(ratings) < 2:
        raise UserError(
            f"agreement needs two raters, and {next(iter(ratings))} is the only one: add a judge to `judges`, or give"
            " people's labels by --labels"
        )

    from refusal.agreement.table import agreement_table
    from refusal.agreement.words import narrate_agreement

    table = agreement_table(ratings, people, args.oracle, args.seed)
    if not table.n.any():
        raise UserError(f"no response was rated by two of {', '.join(ratings)}: give verdicts on the same sets")
    text = narrate_agreement(table, ratings, responses, args.name, people, args.oracle)
    write_table(args.output, table)
    with atomic(args.words) as temporary:
        temporary.write_text(text)
    inputs = {str(Path(*path.parts[-4:])): path for path in [*args.judgements, *completions]}
    inputs |= {"labels": args.labels} if args.labels else {}
    made = spec("agreement", {"name": args.name, "oracle": args.oracle, "seed": args.seed}, inputs)
    for path in (args.output, args.words):
        stamp(path, made, inputs)
    cli.log.info("%s", text.split("\n\n|")[0])


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--name", required=True, help="of the model, for the title")
    made.add_argument("--judgements", type=Path, nargs="+", required=True, help=".../judgements/JUDGE/SET.jsonl")
    made.add_argument("--labels", type=Path, help="CSV of people's labels")
    made.add_argument("--oracle", help="judge that knows the true labels")
    made.add_argument("--seed", type=int, default=42, help="of the resampling of prompts for kappa's interval")
    made.add_argument("--output", type=Path, required=True, help="agreement.csv")
    made.add_argument("--words", type=Path, required=True, help="agreement.md")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
