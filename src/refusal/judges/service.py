"""Asking a chat service that speaks the OpenAI protocol: many requests at once, and none is paid for twice.

- Answers are handed on as they come, all by the thread that called, so a killed run keeps what it paid for.
- What may pass (429, 5xx, a timeout, a broken connection, a body that is no completion) is tried again, after a wait
  that doubles, or as long as `Retry-After` says. The client's own retries do not serve: they take any body with status
  200 for an answer, ignore a `Retry-After` above a minute, and cannot be called off.
- What cannot pass stops at once, in one line: a refused key (401, 403), no credit (402), an unknown model (404).
- What is wrong with one request alone (400, 413, 422) is that request's answer, for good.
- The first request goes alone, and nothing else is sent until one is answered. When three requests in a row got no
  answer, or as many as may be under way at once, the run stops: a service that is down is not sent thousands.
- Batches: the file that a batch reads is written down beside the answers before the batch is made, and its number
  before anything waits for it. A killed run finds its batch again, by the number or, at the service, by the file.
"""

import json
import logging
import os
import random
import re
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from refusal.artifacts import digest, read_json, write_json
from refusal.errors import UserError
from refusal.judges.base import Answer, Keep

if TYPE_CHECKING:
    import httpx
    from together import Together

log = logging.getLogger("refusal")

TOGETHER = "https://api.together.ai"
"""Stands here, since the client would let the environment replace it without a word in what was asked."""

BACK_OFF_S = (1.0, 30.0)
"""The first wait before a request is tried again, and the longest; each is twice the one before."""
POLL_S = (5.0, 60.0)
"""The first wait for a batch, and the longest."""

_KEY = "TOGETHER_API_KEY"
_LONGEST_WAIT_S = 600.0  # a service that asks for more is asked again by the next run
_IN_VAIN = 3
_MINUTE_S = 60.0
_BYTES_A_TOKEN = 3  # rather too many tokens: English has about four bytes a token, Chinese three
_TOKENS_A_MESSAGE = 8  # its role, and the marks of the chat template
_SAID_CHARACTERS = 200
_BATCH_REQUESTS, _BATCH_BYTES = 50_000, 95_000_000  # Together: 50,000 and 100 MB
_BATCH_LINE_BYTES = 100  # of a line beside its request
_OK = 200
_FOR_GOOD = (400, 413, 422)
_MAY_PASS = (408, 409, 425, 429)
_SERVER = 500
_TOO_LARGE = 413
# Together says 403 of a request that is too long, and 400 of a model that it no longer serves.
_TOO_LONG = re.compile(r"context.?length|too (long|large)|\b(input|prompt)s?\b.*\btokens?\b", re.IGNORECASE)
_NO_MODEL = ("model_not_available", "model_not_found")
_ENDED = ("COMPLETED", "FAILED", "EXPIRED", "CANCELLED")

Body = Mapping[str, Any]
"""What is sent: model, messages, max_tokens, temperature."""
Made = TypeVar("Made")


@dataclass(frozen=True)
class _Reply:
    """text: untouched. used: tokens sent and written; None where the service does not say."""

    text: str
    used: tuple[int, int] | None


