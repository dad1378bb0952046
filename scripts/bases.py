"""What each combination does: its orthonormal basis, a random basis, or the vector that is added or subtracted."""

from pathlib import Path

from refusal import cli
from refusal.artifacts import read_tensors, write_tensors
from refusal.combinations import parse
from refusal.directions import intervention_tensors
from refusal.errors import UserError
from refusal.provenance import spec, stamp


def main(args):
    if len(args.combinations) != len(args.outputs):
        raise UserError(f"{len(args.combinations)} combinations and {len(args.outputs)} outputs: give as many of each")
    tensors, metadata = read_tensors(args.top_directions)
    candidates, combinations = metadata["candidates"], [parse(one) for one in args.combinations]
    for combination in combinations:
        if combination.ranks and max(combination.ranks) >= len(candidates):
            raise UserError(
                f'combinations: "{combination.id}": {args.top_directions} keeps {len(candidates)} candidates (ranks'
                f" 0-{len(candidates) - 1}): lower ranking.top, name other ranks, or loosen the filters of `ranking`"
            )
    inputs = {"top_directions": args.top_directions} | ({"directions": args.directions} if args.directions else {})
    shuffled = _shuffled(args.directions, combinations, candidates)
    for combination, output in zip(combinations, args.outputs, strict=True):
        arrays, facts = intervention_tensors(combination, tensors["directions"], args.ablation, args.seed, shuffled)
        source = {"source": "shuffled_labels"} if combination.kind == "shuffled" else {}
        facts["candidates"] = [candidates[rank] | source for rank in combination.ranks]
        if facts["kind"] == "addition":
            facts["layer"] = facts["candidates"][0]["layer"]
        write_tensors(output, arrays, facts)
        parameters = {"combination": combination.id, "ablation": args.ablation, "seed": args.seed}
        stamp(output, spec("bases", parameters, inputs), inputs)


def _shuffled(path, combinations, candidates):
    """[draw, rank, d]: mean differences with shuffled labels at the ranks' places; None where no control asks."""
    draws = {one.seed for one in combinations if one.kind == "shuffled"}
    if not draws:
        return None
    drawn = read_tensors(path)[0].get("shuffled", ()) if path else ()
    if len(drawn) <= max(draws):
        raise UserError(
            f"{path or '--directions'}: holds {len(drawn)} draws of shuffled labels, and {1 + max(draws)} are asked"
            " for: run the activations step with as many (controls.shuffled_draws)"
        )
    # positions are below 0, the last at the end
    return drawn[:, [one["position"] for one in candidates], [one["layer"] for one in candidates]]


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--top-directions", type=Path, required=True)
    made.add_argument(
        "--combinations", nargs="+", required=True, help="ids: none 0 0-2 random-k2-s0 shuffled-k2-s0 add-0"
    )
    made.add_argument("--outputs", type=Path, nargs="+", required=True, help="a file per combination, in that order")
    made.add_argument("--directions", type=Path, help="directions.safetensors, for controls of shuffled labels")
    made.add_argument("--ablation", choices=["span", "sequential"], default="span")
    made.add_argument("--seed", type=int, default=42, help="of the random controls")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
