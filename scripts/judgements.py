"""A judge's verdict on every response: refusal, compliance or invalid, with the evidence. Never a silent default.

With --estimate it says what judging them would cost, and does nothing else.
"""

from pathlib import Path

from refusal import answers, cache, cli
from refusal.artifacts import read_jsonl, write_jsonl
from refusal.checking import read_judge
from refusal.combinations import by_folder
from refusal.judges.base import Item, Keep, load_judge
from refusal.provenance import Spec, code_version


def main(args):
    completions, outputs = by_folder(args.completions, depth=2), by_folder(args.outputs, depth=3)
    settings = read_judge(args.judge)
    judge = load_judge(settings)
    code = code_version("judgements")
    specs = {
        name: Spec("judgements", code, {"judge": settings}, {"completions": cache.content(path)})
        for name, path in completions.items()
    }
    todo = cache.pending(args.cache, specs)
    items = {name: _items(completions[name]) for name in todo}
    distinct = list(dict.fromkeys(item for rows in items.values() for item in rows.values()))
    known = answers.kept(args.cache, judge.asked) if judge.ask else {}
    unasked = [item for item in distinct if item.response.strip() and item not in known] if judge.ask else []
    if args.estimate:
        words = judge.estimate(unasked) if judge.estimate else "nothing"
        cli.log.info(
            "%s: %d of %d answers to ask for, which costs %s", args.judge.stem, len(unasked), len(distinct), words
        )
        return
    if unasked:
        cli.log.info("%s: %d of %d answers to ask for", args.judge.stem, len(unasked), len(distinct))
        known |= _asked(args.cache, judge, unasked)
    for name, spec in todo.items():
        verdicts = {key: judge.verdict(item, known.get(item)) for key, item in items[name].items()}
        rows = [
            {"id": key, "verdict": one.label, "raw": one.raw, "reason": one.reason} for key, one in verdicts.items()
        ]
        cache.store(args.cache, spec, lambda path, rows=rows: write_jsonl(path, rows), {})
    for name, output in outputs.items():
        inputs = {"completions": completions[name], "judge": args.judge}
        cache.publish(args.cache, specs[name], output, inputs)


def _items(path):
    """Id -> what is judged."""
    rows = read_jsonl(path, ("id", "prompt", "response"))
    return {row["id"]: Item(row["prompt"], row["response"]) for row in rows}


def _asked(root, judge, items):
    """Item -> answer; each is kept as it comes, unless it holds for now alone."""
    found = {}
    with answers.keeping(root, judge.asked) as keep:

        def done(number, answer):
            found[items[number]] = answer
            if answer.lasting:
                keep(items[number], answer)

        judge.ask(items, Keep(done, answers.folder_of(root, judge.asked)))
    return found


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--judge", type=Path, required=True, help="config/judges/NAME.yaml")
    made.add_argument("--completions", type=Path, nargs="+", required=True, help="COMBINATION/completions/SET.jsonl")
    made.add_argument("--cache", type=Path, default=Path("cache"), help="folder of finished items")
    made.add_argument("--estimate", action="store_true", help="only say what it would cost")
    made.add_argument("--outputs", type=Path, nargs="*", default=[], help="COMBINATION/judgements/JUDGE/SET.jsonl")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
