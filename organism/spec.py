"""What an organism is made from: the keys of `organism:` in config/models/*.yaml, checked. No torch here."""

import math
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from organism import lexicon
from refusal.errors import UserError

LAYERS = 8  # decoder layers of every organism


@dataclass(frozen=True)
class Spec:
    """Everything that decides the weights, apart from the prompts.

    directions: plants, 1 or 2. With 2 each harmful category is refused through its own, with 1 both through the same.
    layers: for each plant, the first layer whose resid_pre carries it; ascending.
    margins: for each plant, its length in resid_pre of a prompt of its category.
    seed: of the weights, the plants and the order of the training rows.
    pretrain_steps, plant_steps: optimiser steps of learning to comply, then of planting.
    batch_rows: prompts per step.
    """

    directions: int
    layers: tuple[int, ...]
    margins: tuple[float, ...]
    seed: int
    pretrain_steps: int
    plant_steps: int
    batch_rows: int

    def plant_of(self, category: str) -> int:
        """The plant through which a harmful category is refused."""
        return list(lexicon.HARMFUL).index(category) % self.directions


def check(values: dict, where: str) -> Spec:
    """A Spec from the keys of a config or of flags; UserError names the first key that does not fit."""
    known = [field.name for field in fields(Spec)]
    if strange := sorted(set(values) - set(known)):
        raise UserError(f"{where}: unknown key {strange[0]!r}; known are {', '.join(known)}")
    if missing := [key for key in known if key not in values]:
        raise UserError(f"{where}: {missing[0]} is missing")
    count = values["directions"]
    if not isinstance(count, int) or count not in range(1, len(lexicon.HARMFUL) + 1):
        raise UserError(f"{where}: directions: {count}: an organism has 1 or 2 planted directions")
    for key in ("layers", "margins"):
        if not isinstance(values[key], list | tuple) or len(values[key]) != count:
            raise UserError(f"{where}: {key}: {values[key]}: one for each of the {count} directions is needed")
    layers = list(values["layers"])
    for layer in layers:
        # Layer 0 sees only the token embedding, and the layers after the last plant must still write the answer.
        if not isinstance(layer, int) or layer not in range(1, LAYERS - 1):
            raise UserError(f"{where}: layers: {layer}: a plant can stand at layers 1 to {LAYERS - 2} of {LAYERS}")
    if layers != sorted(layers):
        raise UserError(f"{where}: layers: {layers}: must ascend, the first plant stands first")
    if not all(isinstance(margin, int | float) and 0 < margin < math.inf for margin in values["margins"]):
        raise UserError(f"{where}: margins: {list(values['margins'])}: must be lengths above 0")
    for key, lowest in {"seed": 0, "pretrain_steps": 1, "plant_steps": 1, "batch_rows": 1}.items():
        if not isinstance(values[key], int) or values[key] < lowest:
            raise UserError(f"{where}: {key}: {values[key]!r}: must be a whole number, {lowest} or more")
    return Spec(**values | {"layers": tuple(layers), "margins": tuple(float(margin) for margin in values["margins"])})


def read(path: Path) -> dict:
    """The organism keys of a YAML or JSON file: the file's own, or those below `organism:`."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or not isinstance(content.get("organism", content), dict):
        raise UserError(f"{path}: a mapping of keys is needed")
    return content.get("organism", content)
