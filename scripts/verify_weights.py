"""Show that ablation by hooks equals ablation by weights: the same logits from a model whose weights are projected.

It verifies and saves no model. In fp64 (8 bytes a weight), so that a difference is one of method and not of rounding.
"""

from pathlib import Path

from refusal import cli
from refusal.artifacts import read_jsonl, read_tensors, write_table
from refusal.combinations import CONTROLS
from refusal.errors import UserError

COLUMNS = ("model", "basis", "rows", "difference", "effect", "leftover", "matrices")


def main(args):
    if (args.model is None) == (args.families is None):
        raise UserError("give --model with --bases and --prompts, or --families: one of them")
    if args.model and not (args.bases and args.prompts):
        raise UserError("--model needs --bases (basis.safetensors of combinations) and --prompts (a prompt file)")
    found = []
    for row in _of_families(args) if args.model is None else _of_model(args):
        found.append(row)
        cli.log.info(
            "%s, %s: logits differ by %.1e (ablation changes them by %.3g), largest cosine left %.1e%s",
            *(row[name] for name in ("model", "basis", "difference", "effect", "leftover")),
            f", a matrix behind {row['matrices']} norms" if row["matrices"] else "",
        )
    if args.output:
        import pandas as pd

        write_table(args.output, pd.DataFrame(found, columns=COLUMNS))
    # a writer that was not found is missing on both sides, which are then equal: what is left in the stream shows it
    for name, what in (("difference", "hooks and weights differ by"), ("leftover", "the stream keeps a cosine of")):
        # written so that a NaN is a failure too
        if apart := [row for row in found if not row[name] <= args.tolerance]:
            raise UserError(
                f"{apart[0]['model']}, {apart[0]['basis']}: {what} {apart[0][name]:.2g} > {args.tolerance:g}"
                f" ({len(apart)} of {len(found)}): ablation of this model is not what it says"
            )


def _of_families(args):
    """A random basis of two directions in a small random model of each family."""
    import torch

    from refusal.directions import random_directions, span_basis
    from refusal.model.families import find_stream
    from refusal.model.specimens import FAMILIES, SIZES, specimen

    if unknown := sorted(set(args.families) - set(FAMILIES)):
        raise UserError(f"--families: unknown family '{unknown[0]}': known are {', '.join(FAMILIES)}")
    basis = span_basis(random_directions(2, SIZES["hidden_size"], 0))[0]
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, SIZES["vocab_size"], (length,), generator=generator).tolist() for length in (12, 5, 20)]
    for family in args.families or FAMILIES:
        model = specimen(family)
        yield _compared(family, "random", model, find_stream(model, rows[1]), basis, rows)


def _of_model(args):
    from refusal.model.loading import load

    prompts = read_jsonl(args.prompts, ("id", "instruction"))[: args.rows]
    for path in args.bases:
        tensors, facts = read_tensors(path)
        if facts.get("kind") not in ("ablation", *CONTROLS) or facts["ablation"] != "span":
            raise UserError(
                f"{path}: no basis of a span: give those of ablations or controls, made with `ablation: span`"
            )
        chat = load(args.model, args.device_map)  # again for each: the last one's weights are projected
        rows = chat.encode(prompts)
        yield _compared(args.model.parent.name, path.parent.name, chat.model, chat.stream, tensors["basis"], rows)


def _compared(model_name, basis_name, model, stream, basis, rows):
    from refusal.model.weights import agreement

    found = agreement(model, stream, basis, rows)
    return {
        "model": model_name,
        "basis": basis_name,
        "rows": len(rows),
        "difference": found.difference,
        "effect": found.effect,
        "leftover": found.leftover,
        "matrices": len(found.matrices),
    }


def parser():
    made = cli.parser(__doc__)
    made.add_argument("--families", nargs="*", metavar="NAME", help="small random models of these; without names, all")
    made.add_argument("--model", type=Path, help="model.json of the model step")
    made.add_argument("--bases", type=Path, nargs="+", help="COMBINATION/basis.safetensors")
    made.add_argument("--prompts", type=Path, help="prompts whose logits are compared, such as harmful_val.jsonl")
    made.add_argument("--rows", type=int, default=8, help="so many of the prompts")
    made.add_argument("--device-map", default="auto", help="auto, or a JSON file: module name -> device")
    made.add_argument("--tolerance", type=float, default=1e-5, help="largest difference of two logits, and cosine left")
    made.add_argument("--output", type=Path, help="also write the table to this CSV")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
