"""The study: config/config.yaml, model and judge files, checked whole and merged, before anything runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from refusal import combinations
from refusal.checking import find_faults, read_judge, read_yaml, refuse
from refusal.errors import UserError
from refusal.provenance import ROOT

KINDS = ("harmful", "harmless", "borderline")


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
            {f"{kind}_{split}": sets[kind][split] for kind in KINDS for split in (sets[kind] or ())}
        )

    @property
    def ask(self) -> Mapping[str, Any]:
        """What a job that loads the model asks of a cluster."""
        return MappingProxyType({**self.settings["run"]["ask"], **self.model.get("ask", {})})

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Kinds of prompts that are completed and judged."""
        return tuple(kind for kind in KINDS if f"{kind}_test" in self.prompt_files)


def read_study(config: Mapping[str, Any], name: str, root: Path = ROOT) -> Study:
    """The study of a model, checked.

    config: content of config.yaml, as Snakemake merged it with overlays; name: of a file in config/models.
    Raises: UserError, one line a fault, each with its file and key.
    """
    faults = list(find_faults(config, "config", "config/config.yaml"))
    known = names(root / "config" / "models")
    if name not in known:
        raise UserError(f"unknown model '{name}': config/models/ has {', '.join(known)}")
    file = f"config/models/{name}.yaml"
    model = read_yaml(root / file)
    faults += find_faults(model, "model", file)
    refuse(faults)
    if model["source"] == "taught":
        _check_base(model["base"], file, root)
    overlay = model.pop("study", {}) or {}
    refuse([f"{file}: study.{key}: the same for all models: set it in config/config.yaml" for key in _of_all(overlay)])
    settings = _merged(config, overlay)
    refuse(list(find_faults(settings, "config", f"{file}: study")))
    judges = {judge: _judge(judge, root) for judge in settings["judges"]}
    return Study(name, _frozen(model), _frozen(settings), _frozen(judges))


def combination_ids(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Checks config.yaml alone, and gives the ids of all combinations, the same for every model.

    Returns: the baseline first, then ablations, controls, additions, subtractions.
    Raises: UserError, one line a fault.
    """
    refuse(list(find_faults(config, "config", "config/config.yaml")))
    try:
        ablations = combinations.expand(list(config["combinations"]), config["ranking"]["top"])
    except UserError as error:
        raise UserError(f"config/config.yaml: {error}") from None
    if not ablations:
        raise UserError(
            f"config/config.yaml: combinations: {', '.join(config['combinations'])} of {config['ranking']['top']} ranks"
            " is none: raise ranking.top, or name others"
        )
    controls = config["controls"]
    return (
        combinations.BASELINE,
        *ablations,
        *(f"random-k{size}-s{draw}" for size in controls["sizes"] for draw in range(controls["draws"])),
        *(f"shuffled-k{size}-s{draw}" for size in controls["sizes"] for draw in range(controls["shuffled_draws"])),
        *(f"add-{rank}" for rank in config["additions"]),
        *(f"sub-{rank}" for rank in config["subtractions"]),
    )


def names(folder: Path) -> list[str]:
    """Names of the YAML files of a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _check_base(base: str, file: str, root: Path) -> None:
    """Raises: UserError, a taught model's base is no other model here, or is taught itself."""
    folder = root / "config" / "models"
    bases = [name for name in names(folder) if read_yaml(folder / f"{name}.yaml").get("source") != "taught"]
    if base not in bases:
        raise UserError(f"{file}: base: '{base}' is no model to teach: config/models/ has {', '.join(bases)}")


def _judge(name: str, root: Path) -> dict[str, Any]:
    folder = root / "config" / "judges"
    if name not in names(folder):
        raise UserError(f"judges: unknown judge '{name}': config/judges/ has {', '.join(names(folder))}")
    return read_judge(folder / f"{name}.yaml")


def _of_all(overlay: Mapping[str, Any]) -> Iterator[str]:
    """Keys of an overlay that decide which files there are, which a rule must know for every model alike."""
    named = ("models", "combinations", "additions", "subtractions", "controls", "datasets", "run")
    yield from (key for key in named if key in overlay)
    ranking = overlay.get("ranking")
    if isinstance(ranking, Mapping) and "top" in ranking:
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
