"""Snakemake's records of what results were made from, kept beside the results, so that both travel together."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from refusal.artifacts import digest, read_json, sha256, write_json
from refusal.errors import UserError

RECORDS = "records.json"

FORMAT = 6
"""The form of Snakemake's records that is known here."""

DECISIVE = (
    "rule",
    "input",
    "params",
    "code",
    "software_stack_hash",
    "record_format_version",
    "input_checksums",
)
"""What of a record decides whether a file is made again; times and logs would differ from run to run."""

LOST = "not what its job wrote, or gone"
"""Stands where a record has the job's code: Snakemake then finds it changed, and the job runs again."""

_PASSING = "parts"
"""Folder of files that a stage deletes when it is done."""

_OLD = 1.0
"""When files that came from elsewhere were made: before any source, so that Snakemake compares sources by content."""


class _Kept(NamedTuple):
    """What records.json holds of a file."""

    content: str
    record: Mapping[str, Any]


def reconcile(
    folder: Path, seen: Path, read: Callable[[str], Any], write: Callable[[str, Mapping[str, Any]], None]
) -> list[str]:
    """Make Snakemake's records and those in records.json fit the results of a model as they are now.

    A file that a job here wrote has Snakemake's record, and records.json takes it. One that came from elsewhere has the
    record that records.json holds of its content, and Snakemake takes it. One that neither knows, and one that is gone,
    was edited, damaged or deleted: its job is to run again. Files that are as they were when last seen are not read.

    Args:
        folder: results/MODEL.
        seen: a file that says how files and records.json were after the last call; without it all are read.
        read: Snakemake's record of a file, with `endtime`: the file's time when its job ended. None: it has none.
        write: gives Snakemake a record.
    Returns: the files whose jobs are to run again, those that were found so by earlier calls aside.
    Raises: UserError, records.json is not of the form known here.
    """
    records = folder / RECORDS
    kept = _read(records)
    last = read_json(seen) if seen.exists() else {}
    foreign = last.get("records") != _hash(records)
    found: dict[str, _Kept] = {}
    states: dict[str, list] = {}
    lost = []
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent != folder / _PASSING)
    waiting = [*map(str, files), *kept]
    while waiting:
        path = waiting.pop()
        file, listed = Path(path), kept.get(path)
        if path in states or file == records:
            continue
        if not file.is_file():
            if listed and folder in file.parents:
                write(path, {**listed.record, "code": LOST})
                lost.append(path)
            elif listed:
                found[path] = listed  # the model may be elsewhere as long as its results are here
            continue
        end, *state = last.get("files", {}).get(path, [None])
        untouched = state == _state(file)
        if not untouched or foreign:
            record = read(path)
            if record or listed:
                content, time = sha256(file), file.stat().st_mtime
                # a job ended since, and left the file as it is; clocks of shared disks round
                written = record and record["endtime"] not in (None, end) and abs(record["endtime"] - time) < 1
                own = record and (untouched or written)
                if listed and listed.content == content and (foreign or not own):
                    end = _OLD
                    os.utime(file, (end, end))
                    write(path, {**listed.record, "endtime": end})
                elif own or not listed:
                    end = record["endtime"]
                    listed = _Kept(content, {key: record[key] for key in DECISIVE})
                    waiting += record["input"] or []
                else:
                    end = time
                    write(path, {**listed.record, "code": LOST, "endtime": end})
                    lost.append(path)
        if listed:
            found[path] = listed
        states[path] = [end, *_state(file)]
    if found != kept:
        write_json(records, _by_job(found))
    now = {"records": _hash(records), "files": states}
    if now != last:
        write_json(seen, now)
    return sorted(lost)


def _state(file: Path) -> list[int]:
    """What changes whenever a file is written or replaced."""
    status = file.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _hash(path: Path) -> str | None:
    return sha256(path) if path.exists() else None


def _read(records: Path) -> dict[str, _Kept]:
    """Path -> what records.json holds of it."""
    if not records.exists():
        return {}
    found = {}
    for job in read_json(records):
        if job.get("record_format_version") != FORMAT or not isinstance(job.get("outputs"), dict):
            raise UserError(
                f"{records}: not of the form that this version keeps: check out results of this version,"
                " or delete it (jobs may run again)"
            )
        record = {key: value for key, value in job.items() if key != "outputs"}
        found |= {path: _Kept(content, record) for path, content in job["outputs"].items()}
    return found


def _by_job(found: Mapping[str, _Kept]) -> list[dict[str, Any]]:
    """The files of a job share a record."""
    jobs: dict[str, dict[str, Any]] = {}
    for path, (content, record) in sorted(found.items()):
        jobs.setdefault(digest(record), {"outputs": {}, **record})["outputs"][path] = content
    return list(jobs.values())
