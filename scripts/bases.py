"""What each combination does: its orthonormal basis, a random basis, or the vector that is added or subtracted."""

from pathlib import Path

from refusal import cli
from refusal.artifacts import write_tensors
from refusal.bases import Ranked
from refusal.combinations import parse
from refusal.errors import UserError
from refusal.provenance import spec, stamp


def main(args):
    if len(args.combinations) != len(args.outputs):
        raise UserError(f"{len(args.combinations)} combinations and {len(args.outputs)} outputs: give as many of each")
    ranked = Ranked(args.top_directions, args.directions, args.ablation, args.seed)
    combinations = [parse(one) for one in args.combinations]
    for combination in combinations:
        try:
            ranked.check(combination)
        except UserError as error:
            raise UserError(
                f"combinations: {error}: lower ranking.top or controls.sizes, name other ranks, or loosen the filters"
                " of `ranking`"
            ) from None
    made = [ranked.tensors(combination) for combination in combinations]
    inputs = {"top_directions": args.top_directions} | ({"directions": args.directions} if args.directions else {})
    for combination, (arrays, facts), output in zip(combinations, made, args.outputs, strict=True):
        write_tensors(output, arrays, facts)
        parameters = {"combination": combination.id, "ablation": args.ablation, "seed": args.seed}
        stamp(output, spec("bases", parameters, inputs), inputs)


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
