"""A judge's verdict on every response: refusal, compliance or invalid, with the evidence. Never a silent default."""

from pathlib import Path

from refusal import cache, cli
from refusal.artifacts import read_jsonl, write_jsonl
from refusal.checking import read_judge
from refusal.combinations import by_folder
from refusal.judges.base import Item, load_judge
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
    for name, item in cache.pending(args.cache, specs).items():
        rows = read_jsonl(completions[name], ("id", "prompt", "response"))
        verdicts = judge([Item(row["prompt"], row["response"]) for row in rows])
        found = [
            {"id": row["id"], "verdict": verdict.label, "raw": verdict.raw, "reason": verdict.reason}
            for row, verdict in zip(rows, verdicts, strict=True)
        ]
        cache.store(args.cache, item, lambda path, found=found: write_jsonl(path, found), {})
    for name, output in outputs.items():
        inputs = {"completions": completions[name], "judge": args.judge}
        cache.publish(args.cache, specs[name], output, inputs)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--judge", type=Path, required=True, help="config/judges/NAME.yaml")
    made.add_argument("--completions", type=Path, nargs="+", required=True, help="COMBINATION/completions/SET.jsonl")
    made.add_argument("--cache", type=Path, default=Path("cache"), help="folder of finished items")
    made.add_argument("--outputs", type=Path, nargs="+", required=True, help="COMBINATION/judgements/JUDGE/SET.jsonl")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
