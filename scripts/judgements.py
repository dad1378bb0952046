"""A judge's verdict on every response: refusal, compliance or invalid, with the evidence. Never a silent default.

With --estimate it says what judging them would cost, and does nothing else.
"""

from contextlib import nullcontext
from pathlib import Path

from refusal import answers, cache, cli, gpus
from refusal.artifacts import digest, read_jsonl, write_jsonl
from refusal.checking import read_judge
from refusal.combinations import by_folder
from refusal.judges.base import Item, Keep
from refusal.judges.kinds import load_judge
from refusal.provenance import Spec, code_version


def main(args):
    completions, outputs = by_folder(args.completions, depth=2), by_folder(args.outputs, depth=3)
    judge = load_judge(read_judge(args.judge))
    decides = {"asked": judge.asked, "read": judge.reading}
    code = code_version("judgements")
    specs = {
        name: Spec("judgements", code, decides, {"completions": cache.content(path)})
        for name, path in completions.items()
    }
    todo = cache.pending(args.cache, specs)
    items = {name: _items(completions[name]) for name in todo}
    distinct = list(dict.fromkeys(item for rows in items.values() for item in rows.values()))
    if args.estimate:
        unasked = _unasked(args.cache, judge, distinct)[1]
        words = judge.estimate(unasked) if judge.estimate else "nothing"
        cli.log.info(
            "%s: %d of %d answers to ask for, which costs %s", args.judge.stem, len(unasked), len(distinct), words
        )
        return
    known = _answered(args, judge, distinct) if judge.ask else {}
    for name in todo:
        verdicts = {key: judge.verdict(item, known.get(item)) for key, item in items[name].items()}
        rows = [
            {"id": key, "verdict": one.label, "raw": one.raw, "reason": one.reason} for key, one in verdicts.items()
        ]
        if any(not known[item].lasting for item in items[name].values() if item in known):
            # under a name of its own, so that the next run finds it pending and asks again
            specs[name] = cache.narrowed(specs[name], unanswered=digest(rows))
        cache.store(args.cache, specs[name], lambda path, rows=rows: write_jsonl(path, rows), {})
    for name, output in outputs.items():
        inputs = {"completions": completions[name], "judge": args.judge}
        cache.publish(args.cache, specs[name], output, inputs)


def _items(path):
    """Id -> what is judged."""
    rows = read_jsonl(path, ("id", "prompt", "response"))
    return {row["id"]: Item(row["prompt"], row["response"]) for row in rows}


def _unasked(root, judge, items):
    """The answers that are there, and the items that a model has to be asked about."""
    if judge.ask is None:
        return {}, []
    known = answers.kept(root, judge.asked)
    return known, [item for item in items if item.response.strip() and item not in known]


def _answered(args, judge, items):
    """Item -> answer; each that is asked for is kept as it comes, unless it holds for now alone."""
    known, unasked = _unasked(args.cache, judge, items)
    if not unasked:
        return known
    # two that ask a service would both pay for what both lack; models of several GPUs have no reason to wait
    with answers.alone(args.cache, judge.asked) if judge.needs == "network" else nullcontext():
        # another job may have asked meanwhile
        known, unasked = _unasked(args.cache, judge, items)
        cli.log.info("%s: %d of %d answers to ask for", args.judge.stem, len(unasked), len(items))
        with answers.keeping(args.cache, judge.asked) as keep:

            def done(number, answer):
                known[unasked[number]] = answer
                if answer.lasting:
                    keep(unasked[number], answer)

            if unasked:
                if judge.needs == "gpu":
                    gpus.claim(args.gpus)
                judge.ask(unasked, Keep(done, answers.folder_of(args.cache, judge.asked)))
    return known


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--judge", type=Path, required=True, help="config/judges/NAME.yaml")
    made.add_argument("--completions", type=Path, nargs="+", required=True, help="COMBINATION/completions/SET.jsonl")
    made.add_argument("--cache", type=Path, default=Path("cache"), help="folder of finished items")
    cli.gpus_flag(made)
    made.add_argument("--estimate", action="store_true", help="only say what it would cost")
    made.add_argument("--outputs", type=Path, nargs="*", default=[], help="COMBINATION/judgements/JUDGE/SET.jsonl")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
