"""A new file of config/models/: each key with what the schema says of it above, checked as every study is."""

import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from refusal.artifacts import atomic
from refusal.checking import branch, find_faults, read_yaml, refuse
from refusal.errors import UserError
from refusal.study import read_study

_COLUMNS = 120


def write_model(name: str, values: Mapping[str, Any], root: Path, notes: Mapping[str, str] | None = None) -> Path:
    """Write config/models/NAME.yaml, and check it with the study in config/config.yaml.

    values: the file's keys; notes: key -> what to say of it beside the schema's words.
    Raises: UserError, and nothing is written: no name, a file that is there, a fault of the file or the study.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UserError(f"{name!r} is no name for a model: use letters, digits, and _ . - after the first")
    file = Path("config", "models", f"{name}.yaml")
    if (root / file).exists():
        raise UserError(f"{file}: there already: choose another name, or delete it first")
    refuse(list(find_faults(dict(values), "model", str(file))))
    with atomic(root / file) as part:
        part.write_text(rendered(values, notes or {}))
    try:
        read_study(read_yaml(root / "config" / "config.yaml"), name, root)
    except UserError:
        (root / file).unlink()
        raise
    return file


def rendered(values: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    """The file's text: keys in the schema's order."""
    described, lines = branch("model", "source", values["source"])["properties"], []
    for key in (key for key in described if key in values):
        said = f"{described[key]['description']} {notes.get(key, '')}".strip()
        lines += textwrap.wrap(said, _COLUMNS, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        # JSON is YAML, and quotes what would be read as another type
        value = values[key]
        plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value) and yaml.safe_load(value) == value
        lines.append(f"{key}: {value if plain else json.dumps(value)}")
    return "\n".join(lines) + "\n"
