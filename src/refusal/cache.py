"""Finished items by spec: what is pending is known before torch is imported, and a killed stage resumes.

cache/STAGE/KEY/ holds `data` and `item.json`. An item is there whole or not at all. The cache is safe to
delete, answers/ aside (`refusal.answers`).
"""

import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from refusal.artifacts import copy, digest, read_json, read_tensors, sha256, write_json
from refusal.errors import UserError
from refusal.parts import WHOLE, Part, share
from refusal.provenance import Spec, stamp

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("refusal")

_DAY = 86400.0

ANSWERS = "answers"
"""The folder of what models that judge have answered (`refusal.answers`): paid for, so it is never pruned."""

Run = Mapping[str, Any]
Name = TypeVar("Name")


def narrowed(base: Spec, **parameters: Any) -> Spec:
    """A spec of one item of a stage: the base's, with what tells this item apart."""
    return replace(base, parameters={**base.parameters, **parameters})


def content(path: Path) -> str:
    """Hash of what a file holds, for a spec; of tensors: the arrays and what is done with them, no names or ranks.

    So a combination whose directions stay the same is not computed again when its ranks change.
    """
    if path.suffix != ".safetensors":
        return sha256(path)
    return held(*read_tensors(path))


def held(tensors: "Mapping[str, np.ndarray]", metadata: Mapping[str, Any]) -> str:
    """The same of tensors that no file holds."""
    shapes = {name: [array.shape, hashlib.sha256(array.tobytes()).hexdigest()] for name, array in tensors.items()}
    return digest([shapes, {key: metadata.get(key) for key in ("kind", "ablation", "layer")}])


def pending(root: Path, specs: Mapping[Name, Spec], part: Part = WHOLE) -> dict[Name, Spec]:
    """Those of the named specs that the cache does not hold; two names with equal specs count once.

    A damaged item is removed and pending again. Says how many there are.
    part: of the items, whether the cache holds them or not: parts of several jobs never meet.
    """
    distinct = {wanted.key: name for name, wanted in reversed(specs.items())}
    names = share(list(reversed(distinct.values())), part)
    todo = {name: specs[name] for name in names if not _whole(_folder(root, specs[name]))}
    if names:
        log.info("%s: %d of %d items to compute", specs[names[0]].stage, len(todo), len(names))
    return todo


def store(root: Path, made: Spec, write: Callable[[Path], None], run: Run) -> None:
    """Keep a finished item: `write` is given a path and writes the item's data there."""
    folder = _folder(root, made)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        write(temporary / "data")
        write_json(
            temporary / "item.json", {"spec": asdict(made), "sha256": sha256(temporary / "data"), "run": dict(run)}
        )
        try:
            temporary.rename(folder)
        except OSError:
            if not _whole(folder):  # else another process finished the same item first
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(root: Path, made: Spec) -> tuple[Path, Run]:
    """Where an item's data stands, and how it was run.

    Raises: UserError, not there.
    """
    folder = _folder(root, made)
    if not _whole(folder):
        raise UserError(f"{folder}: the cached item went missing while the step ran: run it again")
    return folder / "data", read_json(folder / "item.json")["run"]


def publish(root: Path, made: Spec, output: Path, inputs: Mapping[str, Path]) -> None:
    """Copy an item to its place in results/, with its spec beside it."""
    data, run = load(root, made)
    copy(data, output)
    stamp(output, made, inputs, run | {"items": [made.key]})


def sizes(root: Path) -> dict[str, tuple[int, int]]:
    """Per stage: number of items and bytes."""
    found = {}
    for stage in sorted(path for path in root.glob("*") if path.is_dir()):
        items = list(stage.iterdir())
        found[stage.name] = (len(items), sum(file.stat().st_size for file in stage.rglob("*") if file.is_file()))
    return found


def prune(root: Path, results: Path) -> int:
    """Delete the items that no file under `results` was made from, answers of judges aside; returns how many."""
    used = {key for record in results.rglob("*.spec.json") for key in read_json(record).get("run", {}).get("items", ())}
    removed = 0
    for folder in root.glob("*/*"):
        if folder.parent.name != ANSWERS and folder.name not in used and not _being_written(folder):
            shutil.rmtree(folder)
            removed += 1
    return removed


def _being_written(folder: Path) -> bool:
    """Whether a running stage may still need this folder; after a day it is what a killed one left."""
    return folder.name.startswith(".") and time.time() - folder.stat().st_mtime < _DAY


def _folder(root: Path, made: Spec) -> Path:
    return root / made.stage / made.key


def _whole(folder: Path) -> bool:
    """Whether an item is there with the content it was stored with; removes a damaged one."""
    if not folder.exists():
        return False
    try:
        if read_json(folder / "item.json")["sha256"] == sha256(folder / "data"):
            return True
    except (UserError, KeyError, FileNotFoundError):
        log.warning("%s: unreadable", folder)
    log.warning("%s: a damaged item, computed again", folder)
    shutil.rmtree(folder)
    return False
