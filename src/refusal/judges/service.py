"""Asking a chat service that speaks the OpenAI protocol: many requests at once, and none is paid for twice.

- Answers are handed on as they come, all by the thread that called, so a killed run keeps what it paid for.
- What may pass (429, 5xx, a timeout, a broken connection, a body that is no completion) is tried again, after a wait
  that doubles, or as long as `Retry-After` says. The client's own retries do not serve: they take any body with status
  200 for an answer, ignore a `Retry-After` above a minute, and cannot be called off.
- What cannot pass stops at once, in one line: a refused key (401, 403), no credit (402), an unknown model (404).
- What is wrong with one request alone (400, 413, 422) is that request's answer, for good.
- The first request goes alone, and nothing else is sent until one is answered. When three requests in a row got no
  answer, or as many as may be under way at once, the run stops: a service that is down is not sent thousands.
"""

import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from refusal.cli import progress
from refusal.errors import UserError
from refusal.judges.base import Answer, Keep
from refusal.judges.replies import Reader, RefusedError, Reply, UnansweredError, retry_after_s, service_key

if TYPE_CHECKING:
    from together import Together

log = logging.getLogger("refusal")

TOGETHER = "https://api.together.ai"
"""Stands here, since the client would let the environment replace it without a word in what was asked."""

BACK_OFF_S = (1.0, 30.0)
"""The first wait before a request is tried again, and the longest; each is twice the one before."""

_LONGEST_WAIT_S = 600.0  # a service that asks for more is asked again by the next run
_IN_VAIN = 3
_BYTES_A_TOKEN = 3  # rather too many tokens: English has about four bytes a token, Chinese three
_TOKENS_A_MESSAGE = 8  # its role, and the marks of the chat template

Body = Mapping[str, Any]
"""What is sent: model, messages, max_tokens, temperature."""


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

    @property
    def place(self) -> str:
        """Host and port."""
        return urlsplit(self.base_url).netloc

    def ask(self, bodies: Sequence[Body], keep: Keep, way: "Callable[[Run], None]") -> None:
        """Get an answer to each request, and hand it to `keep` as soon as it is there.

        way: `one_by_one`, or `refusal.judges.batches.in_batches`.
        Raises: UserError, one line: no key, too dear, a service that cannot be used, requests left without an answer.
            What was answered is kept by then.
        """
        reader = Reader(f"{self.judge}: {self.place}", service_key(self.judge), self.timeout_s)
        # not where the module is imported: it takes a second
        from together import Together

        with Together(api_key=reader.key, base_url=self.base_url, timeout=self.timeout_s, max_retries=0) as client:
            run = Run(self, client, reader, bodies, keep)
            try:
                with closing(run.bar):
                    way(run)
            finally:
                if run.answers:
                    run.say_cost()
        run.end()

    def check(self) -> None:
        """Raises: UserError, there is no key to ask with. Whether it is valid, the first request says."""
        service_key(self.judge)

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
class Run:
    """One call of `Service.ask`: what was answered and spent; only the thread that called changes it.

    unanswered: number of a request -> why. in_vain: requests in a row without an answer. held: refusals before the
    first answer, which may be the fault of the settings and are not kept before something is answered. stopped: nothing
    more is to be sent; ended: why. bar: shows one request more each time it is advanced.
    """

    service: Service
    client: "Together"
    reader: Reader
    bodies: Sequence[Body]
    keep: Keep
    answers: int = 0
    tokens_sent: int = 0
    tokens_written: int = 0
    unanswered: dict[int, str] = field(default_factory=dict)
    in_vain: int = 0
    held: dict[int, Answer] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)
    ended: UserError | None = None
    bar: Iterator[None] = field(init=False)

    def __post_init__(self) -> None:
        self.bar = progress(
            repeat(None), self.reader.who, len(self.bodies), "answers", lambda: f"{_usd(self.usd)} so far"
        )
        next(self.bar)

    @property
    def usd(self) -> float:
        return self.service.cost(self.tokens_sent, self.tokens_written)

    def settle(self, number: int, result: Callable[[], Reply]) -> None:
        """Note what became of a request, and keep its answer."""
        try:
            reply = result()
        except UnansweredError as fault:
            self.unanswered[number] = str(fault)
            self.in_vain += 1
            self.spend(fault.used)
        except RefusedError as fault:
            if fault.its_own or self.answers:
                self.keep(number, Answer("", str(fault)))
            else:
                self.held[number] = Answer("", str(fault))
                self.in_vain += 1
        except UserError as error:
            self.stop(error)
        else:
            self.answers += 1
            self.spend(_used(reply, self.bodies[number]))
            self.in_vain = 0
            self.keep(number, Answer(reply.text, "the model that judges refused to answer" if reply.refused else None))
            self.keep_held()
        next(self.bar, None)  # None: an interrupt may have ended it, and answers still come

    def spend(self, used: tuple[int, int] | None) -> None:
        """Count tokens sent and written."""
        sent, written = used or (0, 0)
        self.tokens_sent += sent
        self.tokens_written += written

    def keep_held(self) -> None:
        while self.held:
            self.keep(*self.held.popitem())

    def stop(self, error: UserError) -> None:
        """Send nothing more; the first reason counts."""
        self.ended = self.ended or error
        self.stopped.set()

    def vain(self, count: int) -> UserError:
        """That so many requests in a row brought nothing."""
        *_, last = (*self.unanswered.values(), *(answer.fault for answer in self.held.values()))
        return UserError(
            f"{self.reader.who} left {count} requests in a row without an answer (last: {last}): what was answered is"
            " kept: run again later, or check model, base_url and max_tokens in the judge's file"
        )

    def say_cost(self) -> None:
        tokens = f"{self.tokens_sent:,} tokens sent, {self.tokens_written:,} written"
        log.info("%s: %s answers for %s (%s)", self.service.judge, f"{self.answers:,}", _usd(self.usd), tokens)

    def end(self) -> None:
        """Settle what got no answer.

        Raises: UserError, the run was stopped, or requests are left without an answer and that is to stop it.
        """
        if self.ended is not None:
            raise self.ended
        if not self.answers and len(self.held) >= _IN_VAIN:
            raise self.vain(len(self.held))
        for number, answer in self.held.items():
            # the fault of the settings, perhaps: nothing was answered, so it is asked again
            self.keep(number, replace(answer, lasting=False))
        if self.unanswered and self.service.unanswered == "stop":
            *_, last = self.unanswered.values()
            raise UserError(
                f"{self.service.judge}: {len(self.unanswered):,} of {len(self.bodies):,} responses got no answer (last:"
                f" {last}): the others are kept: run again later"
            )
        for number, why in self.unanswered.items():
            self.keep(number, Answer("", f"no answer: {why}", lasting=False))


