"""Asking a chat service by the Batch API: up to a day, and cheaper; a killed run finds its batch again.

The file that a batch reads is written down beside the answers before the batch is made, and the batch's number before
anything waits for it. A later run finds the batch by the number or, at the service, by the file.
"""

import json
import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from refusal.artifacts import digest, read_json, write_json
from refusal.errors import UserError
from refusal.judges.replies import FOR_GOOD, NO_MODEL, OK, TOO_LONG, Reply, UnansweredError
from refusal.judges.service import Body, Run

if TYPE_CHECKING:
    from together import Together

log = logging.getLogger("refusal")

POLL_S = (5.0, 60.0)
"""The first wait for a batch, and the longest."""
MOST_REQUESTS, MOST_BYTES = 50_000, 95_000_000
"""Of a batch; Together: 50,000 and 100 MB."""

_LINE_BYTES = 100  # of a line beside its request
_ENDED = ("COMPLETED", "FAILED", "EXPIRED", "CANCELLED")

Made = TypeVar("Made")


@dataclass
class _Batch:
    """A batch, and where it is written down (None: nowhere).

    file: what it reads, at the service. number: None until it is made. requests: digests of those that nobody has seen
    the answers of.
    """

    path: Path | None
    name: str
    file: str
    number: str | None
    requests: list[str]

    def write(self) -> None:
        """Down beside the answers; away once there is nothing to be seen."""
        if self.path is None:
            return
        if self.requests:
            write_json(self.path, {"file": self.file, "batch": self.number, "requests": self.requests})
        else:
            self.path.unlink(missing_ok=True)

    def custom_id(self, request: str) -> str:
        """64 characters at most; with the batch's name, so that no two files are alike and each has one batch."""
        return f"{self.name}-{request[:48]}"


def in_batches(run: Run) -> None:
    """By the Batch API, first of all for what an earlier run has paid for and not seen."""
    numbers: dict[str, list[int]] = {}
    for number, body in enumerate(run.bodies):
        numbers.setdefault(digest(body), []).append(number)
    batches = list(_written_down(run, numbers.keys()))
    known = {request for batch in batches for request in batch.requests}
    fresh = {request: run.bodies[places[0]] for request, places in numbers.items() if request not in known}
    run.service.refuse_dear(list(fresh.values()))
    batches += [_made(run, part) for part in _parts(fresh)]
    for batch in batches:
        _collect(run, batch, numbers)


def _written_down(run: Run, requests: Set[str]) -> Iterator[_Batch]:
    """Batches of earlier runs that still have answers to these requests."""
    for path in sorted(run.keep.folder.glob("batch-*.json")) if run.keep.folder else ():
        row = read_json(path)
        batch = _Batch(path, path.stem.removeprefix("batch-"), row["file"], row["batch"], row["requests"])
        if requests.isdisjoint(batch.requests):  # those of another run, which may be at work
            continue
        if batch.number is None:
            batch.number = _called(run, "looking for a batch", partial(_batch_of, run.client, batch.file))
            if batch.number is None:  # killed before it was made: nothing was paid
                batch.requests = []
            batch.write()
        if batch.requests:
            yield batch


def _batch_of(client: "Together", file: str) -> str | None:
    """The number of the batch that reads a file; None where none was made."""
    return next((job.id for job in client.batches.list() if job.input_file_id == file), None)


def _parts(bodies: Mapping[str, Body]) -> Iterator[dict[str, Body]]:
    """As few as the limits of a batch allow."""
    part: dict[str, Body] = {}
    size = 0
    for request, body in bodies.items():
        size += (more := len(json.dumps(body)) + _LINE_BYTES)
        if part and (len(part) == MOST_REQUESTS or size > MOST_BYTES):
            yield part
            part, size = {}, more
        part[request] = body
    if part:
        yield part


def _made(run: Run, bodies: Mapping[str, Body]) -> _Batch:
    """A new batch of these requests."""
    name = uuid.uuid4().hex[:12]
    path = run.keep.folder / f"batch-{name}.json" if run.keep.folder else None
    batch = _Batch(path, name, "", None, list(bodies))
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / f"{name}.jsonl"
        with lines.open("w") as file:
            for request, body in bodies.items():
                file.write(json.dumps({"custom_id": batch.custom_id(request), "body": body}) + "\n")
        patient = run.client.with_options(max_retries=run.service.tries - 1)
        upload = partial(patient.files.upload, lines, purpose="batch-api", check=False)
        batch.file = _called(run, "uploading a batch", lambda: upload().id)
    batch.write()
    # Once only: of a try whose answer was lost nobody knows whether it made a batch. The next run looks for it.
    create = partial(run.client.batches.create, endpoint="/v1/chat/completions", input_file_id=batch.file)
    batch.number = _called(run, "making a batch", lambda: create().job.id)
    batch.write()
    log.info(
        "%s: batch %s: %s requests; a run that is killed finds it again",
        run.reader.who,
        batch.number,
        f"{len(bodies):,}",
    )
    return batch


