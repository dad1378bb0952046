"""Filter the candidates and give them ranks. Runs no model."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from refusal import cli
from refusal.artifacts import read_table, read_tensors, write_table, write_tensors
from refusal.directions import cosines
from refusal.filters import Filters
from refusal.identity import layers
from refusal.provenance import spec, stamp
from refusal.ranking import apply_filters, candidate_directions, rank


def main(args):
    filters = Filters(args.max_kl, args.min_induce, args.max_layer_share, layers(args.model))
    table = apply_filters(read_table(args.scores, ("bypass", "induce", "kl", "note")), filters)
    directions = candidate_directions(table, *read_tensors(args.directions))
    conditional = read_table(args.conditional, ("step", "bypass")) if args.conditional else None
    ranked = rank(table, directions, args.mode, args.max_cosine, conditional)
    top = ranked[ranked["rank"].notna()]
    write_table(args.output, ranked)
    places = [
        {"rank": int(row["rank"]), "source": row.source, "position": int(row.position), "layer": int(row.layer)}
        for _, row in top.iterrows()
    ]
    kept = np.ascontiguousarray(directions[list(top.index)])
    write_tensors(args.top_directions, {"directions": kept}, {"candidates": places})
    alike = cosines(kept)
    pairs = [(first, second, alike[first, second]) for first, second in combinations(range(len(kept)), 2)]
    write_table(args.cosines, pd.DataFrame(pairs, columns=["rank", "other", "cosine"]))
    inputs = {"scores": args.scores, "directions": args.directions, "model": args.model}
    if args.conditional:
        inputs["conditional_scores"] = args.conditional
    parameters = {"mode": args.mode, "max_cosine": args.max_cosine, "filters": vars(filters)}
    made = spec("ranking", parameters, inputs)
    for path in (args.output, args.top_directions, args.cosines):
        stamp(path, made, inputs)
    cli.log.info("%d of %d candidates ranked by %s", len(top), len(table), args.mode)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--model", type=Path, required=True, help="model.json of the model step")
    made.add_argument("--scores", type=Path, required=True, help="candidate_scores.csv")
    made.add_argument("--directions", type=Path, required=True)
    made.add_argument("--conditional", type=Path, help="conditional_scores.csv, in that mode")
    made.add_argument("--mode", choices=["score", "diverse", "conditional"], default="score")
    made.add_argument("--max-cosine", type=float, default=0.5, help="in mode diverse")
    cli.filter_flags(made)
    made.add_argument("--output", type=Path, required=True, help="ranking.csv")
    made.add_argument("--top-directions", type=Path, required=True, help="top_directions.safetensors, to write")
    made.add_argument("--cosines", type=Path, required=True, help="cosines.csv, to write: of every two ranks")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
