"""YAML files against their schemas: every fault in one line with its file and key, all of them at once."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from refusal.errors import UserError
from refusal.provenance import ROOT


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises: UserError, missing, malformed (with the line), or no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold keys and values")
    return content


def read_judge(path: Path) -> dict[str, Any]:
    """Settings of a judge's file, checked.

    Raises: UserError, one line a fault.
    """
    settings = read_yaml(path)
    refuse(list(find_faults(settings, "judge", str(path))))
    return settings


def refuse(found: list[str]) -> None:
    """Raise all faults together, each once, a line each; none passes."""
    if found:
        raise UserError("\n".join(dict.fromkeys(found)))


def find_faults(content: Any, kind: str, where: str) -> Iterator[str]:
    """One line a fault: file, key, what is wrong."""
    for error in sorted(Draft202012Validator(schema(kind)).iter_errors(content), key=lambda e: list(map(str, e.path))):
        yield from _lines(error, where)


@lru_cache
def schema(kind: str) -> dict[str, Any]:
    """The JSON schema of `config`, `model` or `judge` files."""
    return read_yaml(ROOT / "workflow" / "schemas" / f"{kind}.schema.yaml")


def branch(kind: str, key: str, value: str) -> dict[str, Any]:
    """What the schema of models or judges says of one of their kinds: branch("model", "source", "hub")."""
    return next(one["then"] for one in schema(kind)["allOf"] if one["if"]["properties"][key]["const"] == value)


def _lines(error: Any, where: str) -> Iterator[str]:
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    prefix = f"{where}: {key}: " if key else f"{where}: "
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        for name in sorted(set(error.instance) - set(known)):
            yield f"{prefix}unknown key `{name}`; known keys are {', '.join(known)}"
    elif error.validator in ("anyOf", "oneOf") and error.context:
        # the branch that fits best speaks: the one whose fault lies deepest
        best = max(error.context, key=lambda e: (len(e.path), e.validator != "type"))
        yield from _lines(best, where)
    elif error.validator == "required":
        yield f"{prefix}{error.message.replace(' is a required property', ' is missing').replace(chr(39), '`')}"
    elif error.validator == "enum":
        yield f"{prefix}{error.instance!r} is not one of {', '.join(map(str, error.validator_value))}"
    else:
        yield f"{prefix}{error.message}"