class _UnansweredError(Exception):
    """No answer for now, and why; wait_s: how long the service wants to be left alone."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _RefusedError(Exception):
    """No answer to this request, ever, and why; its_own: surely for what it holds, not for the settings of all."""

    def __init__(self, why: str, its_own: bool) -> None:
        super().__init__(why)
        self.its_own = its_own


@dataclass(frozen=True)
class Service:
    """A chat service, and how it is asked; the keys of config/judges/rubric.yaml.

    judge: whose requests these are, for messages. base_url: without /v1, which the client adds.
    """

    judge: str
    base_url: str
    concurrency: int
    timeout_s: float
    tries: int
    usd_per_million_input: float
    usd_per_million_output: float
    spend_limit_usd: float
    unanswered: Literal["stop", "invalid"]
    batch: bool

    @property
    def place(self) -> str:
        """Host and port."""
        return urlsplit(self.base_url).netloc

    def ask(self, bodies: Sequence[Body], keep: Keep) -> None:
        """Get an answer to each request, and hand it to `keep` as soon as it is there.

        Raises: UserError, one line: no key, too dear, a service that cannot be used, requests left without an answer.
            What was answered is kept by then.
        """
        key = _key(self.judge)
        # not where the module is imported: it takes a second
        from together import Together

        with (
            Together(api_key=key, base_url=self.base_url, timeout=self.timeout_s, max_retries=0) as client,
            _progress(f"{self.judge}: {self.place}", len(bodies)) as tell,
        ):
            run = _Run(self, client, bodies, keep, tell)
            try:
                _ask_in_batches(run) if self.batch else _ask_one_by_one(run)
            finally:
                if run.answers:
                    run.say_cost()
        run.end()

    def check(self) -> None:
        """Raises: UserError, there is no key to ask with. Whether it is valid, the first request says."""
        _key(self.judge)

    def estimate(self, bodies: Sequence[Body]) -> str:
        """What it would cost to ask, at most, in words; asks nothing and needs no key."""
        if not bodies:
            return "nothing"
        sent, written = _tokens(bodies)
        return (
            f"about {_usd(self.cost(sent, written))} at most ({len(bodies):,} requests; about {sent:,} tokens sent, one"
            f" for {_BYTES_A_TOKEN} bytes; at most {written:,} tokens written)"
        )

    def cost(self, sent: int, written: int) -> float:
        """US dollars of so many tokens."""
        return (sent * self.usd_per_million_input + written * self.usd_per_million_output) / 1e6

    def refuse_dear(self, bodies: Sequence[Body]) -> None:
        """Raises: UserError, the estimate is above the spend limit."""
        if (usd := self.cost(*_tokens(bodies))) > self.spend_limit_usd:
            raise UserError(
                f"{self.judge}: {len(bodies):,} requests may cost {_usd(usd)}, and spend_limit_usd is"
                f" {_usd(self.spend_limit_usd)}: raise it in the judge's file, or judge fewer responses"
            )


@dataclass
class _Run:
    """One call of `Service.ask`: what was answered and spent; only the thread that called changes it.

    unanswered: number of a request -> why. in_vain: requests in a row without an answer. held: refusals before the
    first answer, which may be the fault of the settings and are not kept before something is answered. stopped: nothing
    more is to be sent; ended: why.
    """

    service: Service
    client: "Together"
    bodies: Sequence[Body]
    keep: Keep
    tell: Callable[[str], None]
    answers: int = 0
    tokens_sent: int = 0
    tokens_written: int = 0
    unanswered: dict[int, str] = field(default_factory=dict)
    in_vain: int = 0
    held: dict[int, Answer] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)
    ended: UserError | None = None

    @property
    def usd(self) -> float:
        return self.service.cost(self.tokens_sent, self.tokens_written)

    @property
    def who(self) -> str:
        return f"{self.service.judge}: {self.service.place}"

    def settle(self, number: int, result: Callable[[], _Reply]) -> None:
        """Note what became of a request, and keep its answer."""
        try:
            reply = result()
        except _UnansweredError as fault:
            self.unanswered[number] = str(fault)
            self.in_vain += 1
        except _RefusedError as fault:
            if fault.its_own or self.answers:
                self.keep(number, Answer("", str(fault)))
            else:
                self.held[number] = Answer("", str(fault))
                self.in_vain += 1
        except UserError as error:
            self.stop(error)
        else:
            sent, written = reply.used or (_tokens([self.bodies[number]])[0], _tokens_of(reply.text))
            self.answers += 1
            self.tokens_sent += sent
            self.tokens_written += written
            self.in_vain = 0
            self.keep(number, Answer(reply.text))
            self.keep_held()
        self.tell(_usd(self.usd))

    def keep_held(self) -> None:
        while self.held:
            self.keep(*self.held.popitem())

    def stop(self, error: UserError) -> None:
        """Send nothing more; the first reason counts."""
        self.ended = self.ended or error
        self.stopped.set()

    def say_cost(self) -> None:
        tokens = f"{self.tokens_sent:,} tokens sent, {self.tokens_written:,} written"
        log.info("%s: %s answers for %s (%s)", self.service.judge, f"{self.answers:,}", _usd(self.usd), tokens)

    def end(self) -> None:
        """Settle what got no answer.

        Raises: UserError, the run was stopped, or requests are left without an answer and that is to stop it.
        """
        if self.ended is not None:
            raise self.ended
        self.keep_held()
        if self.unanswered and self.service.unanswered == "stop":
            *_, last = self.unanswered.values()
            raise UserError(
                f"{self.service.judge}: {len(self.unanswered):,} of {len(self.bodies):,} responses got no answer (last:"
                f" {last}): the others are kept: run again later"
            )
        for number, why in self.unanswered.items():
            self.keep(number, Answer("", f"no answer: {why}", lasting=False))


def _ask_one_by_one(run: _Run) -> None:
    """Each request by itself, several at once."""
    run.service.refuse_dear(run.bodies)
    unsent = list(reversed(range(len(run.bodies))))
    under_way: dict[Future[_Reply], int] = {}
    pool = ThreadPoolExecutor(run.service.concurrency)
    try:
        while True:
            window = run.service.concurrency if run.answers else 1
            while unsent and len(under_way) < window and not run.stopped.is_set():
                number = unsent.pop()
                under_way[pool.submit(_answered, run, number)] = number
            if not under_way:
                return
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                run.settle(under_way.pop(future), future.result)
            _stop_where_it_is_in_vain(run, window)
            _stop_where_it_is_dear(run, unsent)
    except KeyboardInterrupt:
        run.stopped.set()
        log.info("%s: interrupted: %d answers are under way, and kept once they are here", run.who, len(under_way))
        for future in as_completed(under_way):
            run.settle(under_way[future], future.result)
        raise
    finally:
        run.stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _stop_where_it_is_in_vain(run: _Run, window: int) -> None:
    if run.in_vain >= max(_IN_VAIN, window):
        *_, last = (*run.unanswered.values(), *(answer.fault for answer in run.held.values()))
        run.stop(
            UserError(
                f"{run.who} left {run.in_vain} requests in a row without an answer (last: {last}): what was answered is"
                " kept: run again later, or check model, base_url and max_tokens in the judge's file"
            )
        )


def _stop_where_it_is_dear(run: _Run, unsent: Sequence[int]) -> None:
    if unsent and run.usd >= run.service.spend_limit_usd:
        run.stop(
            UserError(
                f"{run.service.judge}: spend_limit_usd is spent ({_usd(run.service.spend_limit_usd)}): {len(unsent):,}"
                f" of {len(run.bodies):,} requests were not sent, what was answered is kept: raise it and run again"
            )
        )


def _answered(run: _Run, number: int) -> _Reply:
    """The answer to a request, in as many tries as it may take; in a thread of its own."""
    last = _UnansweredError("not asked")
    pause, longest = BACK_OFF_S
    for turn in range(run.service.tries):
        if turn:
            # not all at the same moment again
            run.stopped.wait(max(pause * random.uniform(0.75, 1), last.wait_s))
            pause = min(2 * pause, longest)
        if run.stopped.is_set():
            break
        try:
            return _asked_once(run, run.bodies[number])
        except _UnansweredError as fault:
            last = fault
        if last.wait_s > _LONGEST_WAIT_S:
            break
    raise last


def _asked_once(run: _Run, body: Body) -> _Reply:
    """Raises: _UnansweredError, _RefusedError; UserError, there is no use in asking on."""
    import together

    try:
        response = run.client.chat.completions.with_raw_response.create(**body).http_response
    except together.APIStatusError as error:
        raise _fault(run, body, error.status_code, error.response.text, _wait_s(error.response)) from None
    except together.APIConnectionError as error:
        raise _UnansweredError(_broken(run, error)) from None
    return _reply(run, response.content)


def _fault(run: _Run, body: Body, status: int, text: str, wait_s: float = 0.0) -> Exception:
    """What an answer with another status than 200 stands for."""
    said, code = _said(run, text)
    words = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    if status in _MAY_PASS or status >= _SERVER:
        return _UnansweredError(words, wait_s)
    if code in _NO_MODEL or status == 404:
        return UserError(
            f"{run.who} does not have {body['model']} ({words}): set model in the judge's file to one that it has, or"
            " mend base_url"
        )
    its_own = status == _TOO_LARGE or bool(_TOO_LONG.search(said))
    if status in _FOR_GOOD or (status == 403 and its_own):
        return _RefusedError(words, its_own)
    return _unusable(run, status, words)


def _unusable(run: _Run, status: int, words: str) -> UserError:
    if status in (401, 403):
        return UserError(f"{run.who} refuses the key ({words}): set {_KEY} to one that is valid there")
    if status == 402:
        return UserError(f"{run.who} wants to be paid ({words}): add credit there and run again: answers are kept")
    return UserError(f"{run.who} cannot be asked ({words}): mend base_url in the judge's file")


def _reply(run: _Run, content: "bytes | Mapping[str, Any]") -> _Reply:
    """The first answer in a completion, as bytes or read.

    Raises: _UnansweredError, no completion.
    """
    try:
        body = json.loads(content) if isinstance(content, bytes) else content
        message = body["choices"][0]["message"]
        # a service may write a refusal of its model beside an empty content
        text = sendable(message.get("content") or message.get("refusal") or "")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        said, _ = _said(run, content.decode(errors="replace") if isinstance(content, bytes) else json.dumps(content))
        raise _UnansweredError(f"HTTP {_OK} without a completion: {said}") from None
    return _Reply(text, _used(body.get("usage")))


def _used(usage: Any) -> tuple[int, int] | None:
    try:
        sent, written = usage["prompt_tokens"], usage["completion_tokens"]
    except (TypeError, KeyError):
        return None
    return (sent, written) if type(sent) is type(written) is int and min(sent, written) >= 0 else None


def _said(run: _Run, text: str) -> tuple[str, Any]:
    """What a body says, in one short line, and the code of its error; without the key, which some services repeat."""
    code = None
    try:
        error = json.loads(text)["error"]
        text, code = (error["message"], error.get("code")) if isinstance(error, Mapping) else (error, None)
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    line = " ".join(str(text).replace(run.client.api_key, "[key]").split())
    return line if len(line) <= _SAID_CHARACTERS else f"{line[:_SAID_CHARACTERS]}...", code


def _broken(run: _Run, error: Exception) -> str:
    """Why a connection brought no answer."""
    import together

    if isinstance(error, together.APITimeoutError):
        return f"no answer within {run.service.timeout_s:g} s"
    said, _ = _said(run, str(error.__cause__ or error))
    return f"the connection failed: {said}"


def _wait_s(response: "httpx.Response") -> float:
    """What `Retry-After` asks for, seconds or a date; 0 where it does not."""
    value = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


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


def _ask_in_batches(run: _Run) -> None:
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


def _written_down(run: _Run, requests: Set[str]) -> Iterator[_Batch]:
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
        size += (more := len(json.dumps(body)) + _BATCH_LINE_BYTES)
        if part and (len(part) == _BATCH_REQUESTS or size > _BATCH_BYTES):
            yield part
            part, size = {}, more
        part[request] = body
    if part:
        yield part


def _made(run: _Run, bodies: Mapping[str, Body]) -> _Batch:
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
        "%s: batch %s: %s requests; a run that is killed finds it again", run.who, batch.number, f"{len(bodies):,}"
    )
    return batch


def _collect(run: _Run, batch: _Batch, numbers: Mapping[str, list[int]]) -> None:
    """Wait until a batch has ended, and settle those of its requests that this run is about."""
    job = _ended(run, batch)
    requests = {batch.custom_id(request): request for request in batch.requests if request in numbers}
    for file in (job.output_file_id, job.error_file_id):
        for row in _rows(run, file) if file else ():
            if (request := requests.pop(row["custom_id"], None)) is not None:
                for number in numbers[request]:
                    run.settle(number, lambda row=row, number=number: _reply_of(run, row, run.bodies[number]))
    if job.status == "FAILED":
        said, _ = _said(run, job.error or "no reason given")
        run.stop(UserError(f"{run.who}: batch {batch.number} failed ({said}): mend that, and run again"))
    else:
        why = f"batch {batch.number} ended without it ({job.status})"
        for request in requests.values():
            run.unanswered.update(dict.fromkeys(numbers[request], why))
    batch.requests = [request for request in batch.requests if request not in numbers]
    batch.write()


def _ended(run: _Run, batch: _Batch) -> Any:
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
            log.info("%s: batch %s: %s, %.0f%% done", run.who, batch.number, job.status, job.progress or 0)
        time.sleep(pause)
        pause = min(pause * 1.5, longest)


def _job(client: "Together", number: str) -> Any:
    job = client.batches.retrieve(number)
    if not isinstance(job.status, str):  # the client takes any JSON for a job
        raise ValueError("no status in it")
    return job


def _rows(run: _Run, file: str) -> list[dict[str, Any]]:
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


def _reply_of(run: _Run, row: Mapping[str, Any], body: Body) -> _Reply:
    """The answer in a line of a batch's file. Raises: as `_asked_once`."""
    response, error = row.get("response"), row.get("error")
    if isinstance(response, Mapping):
        if (status := response.get("status_code", _OK)) == _OK:
            return _reply(run, response.get("body", response))
        if not isinstance(status, int):
            raise _UnansweredError(f"HTTP {status}")
        raise _fault(run, body, status, json.dumps(response.get("body")))
    if error is None:
        raise _UnansweredError("a line of a batch with neither answer nor error")
    said, code = _said(run, json.dumps({"error": error}))
    if code in _NO_MODEL or code in _FOR_GOOD or _TOO_LONG.search(said):
        raise _fault(run, body, code if code in _FOR_GOOD else _FOR_GOOD[0], json.dumps({"error": error}))
    raise _UnansweredError(said)


