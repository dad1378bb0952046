"""What a chat service that speaks the OpenAI protocol sends back: an answer, or which kind of fault it is.

- What may pass (429, 5xx, a body that is no completion) is an `UnansweredError`: ask again.
- What is wrong with one request alone (400, 413, 422) is a `RefusedError`: that request's answer, for good.
- What cannot pass is a `UserError`: a refused key (401, 403), no credit (402), an unknown model (404).
"""

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from refusal.errors import UserError

if TYPE_CHECKING:
    import httpx

OK = 200
FOR_GOOD = (400, 413, 422)
_MAY_PASS = (408, 409, 425, 429)
_SERVER = 500
_TOO_LARGE = 413
# Together says 403 of a request that is too long, and 400 of a model that it no longer serves.
TOO_LONG = re.compile(r"context.?length|too (long|large)|\b(input|prompt)s?\b.*\btokens?\b", re.IGNORECASE)
NO_MODEL = ("model_not_available", "model_not_found")
_SAID_CHARACTERS = 200
_KEY = "TOGETHER_API_KEY"


@dataclass(frozen=True)
class Reply:
    """text: untouched. used: tokens sent and written; None where the service does not say.

    refused: whether text is what the service calls a refusal of its model, and no answer.
    """

    text: str
    used: tuple[int, int] | None
    refused: bool = False


class UnansweredError(Exception):
    """No answer for now, and why; wait_s: how long the service wants to be left alone.

    billed: whether the service may have worked for it, and so be paid; used: tokens, where it says how many.
    """

    def __init__(
        self, why: str, wait_s: float = 0.0, billed: bool = False, used: tuple[int, int] | None = None
    ) -> None:
        super().__init__(why)
        self.wait_s, self.billed, self.used = wait_s, billed, used


class RefusedError(Exception):
    """No answer to this request, ever, and why; its_own: surely for what it holds, not for the settings of all."""

    def __init__(self, why: str, its_own: bool) -> None:
        super().__init__(why)
        self.its_own = its_own


@dataclass(frozen=True)
class Reader:
    """Reads what a service sends.

    who: judge and service, for messages. key: never repeated, though some services do. timeout_s: what they were given.
    """

    who: str
    key: str
    timeout_s: float

    def reply(self, content: bytes | Mapping[str, Any]) -> Reply:
        """The first answer in a completion, as bytes or read.

        Raises: UnansweredError, no completion.
        """
        body: Any = None
        try:
            body = json.loads(content) if isinstance(content, bytes) else content
            message = body["choices"][0]["message"]
            text = sendable(message.get("content") or "")
            # a service may write a refusal of its model beside an empty content: text that holds no verdict
            refused = not text and bool(message.get("refusal"))
            text = text or sendable(message.get("refusal") or "")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            said, _ = self.said(content.decode(errors="replace") if isinstance(content, bytes) else json.dumps(content))
            used = _used(body.get("usage")) if isinstance(body, Mapping) else None
            raise UnansweredError(f"HTTP {OK} without a completion: {said}", billed=True, used=used) from None
        return Reply(text, _used(body.get("usage")), refused)

    def fault(self, model: str, status: int, text: str, wait_s: float = 0.0) -> Exception:
        """What an answer with another status than 200 stands for."""
        said, code = self.said(text)
        words = f"HTTP {status}: {said}" if said else f"HTTP {status}"
        if status in _MAY_PASS or status >= _SERVER:
            return UnansweredError(words, wait_s)
        if code in NO_MODEL or status == 404:
            return UserError(
                f"{self.who} does not have {model} ({words}): set model in the judge's file to one that it has, or"
                " mend base_url"
            )
        its_own = status == _TOO_LARGE or bool(TOO_LONG.search(said))
        if status in FOR_GOOD or (status == 403 and its_own):
            return RefusedError(words, its_own)
        return self.unusable(status, words)

    def unusable(self, status: int, words: str) -> UserError:
        """A status that no request to this service gets past."""
        if status in (401, 403):
            return UserError(f"{self.who} refuses the key ({words}): set {_KEY} to one that is valid there")
        if status == 402:
            return UserError(f"{self.who} wants to be paid ({words}): add credit there and run again: answers are kept")
        return UserError(f"{self.who} cannot be asked ({words}): mend base_url in the judge's file")

    def broken(self, error: Exception) -> str:
        """Why a connection brought no answer."""
        import together

        if isinstance(error, together.APITimeoutError):
            return f"no answer within {self.timeout_s:g} s"
        said, _ = self.said(str(error.__cause__ or error))
        return f"the connection failed: {said}"

    def said(self, text: str) -> tuple[str, Any]:
        """What a body says, in one short line, and the code of its error; without the key."""
        code = None
        try:
            error = json.loads(text)["error"]
            text, code = (error["message"], error.get("code")) if isinstance(error, Mapping) else (error, None)
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
        line = " ".join(str(text).replace(self.key, "[key]").split())
        return line if len(line) <= _SAID_CHARACTERS else f"{line[:_SAID_CHARACTERS]}...", code


def retry_after_s(response: "httpx.Response") -> float:
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


def _used(usage: Any) -> tuple[int, int] | None:
    try:
        sent, written = usage["prompt_tokens"], usage["completion_tokens"]
    except (TypeError, KeyError):
        return None
    return (sent, written) if type(sent) is type(written) is int and min(sent, written) >= 0 else None


def sendable(text: str) -> str:
    """The text without lone surrogates (half an emoji, cut at the last token), which no UTF-8 can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def service_key(judge: str) -> str:
    """The key of the service, from the environment.

    Raises: UserError, none, or one that cannot be sent.
    """
    key = os.environ.get(_KEY, "").strip()
    if not key:
        raise UserError(f"{judge}: {_KEY} is not set: export the service's key (any word for a service without keys)")
    if not re.fullmatch("[!-~]+", key):
        raise UserError(f"{judge}: {_KEY} holds a character that no key has, such as a space: set it anew")
    return key
