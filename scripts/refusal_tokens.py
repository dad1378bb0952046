"""Propose refusal tokens: those that start far more replies to harmful train prompts than to harmless ones.

Train prompts are drawn as the prompts step draws them, so that no test prompt is looked at.
"""

from pathlib import Path

from refusal import cache, cli, first_tokens
from refusal.artifacts import digest, read_json, write_json
from refusal.first_tokens import FirstToken
from refusal.identity import model_key
from refusal.prompts import read_prompts, sample, sample_in_turn, without
from refusal.provenance import Spec, code_version, spec, stamp


def main(args):
    files = {"harmful": args.harmful, "harmless": args.harmless}
    drawn = _drawn(args, files)
    asked = {kind: digest([prompt["instruction"] for prompt in prompts]) for kind, prompts in drawn.items()}
    item = Spec("refusal_tokens", code_version("refusal_tokens"), {"model": model_key(args.model), "prompts": asked})
    if cache.pending(args.cache, {"contrasts": item}):
        _contrast(args, item, drawn)
    data, run = cache.load(args.cache, item)
    table = [FirstToken(**row) for row in read_json(data)]
    # from the table, so that whoever finds none does not run the model again
    chosen = first_tokens.propose(table, str(args.model.parent))
    _say(chosen)
    write_json(
        args.output,
        {
            "refusal_tokens": [{"id": one.id, "string": one.string} for one in chosen],
            "prompts": {kind: len(prompts) for kind, prompts in drawn.items()},
            "rule": {
                "min_contrast": first_tokens.MIN_CONTRAST,
                "min_ratio": first_tokens.MIN_RATIO,
                "most": first_tokens.MOST,
            },
            "contrasts": [one.row() for one in table],
        },
    )
    inputs = {"model": args.model, **files, **{f"kept_out_{number}": file for number, file in enumerate(args.kept_out)}}
    made = spec("refusal_tokens", {"train": args.train, "seed": args.seed, "sampling": args.sampling}, inputs)
    stamp(args.output, made, inputs, run | {"items": [item.key]})


def _drawn(args, files):
    """Train prompts, as the prompts step draws them."""
    pools = {kind: read_prompts(file) for kind, file in files.items()}
    if args.sampling == "published":
        # in turn, these are the first two of its draws
        sets = [(pool, args.train, str(files[kind])) for kind, pool in pools.items()]
        return dict(zip(pools, sample_in_turn(sets, args.seed), strict=True))
    kept_out = [prompt for file in args.kept_out for prompt in read_prompts(file)]
    return {
        kind: sample(without(pool, kept_out), args.train, args.seed, str(files[kind])) for kind, pool in pools.items()
    }


def _contrast(args, item, drawn):
    from refusal.model.first_tokens import first_token_probabilities
    from refusal.model.memory import opened

    chat, fits = opened(args)
    means = {kind: first_token_probabilities(chat, chat.encode(prompts), fits) for kind, prompts in drawn.items()}
    rows = [
        {"id": token, "string": chat.tokenizer.decode([token])}
        | {kind: float(values[token]) for kind, values in means.items()}
        for token in first_tokens.strongest(**means)
    ]
    cache.store(args.cache, item, lambda path: write_json(path, rows), chat.run)


def _say(chosen):
    for one in chosen:
        cli.log.info("refusal token %s", one.words)
    if (share := sum(one.harmful for one in chosen)) < first_tokens.HALF:
        cli.log.warning(
            "these start %.1f%% of the replies to harmful prompts: the model hardly refuses, or refuses in other words:"
            " read some replies, and name `refusal_tokens` in the model file by hand",
            100 * share,
        )


def parser():
    made = cli.stage_parser(__doc__)
    made.add_argument("--harmful", type=Path, required=True, help="train prompts (.jsonl or .json)")
    made.add_argument("--harmless", type=Path, required=True, help="train prompts (.jsonl or .json)")
    made.add_argument("--kept-out", type=Path, nargs="+", default=[], help="files whose prompts are left out")
    made.add_argument("--train", type=int, default=128, help="prompts drawn of each kind")
    made.add_argument("--seed", type=int, default=42)
    made.add_argument("--sampling", choices=["apart", "published"], default="apart")
    made.add_argument("--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
