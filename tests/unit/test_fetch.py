"""Published prompt sets: a real server on the loopback, folder mirrors, and everything that can go wrong between."""

import hashlib
import logging
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from refusal import fetch as fetching
from refusal.errors import UserError
from refusal.fetch import fetch, read_registry

ROOT = Path(__file__).parents[2]
NAME = "dataset/splits/harmful_train.json"
CONTENT = b'[{"instruction": "Do a bad thing", "category": null}]\n'
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REMEDY = "set datasets.mirror in config/config.yaml to a folder or URL that has it"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.paths.append(self.path)
        answer = self.server.answers[min(len(self.server.paths), len(self.server.answers)) - 1]
        status, body, promised = answer
        self.send_response(status)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """Answers each request with the next of `answers`, the last one again and again; `paths` are the requests."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.paths, made.answers = [], [whole(CONTENT)]
    made.base = f"http://127.0.0.1:{made.server_port}/repository/commit"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(autouse=True)
def _quick_and_direct(monkeypatch):
    monkeypatch.setattr(fetching, "_PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def registry(tmp_path):
    return write_registry(
        tmp_path, f"{NAME},{len(CONTENT)},{SHA256},1", f"dataset/splits/harmful_val.json,1,{'0' * 64},1"
    )


@pytest.fixture
def output(tmp_path):
    return tmp_path / "external" / NAME


def write_registry(folder, *rows, columns="path,bytes,sha256,rows"):
    path = folder / "published.csv"
    path.write_text("\n".join(["# where from, a licence", columns, *rows]) + "\n")
    return path


def whole(body, status=200):
    return status, body, len(body)


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def error_of(*arguments):
    with pytest.raises(UserError) as caught:
        fetch(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_nothing_left(output):
    assert list(output.parent.glob("*")) == []


class TestServer:
    def test_good(self, server, registry, output):
        fetch(NAME, registry, server.base, output)
        assert output.read_bytes() == CONTENT
        assert server.paths == [f"/repository/commit/{NAME}"]
        assert list(output.parent.iterdir()) == [output]
        # A group on a cluster shares the folder.
        assert output.stat().st_mode & 0o044 == 0o044

    def test_slash_after_the_base(self, server, registry, output):
        fetch(NAME, registry, server.base + "/", output)
        assert server.paths == [f"/repository/commit/{NAME}"]

    def test_the_right_file_is_kept_without_a_request(self, server, registry, output):
        fetch(NAME, registry, server.base, output)
        before = output.stat().st_mtime_ns
        fetch(NAME, registry, server.base, output)
        assert len(server.paths) == 1
        assert output.stat().st_mtime_ns == before

    def test_another_file_is_replaced_with_a_word(self, server, registry, output, caplog):
        output.parent.mkdir(parents=True)
        output.write_text("an older version")
        with caplog.at_level(logging.WARNING, "refusal"):
            fetch(NAME, registry, server.base, output)
        assert output.read_bytes() == CONTENT
        assert caplog.messages == [f"{output}: its sha256 is not that of {registry}: fetching it again"]

    def test_wrong_content_is_asked_for_once_and_not_kept(self, server, registry, output):
        server.answers = [whole(b"<html>log in</html>")]
        got = hashlib.sha256(b"<html>log in</html>").hexdigest()
        assert error_of(NAME, registry, server.base, output) == (
            f"{server.base}/{NAME}: wrong content, not kept: expected sha256 {SHA256} ({len(CONTENT)} bytes), "
            f"got {got} (19 bytes); see that its origin has the version that {registry} lists"
        )
        assert len(server.paths) == 1
        assert_nothing_left(output)

    def test_wrong_content_leaves_an_existing_file_alone(self, server, registry, output):
        server.answers = [whole(b"other")]
        output.parent.mkdir(parents=True)
        output.write_text("an older version")
        error_of(NAME, registry, server.base, output)
        assert output.read_text() == "an older version"

    def test_not_found_is_asked_for_once(self, server, registry, output):
        server.answers = [whole(b"no", 404)]
        assert error_of(NAME, registry, server.base, output) == (
            f"{server.base}/{NAME}: the server answers 404 Not Found; {REMEDY}"
        )
        assert len(server.paths) == 1
        assert_nothing_left(output)

    def test_a_busy_server_is_asked_again(self, server, registry, output):
        server.answers = [whole(b"busy", 503), whole(b"slower", 429), whole(CONTENT)]
        fetch(NAME, registry, server.base, output)
        assert output.read_bytes() == CONTENT
        assert len(server.paths) == 3

    def test_a_server_that_stays_busy(self, server, registry, output):
        server.answers = [whole(b"busy", 503)]
        assert error_of(NAME, registry, server.base, output) == (
            f"{server.base}/{NAME}: the server answers 503 Service Unavailable; {REMEDY}"
        )
        assert len(server.paths) == 3

    def test_cut_connection(self, server, registry, output):
        server.answers = [(200, CONTENT[:20], len(CONTENT))]
        message = error_of(NAME, registry, server.base, output)
        assert message.startswith(f"{server.base}/{NAME}: the connection broke off: ")
        assert message.endswith("; nothing was kept: run again")
        assert len(server.paths) == 3
        assert_nothing_left(output)

    def test_cut_once(self, server, registry, output):
        server.answers = [(200, CONTENT[:20], len(CONTENT)), whole(CONTENT)]
        fetch(NAME, registry, server.base, output)
        assert output.read_bytes() == CONTENT

    def test_connection_refused(self, registry, output):
        base = f"http://127.0.0.1:{closed_port()}"
        message = error_of(NAME, registry, base, output)
        assert re.fullmatch(
            re.escape(f"cannot reach {base}/{NAME}: ")
            + r"\[Errno \d+\] Connection refused"
            + re.escape(f"; {REMEDY}, or connect"),
            message,
        )
        assert_nothing_left(output)

    def test_a_silent_server(self, registry, output):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            base = f"http://127.0.0.1:{silent.getsockname()[1]}"
            message = error_of(NAME, registry, base, output, 0.05)
        assert message == f"cannot reach {base}/{NAME}: timed out; {REMEDY}, or connect"

    def test_another_scheme(self, registry, output):
        assert error_of(NAME, registry, "ftp://host", output) == (
            f"ftp://host/{NAME}: not an http(s) address: give one, or a folder"
        )


class TestFolder:
    @pytest.fixture
    def mirror(self, tmp_path):
        path = tmp_path / "mirror" / NAME
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
        return tmp_path / "mirror"

    def test_good(self, mirror, registry, output):
        fetch(NAME, registry, str(mirror), output)
        assert output.read_bytes() == CONTENT
        assert list(output.parent.iterdir()) == [output]

    def test_home(self, mirror, registry, output, monkeypatch):
        monkeypatch.setenv("HOME", str(mirror.parent))
        fetch(NAME, registry, "~/mirror", output)
        assert output.read_bytes() == CONTENT

    def test_wrong_content(self, mirror, registry, output):
        (mirror / NAME).write_bytes(b"other")
        assert error_of(NAME, registry, str(mirror), output).startswith(
            f"{mirror / NAME}: wrong content, not kept: expected sha256 {SHA256}"
        )
        assert_nothing_left(output)

    @pytest.mark.parametrize("lacking", ["file", "folder"])
    def test_missing(self, mirror, registry, output, lacking):
        folder = mirror if lacking == "file" else mirror.parent / "nowhere"
        (mirror / NAME).unlink()
        assert error_of(NAME, registry, str(folder), output) == (
            f"{folder / NAME}: no such file in the mirror: copy it there, "
            "or change datasets.mirror in config/config.yaml"
        )
        assert_nothing_left(output)


class TestRegistry:
    def test_the_projects_own(self):
        published = read_registry(ROOT / "data" / "published.csv")
        assert len(published) == 14
        assert published[NAME].rows == 260
        assert published[NAME].bytes == 34613

    def test_unknown_name_with_near_matches(self, registry, output):
        assert error_of("harmful_trian.json", registry, "unused", output) == (
            f"'harmful_trian.json' is not in {registry}: near matches are {NAME}"
        )

    def test_unknown_name_without(self, registry, output):
        assert error_of("pile", registry, "unused", output) == (
            f"'pile' is not in {registry}: it has {NAME}, dataset/splits/harmful_val.json"
        )

    def test_missing(self, tmp_path, output):
        path = tmp_path / "nothing.csv"
        assert error_of(NAME, path, "unused", output) == (
            f"{path}: no such file: give the table of published files, data/published.csv"
        )

    def test_other_columns(self, tmp_path, output):
        path = write_registry(tmp_path, columns="path,sha256")
        assert error_of(NAME, path, "unused", output) == (
            f"{path}: the first line must name the columns path,bytes,sha256,rows"
        )

    @pytest.mark.parametrize("row", ["a.json,1,0f,1", f"a.json,1,{SHA256}", f"a.json,many,{SHA256},1"])
    def test_broken_row(self, tmp_path, output, row):
        path = write_registry(tmp_path, f"{NAME},1,{SHA256},1", row)
        assert error_of(NAME, path, "unused", output) == (
            f"{path}: line 4: {row!r}: give a path, bytes, 64 small hexadecimal digits, rows"
        )


class TestScript:
    @staticmethod
    def run(*flags):
        command = [sys.executable, ROOT / "scripts" / "fetch.py", *map(str, flags)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_good(self, server, registry, output):
        done = self.run("--name", NAME, "--registry", registry, "--url", server.base, "--output", output)
        assert done.returncode == 0, done.stderr
        assert output.read_bytes() == CONTENT

    def test_the_mirror_goes_before_the_address(self, server, registry, output, tmp_path):
        flags = ("--name", NAME, "--registry", registry, "--url", server.base, "--mirror", tmp_path, "--output", output)
        done = self.run(*flags)
        assert done.returncode == 2
        assert done.stderr == (
            f"error: {tmp_path / NAME}: no such file in the mirror: copy it there, "
            "or change datasets.mirror in config/config.yaml\n"
        )
        assert server.paths == []

    def test_nowhere(self, registry, output):
        done = self.run("--name", NAME, "--registry", registry, "--output", output)
        assert done.returncode == 2
        assert done.stderr == "error: nowhere to fetch from: give --url or --mirror\n"