def _collect(run: Run, batch: _Batch, numbers: Mapping[str, list[int]]) -> None:
    """Wait until a batch has ended, and settle those of its requests that this run is about."""
    job = _ended(run, batch)
    requests = {batch.custom_id(request): request for request in batch.requests if request in numbers}
    for file in (job.output_file_id, job.error_file_id):
        for row in _rows(run, file) if file else ():
            if (request := requests.pop(row["custom_id"], None)) is not None:
                for number in numbers[request]:
                    run.settle(number, lambda row=row, number=number: _reply_of(run, row, run.bodies[number]))
    if job.status == "FAILED":
        said, _ = run.reader.said(job.error or "no reason given")
        run.stop(UserError(f"{run.reader.who}: batch {batch.number} failed ({said}): mend that, and run again"))
    else:
        why = f"batch {batch.number} ended without it ({job.status})"
        for request in requests.values():
            run.unanswered.update(dict.fromkeys(numbers[request], why))
    batch.requests = [request for request in batch.requests if request not in numbers]
    batch.write()


def _ended(run: Run, batch: _Batch) -> Any:
    """The batch's job once it has ended, however."""
    patient = run.client.with_options(max_retries=run.service.tries - 1)
    pause, longest = POLL_S
    said = None
    while True:
        job = _called(run, f"waiting for batch {batch.number}", lambda: _job(patient, batch.number))
        if job.status in _ENDED:
            return job
        if job.status != said:
            said = job.status
            log.info("%s: batch %s: %s, %.0f%% done", run.reader.who, batch.number, job.status, job.progress or 0)
        time.sleep(pause)
        pause = min(pause * 1.5, longest)


def _job(client: "Together", number: str) -> Any:
    job = client.batches.retrieve(number)
    if not isinstance(job.status, str):  # the client takes any JSON for a job
        raise ValueError("no status in it")
    return job


def _rows(run: Run, file: str) -> list[dict[str, Any]]:
    """Lines of a batch's file; one that cannot be read is left out, so that its request is asked again."""
    patient = run.client.with_options(max_retries=run.service.tries - 1)
    return _called(run, "fetching answers of a batch", lambda: _read_rows(patient.files.content(file).read()))


def _read_rows(content: bytes) -> list[dict[str, Any]]:
    """Raises: ValueError, not one line can be read: a page in place of the file, which will be there later."""
    rows = []
    for line in content.split(b"\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("custom_id"), str):
            rows.append(row)
    if not rows:
        raise ValueError("no line of it can be read")
    return rows


def _reply_of(run: Run, row: Mapping[str, Any], body: Body) -> Reply:
    """The answer in a line of a batch's file. Raises: as a request by itself."""
    response, error = row.get("response"), row.get("error")
    if isinstance(response, Mapping):
        if (status := response.get("status_code", OK)) == OK:
            return run.reader.reply(response.get("body", response))
        if not isinstance(status, int):
            raise UnansweredError(f"HTTP {status}")
        raise run.reader.fault(body["model"], status, json.dumps(response.get("body")))
    if error is None:
        raise UnansweredError("a line of a batch with neither answer nor error")
    said, code = run.reader.said(json.dumps({"error": error}))
    if code in NO_MODEL or code in FOR_GOOD or TOO_LONG.search(said):
        raise run.reader.fault(body["model"], code if code in FOR_GOOD else FOR_GOOD[0], json.dumps({"error": error}))
    raise UnansweredError(said)


def _called(run: Run, what: str, call: Callable[[], Made]) -> Made:
    """What a call about files and batches returns.

    Raises: UserError, it fails, in one line.
    """
    import httpx
    import together

    remedy = "run again later: what was paid for is found again"
    try:
        return call()
    except together.APIStatusError as error:
        said, _ = run.reader.said(error.response.text)
        words = f"HTTP {error.status_code}: {said}" if said else f"HTTP {error.status_code}"
        if error.status_code in (401, 402, 403):
            raise run.reader.unusable(error.status_code, words) from None
        if error.status_code == 404:
            remedy = "is it Together, and the key that of the batch? If so, delete batch-*.json in"
            remedy = f"{remedy} {run.keep.folder}, and it is asked anew; if not, set batch to false"
    except together.APIConnectionError as error:
        words = run.reader.broken(error)
    # of the client, on a body that is not what it should be; it uploads by HTTP calls of its own
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        words = f"an answer that is none: {run.reader.said(str(error))[0]}"
    raise UserError(f"{run.reader.who}: {what} failed ({words}): {remedy}")
