"""A server on the loopback that serves a folder as a model of the hub, at one commit; gated, if a token is named."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        hub = self.server
        path = self.path.partition("?")[0]
        hub.asked.append(f"{self.command} {path}")
        resolved, tree = f"/{hub.id}/resolve/{hub.commit}/", f"/api/models/{hub.id}/tree/{hub.commit}"
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif path == tree:
            self._send(200, json.dumps([_listed(file) for file in sorted(hub.folder.iterdir())]).encode())
        elif path.startswith(resolved) and (hub.folder / path.removeprefix(resolved)).is_file():
            content = (hub.folder / path.removeprefix(resolved)).read_bytes()
            self._send(200, content, {"ETag": f'"{_of(content)}"', "X-Repo-Commit": hub.commit})
        elif path.startswith((resolved, tree)):
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit})
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _send(self, status, body, headers=()):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def _listed(file: Path) -> dict:
    content = file.read_bytes()
    return {"type": "file", "path": file.name, "size": len(content), "oid": _of(content)}


def _of(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def hub(place: str, commit: str, folder: Path, token: str | None = None) -> Iterator[ThreadingHTTPServer]:
    """The server, until the block ends; `address` for HF_ENDPOINT, `asked` what was asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.id, server.commit, server.folder, server.token, server.asked = place, commit, folder, token, []
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
