"""What a study was made from and by: sources, stages, versions as run, time and cost."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from refusal.artifacts import read_jsonl
from refusal.checking import find_faults, refuse
from refusal.judges.base import Item
from refusal.judges.kinds import load_judge
from refusal.provenance import ROOT, lineage

_PAID = "an estimate: less was paid where answers were there before, or are short"
_NEEDS = {"cpu": "by rule, nothing to pay", "gpu": "a local model, nothing to pay beyond its time"}


def origins(paths: Iterable[Path]) -> dict[str, Any]:
    """Of files and all that they were made from: `stages`, each after those it builds on, and `sources`.

    Returns: `stages`: each `stage`, `files` (how many), `code` (its versions), `runs` (dtype, device and library
        versions, each kind of run once). `sources`: `path`, `sha256` of each file that no stage made.
    """
    records = {path.resolve(): record for path, record in lineage(paths).items()}
    stages: dict[str, dict] = {}
    sources: dict[str, str] = {}

    @cache
    def depth(path: Path) -> int:
        used = (records[path] or {"inputs": {}})["inputs"].values()
        return 1 + max((depth((ROOT / one["path"]).resolve()) for one in used), default=0)

    for path, record in records.items():
        if record is None:
            continue
        stage = stages.setdefault(
            record["stage"], {"stage": record["stage"], "files": 0, "code": {}, "runs": {}, "depth": 0}
        )
        stage["files"] += 1
        stage["depth"] = max(stage["depth"], depth(path))
        stage["code"][record["code"]] = None
        if run := _run(record["run"]):
            stage["runs"][run] = None
        for used in record["inputs"].values():
            if records.get((ROOT / used["path"]).resolve()) is None:
                sources[used["path"]] = used["sha256"]
    return {
        "stages": [
            {**stage, "code": list(stage["code"]), "runs": list(stage["runs"])}
            for stage in sorted(stages.values(), key=lambda one: one["depth"])
        ],
        "sources": [{"path": path, "sha256": sha256} for path, sha256 in sorted(sources.items())],
    }


def _run(run: Mapping[str, Any]) -> str:
    """Where and with what a stage ran, in words; nothing for one that no library decides."""
    versions = [f"{name} {version}" for name, version in run.get("versions", {}).items()]
    return ", ".join([*(str(run[key]) for key in ("dtype", "device") if run.get(key)), *versions])


def times(folder: Path) -> list[dict[str, Any]]:
    """What each job took when it last ran here, from Snakemake's benchmark files: `job`, `seconds`, `memory_mib`.

    Jobs that shared a stage are added up, their memory is that of the largest.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.tsv")):
        # of a job that was killed there may be nothing
        head, *lines = [line.split("\t") for line in path.read_text().splitlines()] or [[]]
        for line in lines:
            row = dict(zip(head, line, strict=True))
            job = found.setdefault(path.name.split(".")[0], {"seconds": 0.0, "memory_mib": 0.0})
            job["seconds"] += float(row["s"])
            # a job that ends at once is not measured ("NA", "-")
            used = row["max_rss"]
            job["memory_mib"] = max(job["memory_mib"], float(used) if used[:1].isdigit() else 0.0)
    return [{"job": job, **used} for job, used in sorted(found.items(), key=lambda one: -one[1]["seconds"])]


def costs(judges: Mapping[str, Mapping[str, Any]], completions: Iterable[Path]) -> list[dict[str, str]]:
    """What each judge of a study costs, in words: of one that is paid the most that it can cost.

    Args:
        judges: name -> settings. completions: the responses that they judge.
    Raises: UserError, settings that no judge has.
    """
    refuse([fault for name, settings in judges.items() for fault in find_faults(dict(settings), "judge", name)])
    items = dict.fromkeys(
        Item(row["prompt"], row["response"])
        for path in completions
        for row in read_jsonl(path, ("prompt", "response"))
        if row["response"].strip()
    )
    made = []
    for name, settings in judges.items():
        judge = load_judge(settings)
        words = f"{judge.estimate(list(items))}; {_PAID}" if judge.estimate else _NEEDS[judge.needs]
        made.append({"judge": name, "words": words})
    return made
