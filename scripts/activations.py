"""Mean residual stream of harmful and harmless train prompts at the end-of-instruction positions.

Beside them, once a draw, the difference of the means of two random halves of the harmless prompts: directions of a
control.
"""

from pathlib import Path

import numpy as np

from refusal import cache, cli
from refusal.artifacts import read_json, read_jsonl, write_tensors
from refusal.directions import shuffled_weights
from refusal.identity import model_key
from refusal.provenance import spec


def main(args):
    prompts = {"harmful": args.harmful, "harmless": args.harmless}
    shuffling = {"draws": args.shuffled_draws, "seed": args.seed} if args.shuffled_draws else None
    made = spec("activations", {"model": model_key(args.model), "shuffled": shuffling}, prompts)
    if cache.pending(args.cache, {"activations": made}):
        from refusal.model.activations import weighted_activations
        from refusal.model.memory import opened

        chat, fits = opened(args)
        arrays, counts = {}, {}
        for kind, file in prompts.items():
            rows = chat.encode(read_jsonl(file))
            weights = np.full((1, len(rows)), 1 / len(rows))
            if kind == "harmless" and args.shuffled_draws:
                weights = np.vstack([weights, shuffled_weights(len(rows), args.shuffled_draws, args.seed)])
            arrays[kind], *drawn = weighted_activations(chat, rows, weights, fits)
            counts[kind] = len(rows)
            if drawn:
                arrays["shuffled"] = np.array(drawn)
        record = read_json(args.model)
        metadata = {"positions": record["positions"], "identity": record["identity"], "counts": counts}
        cache.store(args.cache, made, lambda path: write_tensors(path, arrays, metadata), chat.run)
    cache.publish(args.cache, made, args.output, prompts | {"model": args.model})


def parser():
    made = cli.stage_parser(__doc__)
    made.add_argument("--harmful", type=Path, required=True, help="harmful_train.jsonl")
    made.add_argument("--harmless", type=Path, required=True, help="harmless_train.jsonl")
    made.add_argument("--shuffled-draws", type=int, default=0, help="draws of two halves of the harmless prompts")
    made.add_argument("--seed", type=int, default=42, help="of the shuffles")
    made.add_argument("--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
