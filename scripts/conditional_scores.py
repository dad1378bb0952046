"""Bypass of each candidate while those already taken are ablated too: the sweep of ranking mode `conditional`.

Step 0 is the plain bypass; each step takes the lowest, and the next scores what is left.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from refusal import cache, cli
from refusal.artifacts import read_json, read_jsonl, read_table, read_tensors, write_json, write_table
from refusal.filters import Filters
from refusal.identity import layers, scoring_key
from refusal.provenance import spec, stamp
from refusal.ranking import KEYS, apply_filters, best_first, candidate_directions


def main(args):
    filters = Filters(args.max_kl, args.min_induce, args.max_layer_share, layers(args.model))
    table = apply_filters(read_table(args.scores, ("bypass", "induce", "kl", "note")), filters)
    directions = candidate_directions(table, *read_tensors(args.directions))
    parameters = {"model": scoring_key(args.model), "ablation": args.ablation, "epsilon": args.epsilon_refusal}
    base = spec("conditional_scores", parameters, {"harmful": args.harmful})
    left = table[table.kept]
    taken, steps, keys, runner, run = [], [], [], None, {}
    for step in range(min(args.steps, len(left))):
        if step:
            specs = {str(index): _item(base, directions[[*taken, index]]) for index in left.index}
            if todo := cache.pending(args.cache, specs):
                if runner is None:
                    from refusal.model.memory import opened

                    runner = opened(args)
                _score(*runner, todo, table, directions, taken, args)
            found = {index: cache.load(args.cache, specs[str(index)]) for index in left.index}
            left = left.assign(bypass=[read_json(found[index][0]) for index in left.index])
            keys += [one.key for one in specs.values()]
            run = found[left.index[0]][1]
        steps.append(left.assign(step=step)[["step", *KEYS, "bypass"]])
        taken.append(best_first(left)[0])
        left = left.drop(taken[-1])
    write_table(args.output, pd.concat(steps))
    inputs = {"model": args.model, "scores": args.scores, "directions": args.directions, "harmful": args.harmful}
    stamp(args.output, base, inputs, run | {"items": keys})


def _item(base, directions):
    return cache.narrowed(base, directions=hashlib.sha256(np.ascontiguousarray(directions).tobytes()).hexdigest())


def _score(chat, room, todo, table, directions, taken, args):
    from refusal.model.scores import Epsilon
    from refusal.model.sweep import Method, bypass

    rows = chat.encode(read_jsonl(args.harmful))

    def done(name, value):
        cache.store(args.cache, todo[name], lambda path: write_json(path, value), chat.run)

    candidates = {name: (directions[int(name)], int(table.layer[int(name)])) for name in todo}
    method = Method(args.ablation, Epsilon(refusal=args.epsilon_refusal))
    bypass(chat, candidates, rows, room, done, method, directions[taken])


def parser():
    made = cli.stage_parser(__doc__)
    made.add_argument("--scores", type=Path, required=True, help="candidate_scores.csv")
    made.add_argument("--directions", type=Path, required=True)
    made.add_argument("--harmful", type=Path, required=True, help="harmful_val.jsonl")
    made.add_argument("--steps", type=int, default=5, help="ranks that are needed")
    made.add_argument("--ablation", choices=["span", "sequential"], default="span")
    cli.scoring_flags(made)
    cli.filter_flags(made)
    made.add_argument("--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
