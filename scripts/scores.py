"""The sweep: induce, kl and bypass of candidate directions on val prompts.

`screened` goes in the order of the filters: a late layer is not scored, kl only where induce is met, bypass only where
kl is. `full` fills every cell.
"""

import hashlib
from pathlib import Path

from refusal import cache, cli, parts
from refusal.artifacts import read_json, read_jsonl, read_tensors, write_json, write_table
from refusal.directions import ZERO
from refusal.filters import FALLS, LATE, SWEPT, Filters
from refusal.identity import layers, scoring_key
from refusal.provenance import Spec, code_version, spec, stamp

NOTES = {
    "induce": f"kl, bypass not scored: {FALLS['induce']}",
    "kl": f"bypass not scored: {FALLS['kl']}",
}
"""Why a screened sweep goes no further than a score."""


def main(args):
    tensors, metadata = read_tensors(args.directions)
    positions = [token["position"] for token in metadata["positions"]]
    cells = [(row, layer) for row in range(len(positions)) for layer in range(tensors["directions"].shape[1])]
    candidates = {(row, layer): (tensors["directions"][row, layer], layer) for row, layer in cells}
    filters = Filters(args.max_kl, args.min_induce, args.max_layer_share, layers(args.model))
    screened = args.sweep == "screened"
    notes = {
        (row, layer): ZERO if metadata["zero"][row][layer] else f"not scored: {LATE}"
        for row, layer in cells
        if metadata["zero"][row][layer] or (screened and layer >= filters.layer_limit)
    }
    left = parts.share([cell for cell in cells if cell not in notes], args.part)
    sweep = _Sweep(args)
    found, keys, run = {cell: {} for cell in cells}, [], {}
    for score in SWEPT:
        specs = {cell: sweep.spec(score, *candidates[cell]) for cell in left}
        if todo := cache.pending(args.cache, specs):
            sweep.run(score, {cell: candidates[cell] for cell in todo}, todo)
        for cell, item in specs.items():
            data, run = cache.load(args.cache, item)
            found[cell][score] = read_json(data)
            keys.append(item.key)
        if screened and score in FALLS:
            fallen = [cell for cell in left if not filters.meets(score, found[cell][score])]
            notes |= dict.fromkeys(fallen, NOTES[score])
            left = [cell for cell in left if cell not in notes]
    if args.marker:
        parts.mark(args.marker, args.part, keys)
        return
    table = [
        {"source": metadata["source"], "position": positions[row], "layer": layer}
        | found[row, layer]
        | {"note": notes.get((row, layer), "")}
        for row, layer in cells
    ]
    import pandas as pd

    write_table(args.output, pd.DataFrame(table, columns=["source", "position", "layer", "bypass", *SWEPT[:2], "note"]))
    parameters = {"model": scoring_key(args.model), "sweep": args.sweep, "ablation": args.ablation}
    parameters["epsilon"] = {"refusal": args.epsilon_refusal, "kl": args.epsilon_kl}
    parameters |= {"filters": vars(filters)} if screened else {}
    inputs = {"harmful": args.harmful, "harmless": args.harmless, "directions": args.directions, "model": args.model}
    stamp(args.output, spec("scores", parameters, inputs), inputs, run | {"items": keys})


class _Sweep:
    """What one score of one candidate depends on, and how scores are computed; the model is loaded once, if at all."""

    def __init__(self, args):
        self.args, self.chat = args, None
        self.prompts = {"induce": args.harmless, "kl": args.harmless, "bypass": args.harmful}
        self.code, self.model = code_version("scores"), scoring_key(args.model)
        self.inputs = {score: {"prompts": cache.content(path)} for score, path in self.prompts.items()}

    def spec(self, score, direction, layer):
        parameters = {"model": self.model, "score": score, "direction": hashlib.sha256(direction.tobytes()).hexdigest()}
        parameters["epsilon"] = self.args.epsilon_kl if score == "kl" else self.args.epsilon_refusal
        # an ablation acts on all layers
        parameters |= {"layer": layer} if score == "induce" else {"ablation": self.args.ablation}
        return Spec("scores", self.code, parameters, self.inputs[score])

    def run(self, score, candidates, todo):
        from refusal.model import sweep
        from refusal.model.memory import opened
        from refusal.model.scores import Epsilon

        if self.chat is None:
            self.chat, self.room = opened(self.args)

        def done(cell, value):
            cache.store(self.args.cache, todo[cell], lambda path: write_json(path, value), self.chat.run)

        compute = {"induce": sweep.induce, "kl": sweep.divergence, "bypass": sweep.bypass}[score]
        method = sweep.Method(self.args.ablation, Epsilon(self.args.epsilon_refusal, self.args.epsilon_kl))
        compute(self.chat, candidates, self.chat.encode(read_jsonl(self.prompts[score])), self.room, done, method)


def parser():
    made = cli.stage_parser(__doc__)
    made.add_argument("--directions", type=Path, required=True)
    made.add_argument("--harmful", type=Path, required=True, help="harmful_val.jsonl")
    made.add_argument("--harmless", type=Path, required=True, help="harmless_val.jsonl")
    made.add_argument("--sweep", choices=["screened", "full"], default="screened")
    made.add_argument("--ablation", choices=["span", "sequential"], default="span")
    cli.scoring_flags(made)
    cli.filter_flags(made)
    parts.flags(made).add_argument("--output", type=Path, help="candidate_scores.csv")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