def _called(run: _Run, what: str, call: Callable[[], Made]) -> Made:
    """What a call about files and batches returns.

    Raises: UserError, it fails, in one line.
    """
    import httpx
    import together

    remedy = "run again later: what was paid for is found again"
    try:
        return call()
    except together.APIStatusError as error:
        said, _ = _said(run, error.response.text)
        words = f"HTTP {error.status_code}: {said}" if said else f"HTTP {error.status_code}"
        if error.status_code in (401, 402, 403):
            raise _unusable(run, error.status_code, words) from None
        if error.status_code == 404:
            remedy = "is it Together, and the key that of the batch? If so, delete batch-*.json in"
            remedy = f"{remedy} {run.keep.folder}, and it is asked anew; if not, set batch to false"
    except together.APIConnectionError as error:
        words = _broken(run, error)
    # of the client, on a body that is not what it should be; it uploads by HTTP calls of its own
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        words = f"an answer that is none: {_said(run, str(error))[0]}"
    raise UserError(f"{run.who}: {what} failed ({words}): {remedy}")


def sendable(text: str) -> str:
    """The text without lone surrogates (half an emoji, cut at the last token), which no UTF-8 can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _key(judge: str) -> str:
    """The key of the service, from the environment.

    Raises: UserError, none, or one that cannot be sent.
    """
    key = os.environ.get(_KEY, "").strip()
    if not key:
        raise UserError(f"{judge}: {_KEY} is not set: export the service's key (any word for a service without keys)")
    if not re.fullmatch("[!-~]+", key):
        raise UserError(f"{judge}: {_KEY} holds a character that no key has, such as a space: set it anew")
    return key


def _tokens(bodies: Sequence[Body]) -> tuple[int, int]:
    """About how many tokens are sent, and how many are written at most."""
    messages = [message for body in bodies for message in body["messages"]]
    sent = sum(_tokens_of(message["content"]) + _TOKENS_A_MESSAGE for message in messages)
    return sent, sum(body["max_tokens"] for body in bodies)


def _tokens_of(text: str) -> int:
    return -(-len(text.encode()) // _BYTES_A_TOKEN)


def _usd(usd: float) -> str:
    return f"${usd:,.4f}"


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Within the block, a function that counts one more and shows a note: by a bar on a terminal, else a line a minute.

    `refusal.cli.progress` has no place for a note that changes.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(desc=what, total=total, unit="answer") as bar:

            def advance(note: str) -> None:
                bar.set_postfix_str(note, refresh=False)
                bar.update()

            yield advance
        return
    count = 0
    started = said = time.monotonic()

    def say(note: str) -> None:
        nonlocal count, said
        count += 1
        now = time.monotonic()
        if now - said > _MINUTE_S:
            said = now
            log.info("%s: %d/%d answers, %s so far, %.0f s", what, count, total, note, now - started)

    yield say
