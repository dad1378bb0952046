"""The names of combinations: "0-2" <-> ranks, controls and additions beside them.

A combination id is one of
    none             the unablated baseline
    0, 0-2, 1-3-4    ablation of the directions of these ranks
    random-k2-s0     control: ablation of 2 random directions, draw 0
    shuffled-k2-s0   control: ablation of 2 mean differences of shuffled labels, at the places of ranks 0 and 1, draw 0
    add-0            the direction of rank 0 added; on harmless prompts it shows refusal induced
    sub-0            the same direction subtracted; on harmful prompts it shows refusal bypassed at one layer
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations as choose
from pathlib import Path
from typing import Literal

from refusal.errors import UserError

PATTERN = r"none|\d+(?:-\d+)*|(?:random|shuffled)-k\d+-s\d+|(?:add|sub)-\d+"
"""Of any combination id, for wildcards."""

BASELINE = "none"

CONTROLS = ("random", "shuffled")
"""Kinds of ablations that show what directions do which no ranking chose."""


@dataclass(frozen=True)
class Combination:
    """What an id says.

    kind: what is done to the residual stream; ranks: ascending, of an ablation, addition or subtraction, and whose
    places a control of shuffled labels takes; size: number of directions; seed: of a control, its draw.
    """

    id: str
    kind: Literal["none", "ablation", "random", "shuffled", "addition", "subtraction"]
    ranks: tuple[int, ...] = ()
    size: int = 0
    seed: int = 0


def parse(text: str) -> Combination:
    """Read an id; ranks in any order are brought into ascending order ("2-0" is "0-2").

    Raises: UserError, not an id, or a rank given twice.
    """
    if not re.fullmatch(PATTERN, text):
        raise UserError(
            f'"{text}" is no combination: write ranks joined by "-" (0, 0-2), `none`, `random-k2-s0`,'
            " `shuffled-k2-s0`, `add-0` or `sub-0`"
        )
    if text == BASELINE:
        return Combination(text, "none")
    if text.startswith(CONTROLS):
        kind, *_ = text.split("-")
        size, seed = (int(part) for part in re.findall(r"\d+", text))
        if size == 0:
            raise UserError(f'"{text}": a control needs at least one direction ({kind}-k1-s0)')
        return Combination(text, kind, tuple(range(size)) if kind == "shuffled" else (), size, seed)
    if text.startswith(("add-", "sub-")):
        kind = "addition" if text.startswith("add-") else "subtraction"
        return Combination(text, kind, ranks=(int(text[4:]),), size=1)
    ranks = tuple(sorted(int(part) for part in text.split("-")))
    if len(set(ranks)) < len(ranks):
        raise UserError(f'"{text}" names a rank twice: ranks of a combination are distinct')
    return Combination("-".join(map(str, ranks)), "ablation", ranks=ranks, size=len(ranks))


def expand(entries: list[str], top: int) -> list[str]:
    """Ids that a study's list stands for, in order, each once.

    entries: ids of ablations, or `singles`, `pairs`, `triples` of the ranks 0..top-1.
    Raises: UserError, an entry that is neither.
    """
    sizes = {"singles": 1, "pairs": 2, "triples": 3}
    ids: dict[str, None] = {}
    for number, entry in enumerate(entries):
        if entry in sizes:
            ids.update(dict.fromkeys("-".join(map(str, ranks)) for ranks in choose(range(top), sizes[entry])))
            continue
        try:
            parsed = parse(entry)
        except UserError as error:
            raise UserError(f"combinations[{number}]: {error}, or one of {', '.join(sizes)}") from None
        if parsed.kind != "ablation":
            raise UserError(
                f'combinations[{number}]: "{entry}" is made by `controls`, `additions` or `subtractions`, and not'
                " listed here"
            )
        ids[parsed.id] = None
    return list(ids)


def by_folder(paths: Iterable[Path], depth: int = 1) -> dict[str, Path]:
    """Combination id -> path, read off the folder `depth` above each file (COMBINATION/basis.safetensors).

    Raises: UserError, a path that stands in no combination's folder, or two for one.
    """
    found: dict[str, Path] = {}
    for path in paths:
        name = parse(path.parts[-1 - depth]).id
        if name in found:
            raise UserError(f"{path}: combination {name} is given twice ({found[name]})")
        found[name] = path
    return found
