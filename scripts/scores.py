"""The sweep: bypass, induce and kl of every candidate direction, on val prompts. Thresholds are not its business."""

import hashlib
from pathlib import Path

from refusal import cache, cli
from refusal.artifacts import read_json, read_jsonl, read_tensors, write_json, write_table
from refusal.directions import ZERO
from refusal.identity import scoring_key
from refusal.provenance import spec, stamp


def main(args):
    tensors, metadata = read_tensors(args.directions)
    directions, positions = tensors["directions"], [token["position"] for token in metadata["positions"]]
    prompts = {"harmful": args.harmful, "harmless": args.harmless}
    model = scoring_key(args.model)
    cells = [(row, layer) for row in range(len(positions)) for layer in range(directions.shape[1])]
    candidates = {
        f"position {positions[row]}, layer {layer}": (directions[row, layer], layer)
        for row, layer in cells
        if not metadata["zero"][row][layer]
    }
    base = spec("scores", {"model": model}, prompts)
    specs = {
        name: cache.narrowed(base, direction=hashlib.sha256(direction.tobytes()).hexdigest(), layer=layer)
        for name, (direction, layer) in candidates.items()
    }
    if todo := cache.pending(args.cache, specs):
        from refusal.model.loading import load
        from refusal.model.scores import sweep

        chat = load(args.model)
        rows = {k: chat.encode(read_jsonl(f)) for k, f in prompts.items()}

        def done(name, scores):
            cache.store(args.cache, todo[name], lambda path: write_json(path, scores), chat.run)

        sweep(chat, {name: candidates[name] for name in todo}, rows["harmful"], rows["harmless"], args.batch_rows, done)
    table, run = [], {}
    for row, layer in cells:
        name = f"position {positions[row]}, layer {layer}"
        entry = {"source": metadata["source"], "position": positions[row], "layer": layer}
        if name in specs:
            data, run = cache.load(args.cache, specs[name])
            entry |= read_json(data)
        table.append(entry | {"note": "" if name in specs else ZERO})
    import pandas as pd

    columns = ["source", "position", "layer", "bypass", "induce", "kl", "note"]
    write_table(args.output, pd.DataFrame(table, columns=columns))
    inputs = prompts | {"directions": args.directions, "model": args.model}
    stamp(args.output, base, inputs, run | {"items": [one.key for one in specs.values()]})


def parser():
    made = cli.stage_parser(__doc__)
    made.add_argument("--directions", type=Path, required=True)
    made.add_argument("--harmful", type=Path, required=True, help="harmful_val.jsonl")
    made.add_argument("--harmless", type=Path, required=True, help="harmless_val.jsonl")
    made.add_argument("--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
