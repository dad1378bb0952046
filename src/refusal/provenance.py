"""What a file was made from: the code's version, a spec beside every file, and the check that files fit together."""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from refusal.artifacts import digest, read_json, sha256, write_json
from refusal.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = {"refusal": ROOT / "src" / "refusal", "organism": ROOT / "organism", "teaching": ROOT / "teaching"}
_MANNER = {_PACKAGES["refusal"] / name for name in ("cache.py", "cli.py", "errors.py", "parts.py", "provenance.py")}
"""How a stage is started, what it says, where its results are kept: no result depends on it."""

_LIBRARIES = ("torch", "transformers", "numpy")


@dataclass(frozen=True)
class Spec:
    """All that decides an item's content: equal specs give equal bytes on one machine.

    inputs: role -> hash of that input's content.
    """

    stage: str
    code: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its hash: the item's name in the cache."""
        return digest(asdict(self))


def spec(stage: str, parameters: Mapping[str, Any], inputs: Mapping[str, Path]) -> Spec:
    """The spec of a stage of this code version over these files."""
    return Spec(stage, code_version(stage), dict(parameters), {role: sha256(path) for role, path in inputs.items()})


@lru_cache
def code_version(stage: str) -> str:
    """Hash of the syntax trees of scripts/STAGE.py and of all it imports from this repository.

    Comments, docstrings and layout do not count, nor how stages are started, speak and keep results. Imports inside
    functions do.
    Raises: UserError, no such script.
    """
    script = ROOT / "scripts" / f"{stage}.py"
    if not script.exists():
        raise UserError(f"scripts/{stage}.py: no such stage")
    files, waiting = {script}, [script]
    while waiting:
        for found in _read(waiting.pop())[0] - files:
            files.add(found)
            waiting.append(found)
    return digest({str(path.relative_to(ROOT)): _read(path)[1] for path in files - _MANNER})[:16]


def versions() -> dict[str, str]:
    """Versions of the libraries whose numerics a result depends on."""
    return {name: metadata.version(name) for name in _LIBRARIES}


def stamp(path: Path, made: Spec, inputs: Mapping[str, Path], run: Mapping[str, Any] | None = None) -> None:
    """Write `path`.spec.json: the spec, the files it was made from, its own hash, and how it was run.

    run: what does not decide the content but may explain a difference (dtype, device, library versions).
    """
    write_json(
        sidecar(path),
        {
            "spec": made.key,
            "stage": made.stage,
            "code": made.code,
            "parameters": made.parameters,
            "inputs": {role: {"path": _relative(file), "sha256": sha256(file)} for role, file in inputs.items()},
            "sha256": sha256(path),
            "run": dict(run or {}),
        },
    )


def sidecar(path: Path) -> Path:
    """Where the spec of a file stands."""
    return path.with_name(f"{path.name}.spec.json")


def verify(paths: Iterable[Path]) -> None:
    """Check that each file is what its spec says, and so is all that it was made from, back to the prompts.

    Raises: UserError that names the first file that does not fit.
    """
    hashes: dict[Path, str] = {}
    seen: set[Path] = set()

    def current(path: Path) -> str:
        if path not in hashes:
            if not path.exists():
                raise UserError(f"{_relative(path)}: missing, and results were made from it: run snakemake again")
            hashes[path] = sha256(path)
        return hashes[path]

    waiting = [Path(path) for path in paths]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if not sidecar(path).exists():
            continue  # a source: data of the project, or a file of the user's
        record = read_json(sidecar(path))
        if current(path) != record["sha256"]:
            raise UserError(
                f"{_relative(path)}: changed since the {record['stage']} step wrote it:"
                f" run snakemake with --forcerun {record['stage']}"
            )
        for used in record["inputs"].values():
            source = ROOT / used["path"]
            if current(source) != used["sha256"]:
                raise UserError(
                    f"{_relative(path)}: made from an older {used['path']} than the one there now:"
                    f" run snakemake with --forcerun {record['stage']}"
                )
            waiting.append(source)


def lineage(paths: Iterable[Path]) -> dict[Path, Any]:
    """Each file and all that it was made from, back to the sources -> its record; of a source, which has none, None."""
    found: dict[Path, Any] = {}
    waiting = [Path(path) for path in paths]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = read_json(sidecar(path)) if sidecar(path).exists() else None
            waiting += [ROOT / used["path"] for used in (found[path] or {"inputs": {}})["inputs"].values()]
    return found


def orphans(results: Path) -> list[Path]:
    """Files below `results` that were made from one below it that is gone, directly or through others."""
    results = results.resolve()
    made_from: dict[Path, set[Path]] = {}
    for record in results.rglob("*.spec.json"):
        path = record.with_name(record.name.removesuffix(".spec.json"))
        sources = {ROOT / used["path"] for used in read_json(record)["inputs"].values()}
        if path.exists():
            made_from[path] = {source for source in sources if source.is_relative_to(results)}
    lost: set[Path] = set()
    while fresh := {
        path
        for path, inputs in made_from.items()
        if path not in lost and any(source in lost or not source.exists() for source in inputs)
    }:
        lost |= fresh
    return sorted(lost)


def _relative(path: Path) -> str:
    resolved = path.resolve()
    return str(resolved.relative_to(ROOT)) if resolved.is_relative_to(ROOT) else str(resolved)


@lru_cache(maxsize=512)  # stages share most files
def _read(path: Path) -> tuple[set[Path], str]:
    """Files of this repository that a file imports, and what it means."""
    tree = ast.parse(path.read_text())
    return _imported(tree), _meaning(tree)


def _imported(tree: ast.Module) -> set[Path]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            if package in _PACKAGES:
                base = _PACKAGES[package].joinpath(*rest)
                found |= {file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()}
    return found


def _meaning(tree: ast.Module) -> str:
    """The syntax tree without docstrings, which are taken out of it; comments and layout are not in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # a bare string after an assignment documents it (attribute docstring)
            kept = [part for part in node.body if not _is_string(part)]
            node.body = kept or [ast.Pass()]
    return ast.dump(tree)


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
