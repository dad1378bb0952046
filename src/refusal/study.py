"""The study: config/config.yaml, model and judge files, checked whole and merged, before anything runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from refusal import combinations
from refusal.errors import UserError
from refusal.provenance import ROOT

SPLITS = ("train", "val", "test")
_KINDS = ("harmful", "harmless", "borderline")


@dataclass(frozen=True)
class Study:
    """One model's study.

    name: of the model file; model: that file without its study section; settings: config.yaml with that section laid
    over it; judges: name -> settings, as listed. All mappings are read-only.
    """

    name: str
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    judges: Mapping[str, Mapping[str, Any]]

    @cached_property
    def prompt_files(self) -> Mapping[str, str]:
        """KIND_SPLIT (harmful_train, ...) -> file that it is sampled from."""
        sets = self.settings["prompts"]
        return MappingProxyType(
            {f"{kind}_{split}": sets[kind][split] for kind in _KINDS for split in (sets[kind] or ())}
        )

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Kinds of prompts that are completed and judged."""
        return tuple(kind for kind in _KINDS if f"{kind}_test" in self.prompt_files)


def read_study(config: Mapping[str, Any], name: str, root: Path = ROOT) -> Study:
    """The study of a model, checked.

    config: content of config.yaml, as Snakemake merged it with overlays; name: of a file in config/models.
    Raises: UserError, one line a fault, each with its file and key.
    """
    faults = list(_faults(config, "config", "config/config.yaml"))
    known = names(root / "config" / "models")
    if name not in known:
        raise UserError(f"unknown model '{name}': config/models/ has {', '.join(known)}")
    file = f"config/models/{name}.yaml"
    model = read_yaml(root / file)
    faults += _faults(model, "model", file)
    _refuse(faults)
    overlay = model.pop("study", {}) or {}
    _refuse([f"{file}: study.{key}: the same for all models: set it in config/config.yaml" for key in _of_all(overlay)])
    settings = _merged(config, overlay)
    _refuse(list(_faults(settings, "config", f"{file}: study")))
    judges = {judge: _judge(judge, root) for judge in settings["judges"]}
    return Study(name, _frozen(model), _frozen(settings), _frozen(judges))


def combination_ids(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Checks config.yaml alone, and gives the ids of all combinations, the same for every model.

    Returns: the baseline first, then ablations, controls, additions.
    Raises: UserError, one line a fault.
    """
    _refuse(list(_faults(config, "config", "config/config.yaml")))
    try:
        ablations = combinations.expand(list(config["combinations"]), config["ranking"]["top"])
    except UserError as error:
        raise UserError(f"config/config.yaml: {error}") from None
    controls = config["controls"]
    return (
        combinations.BASELINE,
        *ablations,
        *(f"random-k{size}-s{seed}" for size in controls["sizes"] for seed in range(controls["draws"])),
        *(f"add-{rank}" for rank in config["additions"]),
    )


def names(folder: Path) -> list[str]:
    """Names of the YAML files of a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


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
    _refuse(list(_faults(settings, "judge", str(path))))
    return settings


def schema(kind: str) -> dict[str, Any]:
    """The JSON schema of `config`, `model` or `judge` files."""
    return read_yaml(ROOT / "workflow" / "schemas" / f"{kind}.schema.yaml")


def _judge(name: str, root: Path) -> dict[str, Any]:
    folder = root / "config" / "judges"
    if name not in names(folder):
        raise UserError(f"judges: unknown judge '{name}': config/judges/ has {', '.join(names(folder))}")
    return read_judge(folder / f"{name}.yaml")


def _faults(content: Any, kind: str, where: str) -> Iterator[str]:
    """One line a fault: file, key, what is wrong."""
    for error in sorted(Draft202012Validator(schema(kind)).iter_errors(content), key=lambda e: list(map(str, e.path))):
        yield from _lines(error, where)


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


def _refuse(faults: list[str]) -> None:
    if faults:
        raise UserError("\n".join(dict.fromkeys(faults)))


def _of_all(overlay: Mapping[str, Any]) -> Iterator[str]:
    """Keys of an overlay that decide which files there are, which a rule must know for every model alike."""
    yield from (key for key in ("models", "combinations", "additions", "controls", "datasets", "run") if key in overlay)
    if "top" in (overlay.get("ranking") or {}):
        yield "ranking.top"


def _merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`overlay` laid over `base`, section by section; corpora are replaced whole, since their names are the user's."""
    merged = dict(base)
    for key, value in overlay.items():
        deeper = isinstance(value, dict) and isinstance(base.get(key), dict) and key != "corpora"
        merged[key] = _merged(base[key], value) if deeper else value
    return merged


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(part) for key, part in value.items()})
    if isinstance(value, list):
        return tuple(_frozen(part) for part in value)
    return value
