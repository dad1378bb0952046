"""Sample train and val prompts by seed, keep those the model refuses (harmful) or answers (harmless)."""

import argparse
from pathlib import Path

from refusal import cache, cli
from refusal.artifacts import digest, read_json, write_json, write_jsonl
from refusal.identity import scoring_key
from refusal.prompts import IN_TURN, keep_by_score, read_prompts, sample, sample_in_turn, without
from refusal.provenance import Spec, code_version, spec, stamp

SETS = ("harmful_train", "harmful_val", "harmless_train", "harmless_val")


def main(args):
    files = {name: getattr(args, name) for name in SETS}
    counts = {"train": args.train, "val": args.val}
    prompts = {name: read_prompts(file) for name, file in files.items()}
    kept_out = [prompt for file in args.kept_out for prompt in read_prompts(file)]
    drawn, report = {}, {}
    if args.sampling == "published":
        sets = [(prompts[name], counts[name.split("_")[1]], str(files[name])) for name in IN_TURN]
        drawn = dict(zip(IN_TURN, sample_in_turn(sets, args.seed), strict=True))
    for name, file in files.items():
        apart = without(prompts[name], kept_out)
        if name.endswith("_val"):
            apart = without(apart, drawn[name.replace("_val", "_train")])
        if args.sampling == "apart":
            drawn[name] = sample(apart, counts[name.split("_")[1]], args.seed, str(file))
        others = len(prompts[name]) - len(apart)
        report[name] = {"file": str(file), "prompts": len(prompts[name]), "in_other_splits": others}
        if others and args.sampling == "published":
            cli.log.warning("%s: %d of its prompts stand in other splits and are not left out", file, others)
    kept, items = _filtered(drawn, args) if args.filter else (drawn, [])
    inputs = {**files, "model": args.model, **{f"kept_out_{n}": file for n, file in enumerate(args.kept_out)}}
    parameters = {"counts": counts, "seed": args.seed, "filter": args.filter, "sampling": args.sampling}
    made = spec("prompts", parameters, inputs)
    for name in SETS:
        report[name] |= {"drawn": len(drawn[name]), "kept": len(kept[name])}
        report[name]["dropped"] = len(drawn[name]) - len(kept[name])
        write_jsonl(args.output_dir / f"{name}.jsonl", kept[name])
        stamp(args.output_dir / f"{name}.jsonl", made, inputs, {"items": items})
        cli.log.info("%s: %d drawn, %d kept", name, len(drawn[name]), len(kept[name]))
    write_json(args.output_dir / "report.json", report)
    stamp(args.output_dir / "report.json", made, inputs, {"items": items})


def _filtered(drawn, args):
    code, model = code_version("prompts"), scoring_key(args.model)
    specs = {
        name: Spec("prompts", code, {"model": model, "prompts": digest([prompt["instruction"] for prompt in prompts])})
        for name, prompts in drawn.items()
    }
    if todo := cache.pending(args.cache, specs):
        from refusal.model.memory import opened
        from refusal.model.scores import refusal_scores

        chat, fits = opened(args)
        for name, item in todo.items():
            rows = chat.encode(drawn[name])
            scores = refusal_scores(chat, rows, fits).tolist()
            cache.store(args.cache, item, lambda path, scores=scores: write_json(path, scores), chat.run)
    kept = {
        name: keep_by_score(prompts, read_json(cache.load(args.cache, specs[name])[0]), name.split("_")[0], name)
        for name, prompts in drawn.items()
    }
    return kept, [item.key for item in specs.values()]


def parser():
    made = cli.stage_parser(__doc__)
    for name in SETS:
        made.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True, help="prompt file (.jsonl or .json)")
    made.add_argument("--kept-out", type=Path, nargs="+", default=[], help="files whose prompts are left out")
    made.add_argument("--train", type=int, default=128, help="prompts drawn for train")
    made.add_argument("--val", type=int, default=32, help="prompts drawn for val")
    made.add_argument("--seed", type=int, default=42)
    made.add_argument(
        "--sampling", choices=["apart", "published"], default="apart", help="published: one stream, nothing left out"
    )
    made.add_argument("--filter", action=argparse.BooleanOptionalAction, default=True, help="keep by refusal score")
    made.add_argument("--output-dir", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
