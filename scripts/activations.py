"""Mean residual stream of harmful and harmless train prompts at the end-of-instruction positions."""

from pathlib import Path

from refusal import cache, cli
from refusal.artifacts import read_json, read_jsonl, write_tensors
from refusal.identity import model_key
from refusal.provenance import spec


def main(args):
    prompts = {"harmful": args.harmful, "harmless": args.harmless}
    made = spec("activations", {"model": model_key(args.model)}, prompts)
    if cache.pending(args.cache, {"activations": made}):
        from refusal.model.activations import mean_activations
        from refusal.model.memory import opened

        chat, fits = opened(args)
        means, counts = {}, {}
        for kind, file in prompts.items():
            rows = chat.encode(read_jsonl(file))
            means[kind], counts[kind] = mean_activations(chat, rows, fits), len(rows)
        record = read_json(args.model)
        metadata = {"positions": record["positions"], "identity": record["identity"], "counts": counts}
        cache.store(args.cache, made, lambda path: write_tensors(path, means, metadata), chat.run)
    cache.publish(args.cache, made, args.output, prompts | {"model": args.model})


def parser():
    made = cli.stage_parser(__doc__)
    made.add_argument("--harmful", type=Path, required=True, help="harmful_train.jsonl")
    made.add_argument("--harmless", type=Path, required=True, help="harmless_train.jsonl")
    made.add_argument("--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
