"""Candidate directions: difference of the mean activations, at every position and layer."""

from pathlib import Path

from refusal import cli
from refusal.artifacts import read_tensors, write_tensors
from refusal.directions import is_zero, mean_difference
from refusal.provenance import spec, stamp


def main(args):
    means, metadata = read_tensors(args.activations)
    directions = mean_difference(means["harmful"], means["harmless"])
    zero = is_zero(directions, means["harmful"], means["harmless"])
    metadata |= {"source": "mean_difference", "zero": zero.tolist()}
    controls = {"shuffled": means["shuffled"]} if "shuffled" in means else {}
    write_tensors(args.output, {"directions": directions, **controls}, metadata)
    inputs = {"activations": args.activations}
    stamp(args.output, spec("directions", {}, inputs), inputs)
    cli.log.info("%d candidates, %d of them zero", zero.size, zero.sum())


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--activations", type=Path, required=True)
    made.add_argument("--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
