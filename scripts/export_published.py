"""Write completions as the published scripts (andyrdt/refusal_direction) do, for their evaluation scripts or others'.

The baseline, the ablation of rank 0, `add-0` on harmless prompts and `sub-0` on harmful ones go where a run of the
published scripts keeps them, OUTPUT_DIR/completions/SET_{baseline,ablation,actadd}_completions.json. Everything else
goes to OUTPUT_DIR/COMBINATION/completions/, so that nothing passes for what it is not. Reasoning stands before its
answer, and the space around both is left out, as published. A file that is there with another content is never
overwritten.
"""

import re
from pathlib import Path

from refusal import cli
from refusal.artifacts import atomic, read_jsonl
from refusal.errors import UserError
from refusal.provenance import verify
from refusal.published import runs as published


def main(args):
    if not re.fullmatch(r"[\w.-]+", args.harmful) or args.harmful in ("harmless", "borderline"):
        raise UserError(f"--harmful {args.harmful!r}: give letters, digits and _ . - and no other set's name")
    found = sorted((args.results / "combinations").glob("*/completions/*.jsonl"))
    if not found:
        raise UserError(f"{args.results}: no combinations/*/completions/*.jsonl: name the folder of a study's results")
    verify(found)
    contents = {}
    for path in found:
        place = args.output_dir / published.place_of(path.parts[-3], path.stem, args.harmful)
        contents[place] = published.completions_json(read_jsonl(path, (*published.FIELDS, "reasoning"))).encode()
    # before anything is written: all files or none
    for place, content in contents.items():
        if place.exists() and place.read_bytes() != content:
            raise UserError(f"{place}: is there with another content: remove it, or choose another --output-dir")
    for place, content in contents.items():
        with atomic(place) as temporary:
            temporary.write_bytes(content)
    cli.log.info("%d files of completions in %s", len(contents), args.output_dir)


def parser():
    made = cli.parser(__doc__)
    made.add_argument("results", type=Path, metavar="RESULTS", help="results/NAME, with combinations/*/completions/")
    made.add_argument("--harmful", default="harmful", help="SET in the names of harmful completions (jailbreakbench)")
    made.add_argument("--output-dir", type=Path, required=True, help="the run folder to write to")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