def one_by_one(run: Run) -> None:
    """Each request by itself, several at once.

    Raises: UserError, a batch of an earlier run was paid for and not seen yet.
    """
    if run.keep.folder and (waiting := sorted(run.keep.folder.glob("batch-*.json"))):
        raise UserError(
            f"{waiting[0]}: a batch whose answers were not seen yet: set `batch: true` in the judge's file to get them"
        )
    run.service.refuse_dear(run.bodies)
    unsent = list(reversed(range(len(run.bodies))))
    under_way: dict[Future[Reply], int] = {}
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
        log.info(
            "%s: interrupted: %d answers are under way, and kept once they are here", run.reader.who, len(under_way)
        )
        for future in as_completed(under_way):
            run.settle(under_way[future], future.result)
        raise
    finally:
        run.stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _stop_where_it_is_in_vain(run: Run, window: int) -> None:
    if run.in_vain >= max(_IN_VAIN, window):
        run.stop(run.vain(run.in_vain))


def _stop_where_it_is_dear(run: Run, unsent: Sequence[int]) -> None:
    if unsent and run.usd >= run.service.spend_limit_usd:
        run.stop(
            UserError(
                f"{run.service.judge}: spend_limit_usd is spent ({_usd(run.service.spend_limit_usd)}): {len(unsent):,}"
                f" of {len(run.bodies):,} requests were not sent, what was answered is kept: raise it and run again"
            )
        )


def _answered(run: Run, number: int) -> Reply:
    """The answer to a request, in as many tries as it may take; in a thread of its own."""
    last, spent = UnansweredError("not asked"), [0, 0]
    pause, longest = BACK_OFF_S
    for turn in range(run.service.tries):
        if turn:
            # not all at the same moment again
            run.stopped.wait(max(pause * random.uniform(0.75, 1), last.wait_s))
            pause = min(2 * pause, longest)
        if run.stopped.is_set():
            break
        try:
            reply = _asked_once(run, run.bodies[number])
        except UnansweredError as fault:
            last = fault
            if fault.billed:  # written to nobody; what was sent is paid all the same
                used = fault.used or (_tokens([run.bodies[number]])[0], 0)
                spent = [spent[0] + used[0], spent[1] + used[1]]
        else:
            used = _used(reply, run.bodies[number])
            return replace(reply, used=(used[0] + spent[0], used[1] + spent[1]))
        if last.wait_s > _LONGEST_WAIT_S:
            break
    last.used = tuple(spent)
    raise last


def _asked_once(run: Run, body: Body) -> Reply:
    """Raises: UnansweredError, RefusedError; UserError, there is no use in asking on."""
    import httpx
    import together

    try:
        response = run.client.chat.completions.with_raw_response.create(**body).http_response
    except together.APIStatusError as error:
        raise run.reader.fault(
            body["model"], error.status_code, error.response.text, retry_after_s(error.response)
        ) from None
    except together.APIConnectionError as error:
        # a request that was sent and timed out, or whose answer was cut, may have been worked for
        billed = not isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)
        raise UnansweredError(run.reader.broken(error), billed=billed) from None
    return run.reader.reply(response.content)


def _used(reply: Reply, body: Body) -> tuple[int, int]:
    """Tokens sent and written: as the service counts them, or about as many."""
    return reply.used or (_tokens([body])[0], _tokens_of(reply.text))


def _tokens(bodies: Sequence[Body]) -> tuple[int, int]:
    """About how many tokens are sent, and how many are written at most."""
    messages = [message for body in bodies for message in body["messages"]]
    sent = sum(_tokens_of(message["content"]) + _TOKENS_A_MESSAGE for message in messages)
    return sent, sum(body["max_tokens"] for body in bodies)


def _tokens_of(text: str) -> int:
    return -(-len(text.encode()) // _BYTES_A_TOKEN)


def _usd(usd: float) -> str:
    return f"${usd:,.4f}"
