"""A chat service on the loopback, for tests: real HTTP, answers by script, misbehaviour included.

    with ChatServer(lambda request: said("<verdict>refusal</verdict>")) as server:
        ...  # base_url: server.url; what was asked: server.chats

It has the endpoints that the client of Together calls: chat completions, and files and batches. A batch is answered by
the same script, line by line, once `server.statuses` (what the first looks at it see) are used up.
"""

import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHAT = "/v1/chat/completions"
FILE = {
    "object": "file",
    "purpose": "batch-api",
    "filename": "f.jsonl",
    "FileType": "jsonl",
    "bytes": 1,
    "created_at": 1,
}


@dataclass
class Request:
    """number: of its path and method, from 0. at: seconds, monotonic. body: JSON where it is, else bytes."""

    number: int
    method: str
    path: str
    headers: Any
    body: Any
    at: float

    @property
    def text(self) -> str:
        """What the last message says."""
        return self.body["messages"][-1]["content"]


@dataclass
class Reply:
    """cut: how many bytes of the body are sent, though all are announced; None: all. delay_s: before anything is."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    delay_s: float = 0.0


def said(text: str | None, used: tuple[int, int] | None = (100, 10), **changes: Any) -> Reply:
    """A completion; changes: of the message."""
    body = completion(text, used, **changes)
    return Reply(body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


def completion(text: str | None, used: tuple[int, int] | None = (100, 10), **changes: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **changes}
    usage = used and {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}


def failed(status: int, message: str = "", code: str | None = None, **headers: str) -> Reply:
    """An error as such services word it; headers: Retry_After="1" for Retry-After."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": code}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, body, {"Content-Type": "application/json", **named})


class ChatServer:
    """script: of chats, number and all; intercept: of any request first, None for the usual reply."""

    def __init__(
        self, script: Callable[[Request], Reply], intercept: Callable[[Request], Reply | None] = lambda _request: None
    ) -> None:
        self.script, self.intercept = script, intercept
        self.requests: list[Request] = []
        self.most_at_once = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.statuses: list[str] = []
        self.final = "COMPLETED"
        self._lock = threading.Lock()
        self._at_once = 0
        self._closing = threading.Event()

    @property
    def chats(self) -> list[Request]:
        return self.asked("POST", CHAT)

    def asked(self, method: str, path: str) -> list[Request]:
        """Requests so far whose path matches the pattern."""
        return [one for one in self.requests if one.method == method and re.fullmatch(path, one.path)]

    def __enter__(self) -> "ChatServer":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a client that went away
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.01), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply(self, method: str, path: str, headers: Any, content: bytes) -> Reply:
        try:
            body = json.loads(content)
        except ValueError:
            body = content
        with self._lock:
            number = sum(one.method == method and one.path == path for one in self.requests)
            request = Request(number, method, path, headers, body, time.monotonic())
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            made = self.intercept(request) or self._usual(request)
            self._closing.wait(made.delay_s) if made.delay_s else None
            return made
        finally:
            with self._lock:
                self._at_once -= 1

    def _usual(self, request: Request) -> Reply:
        method, path = request.method, request.path
        if (method, path) == ("POST", CHAT):
            return self.script(request)
        if (method, path) == ("POST", "/v1/files"):
            number = f"file-{uuid.uuid4().hex[:8]}"
            return Reply(302, headers={"Location": f"{self.url}/store/{number}", "X-Together-File-Id": number})
        if method == "PUT" and (found := re.fullmatch("/store/(.+)", path)):
            self.files[found[1]] = (
                request.body if isinstance(request.body, bytes) else json.dumps(request.body).encode()
            )
            return Reply()
        if method == "POST" and (found := re.fullmatch("/v1/files/(.+)/preprocess", path)):
            return _json({**FILE, "id": found[1]})
        if method == "GET" and (found := re.fullmatch("/v1/files/(.+)/content", path)):
            return Reply(body=self.files[found[1]]) if found[1] in self.files else failed(404, "no such file")
        if (method, path) == ("POST", "/v1/batches"):
            number = f"batch-{uuid.uuid4().hex[:8]}"
            job = {
                "id": number,
                "status": "VALIDATING",
                "progress": 0.0,
                "input_file_id": request.body["input_file_id"],
            }
            self.batches[number] = job
            return _json({"job": job}, 201)
        if (method, path) == ("GET", "/v1/batches"):
            return _json(list(self.batches.values()))
        if method == "GET" and (found := re.fullmatch("/v1/batches/(.+)", path)):
            return (
                _json(self._looked_at(self.batches[found[1]])) if found[1] in self.batches else failed(404, "no batch")
            )
        return failed(404, f"no such address: {method} {path}")

    def _looked_at(self, job: dict[str, Any]) -> dict[str, Any]:
        if self.statuses:
            job["status"] = self.statuses.pop(0)
        elif "output_file_id" not in job:
            job["status"] = self.final
            answers, errors = [], []
            # as the Batch API does: not in the order of the requests
            for number, line in enumerate(reversed(self.files[job["input_file_id"]].splitlines())):
                row = json.loads(line)
                made = self.script(Request(number, "BATCH", CHAT, {}, row["body"], time.monotonic()))
                response = {"status_code": made.status, "body": json.loads(made.body)}
                (answers if made.status == 200 else errors).append(
                    {"custom_id": row["custom_id"], "response": response}
                )
            for key, rows in (("output_file_id", answers), ("error_file_id", errors)):
                job[key] = f"{key}-{job['id']}" if rows else None
                self.files[f"{key}-{job['id']}"] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        return job


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body at once: apart, each reply takes 40 ms (Nagle)

        def answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            made = server.reply(self.command, self.path, self.headers, content)
            self.send_response(made.status)
            for name, value in {**made.headers, "Content-Length": str(len(made.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(made.body if made.cut is None else made.body[: made.cut])
            self.close_connection = made.cut is not None

        do_GET = do_POST = do_PUT = answer  # noqa: N815 (the library's names)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
