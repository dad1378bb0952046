"""Asking by the Batch API: what is paid for is found again, wherever the run before was killed."""

import json
import re
from dataclasses import replace
from functools import partial

import asked
import pytest
from asked import KEY, asking, bodies, echo, hurry, place
from chat_server import CHAT, ChatServer, Reply, completion, failed, said

from refusal.artifacts import read_json, write_json
from refusal.judges import batches
from refusal.judges.base import Answer, Keep
from refusal.judges.batches import in_batches

ask = partial(asked.ask, way=in_batches)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    hurry(monkeypatch)


class TestBatch:
    """By the Batch API; what is paid for is found again, wherever the run before was killed."""

    def kill(self, server, monkeypatch, folder, *texts):
        """A run that is killed while it waits for its batch."""

        def killed(_seconds):
            raise KeyboardInterrupt

        server.statuses = ["IN_PROGRESS"]
        with monkeypatch.context() as patch:
            patch.setattr(batches.time, "sleep", killed)
            with pytest.raises(KeyboardInterrupt):
                ask(server, *texts, folder=folder)

    def test_answers(self, tmp_path, caplog):
        caplog.set_level("INFO", "refusal")
        with ChatServer(echo) as server:
            server.statuses = ["VALIDATING", "IN_PROGRESS", "IN_PROGRESS"]
            found, error = ask(server, "a", "b", "c", "b", folder=tmp_path)
            ((number, job),) = server.batches.items()
            rows = [json.loads(line) for line in server.files[job["input_file_id"]].splitlines()]
        assert (found, error) == ({n: Answer(f"to {text}") for n, text in enumerate("abcb")}, None)
        assert server.chats == []
        assert [row["body"] for row in rows] == bodies("a", "b", "c")  # the same request once
        assert len({row["custom_id"] for row in rows}) == 3
        assert max(len(row["custom_id"]) for row in rows) <= 64
        assert server.asked("POST", "/v1/batches")[0].body == {
            "endpoint": CHAT,
            "input_file_id": job["input_file_id"],
        }
        assert list(tmp_path.iterdir()) == []  # nothing is left to be seen
        who = f"rubric judge: {place(server)}: batch {number}"
        assert caplog.messages == [
            f"{who}: 3 requests; a run that is killed finds it again",
            f"{who}: VALIDATING, 0% done",
            f"{who}: IN_PROGRESS, 0% done",
            "rubric judge: 4 answers for $0.0005 (400 tokens sent, 40 written)",
        ]

    def test_without_a_folder(self):
        with ChatServer(echo) as server:
            assert ask(server, "a") == ({0: Answer("to a")}, None)

    def test_none_to_none(self, tmp_path):
        with ChatServer(echo) as server:
            assert ask(server, folder=tmp_path) == ({}, None)
        assert server.requests == []

    def test_errors_of_single_requests(self, tmp_path):
        script = {
            "refused": lambda _request: failed(400, "odd"),
            "failed": lambda _request: failed(500, "oops"),
            "unread": lambda _request: Reply(body=b'{"choices": []}'),
            "empty": lambda _request: said(""),
        }
        with ChatServer(lambda request: script[request.text](request)) as server:
            found, error = ask(server, *script, folder=tmp_path)
            assert found == {0: Answer("", "HTTP 400: odd"), 3: Answer("")}
            assert error.startswith("rubric judge: 2 of 4 responses got no answer (last: HTTP ")
            # asked again, these alone
            script["failed"] = script["unread"] = echo
            found, error = ask(server, "failed", "unread", folder=tmp_path)
        assert (found, error) == ({0: Answer("to failed"), 1: Answer("to unread")}, None)
        assert len(server.batches) == 2

    ERRORS = (
        (
            {"error": {"message": "Invalid model", "code": "model_not_available"}},
            "does not have m (HTTP 400: Invalid model)",
        ),
        ({"error": {"message": "input exceeds the context length"}}, None),
        ({"error": {"message": "worker died"}}, "(last: worker died)"),
        ({"error": "worker died"}, "(last: worker died)"),
        ({"response": {"status_code": "odd"}}, "(last: HTTP odd)"),
        ({}, "(last: a line of a batch with neither answer nor error)"),
    )

    @pytest.mark.parametrize(("row", "why"), ERRORS)
    def test_errors_as_the_batch_api_words_them(self, row, why, tmp_path):
        def intercept(request):
            if request.path.endswith("/content"):
                name = json.loads(server.files[next(iter(server.files))])["custom_id"]
                return Reply(body=b"\nnot JSON\n[]\n" + json.dumps({"custom_id": name, **row}).encode())
            return None

        with ChatServer(lambda _request: failed(500), intercept) as server:
            found, error = ask(server, "a", folder=tmp_path)
        if why is None:
            assert (found, error) == ({0: Answer("", "HTTP 400: input exceeds the context length")}, None)
        else:
            assert found == {}
            assert why in error

    def test_a_completion_right_in_the_line(self, tmp_path):
        def intercept(request):
            if request.path.endswith("/content"):
                name = json.loads(server.files[next(iter(server.files))])["custom_id"]
                return Reply(body=json.dumps({"custom_id": name, "response": completion("x")}).encode())
            return None

        with ChatServer(echo, intercept) as server:
            assert ask(server, "a", folder=tmp_path) == ({0: Answer("x")}, None)

    def test_killed_while_it_waits(self, tmp_path, monkeypatch):
        with ChatServer(echo) as server:
            self.kill(server, monkeypatch, tmp_path, "a", "b")
            (path,) = tmp_path.iterdir()
            (job,) = server.batches.values()
            row = read_json(path)
            assert (row["file"], row["batch"], len(row["requests"])) == (job["input_file_id"], job["id"], 2)
            # the next run has more to ask: the rest alone is asked for
            found, error = ask(server, "c", "b", "a", folder=tmp_path)
            sent = [len(content.splitlines()) for name, content in server.files.items() if name.startswith("file-")]
        assert (found, error) == ({n: Answer(f"to {text}") for n, text in enumerate("cba")}, None)
        assert sent == [2, 1]
        assert list(tmp_path.iterdir()) == []

    def test_the_next_run_asks_for_less(self, tmp_path, monkeypatch):
        """The rest stays to be seen by whoever needs it."""
        with ChatServer(echo) as server:
            self.kill(server, monkeypatch, tmp_path, "a", "b")
            assert ask(server, "a", folder=tmp_path) == ({0: Answer("to a")}, None)
            assert ask(server, "c", folder=tmp_path) == ({0: Answer("to c")}, None)
            assert ask(server, "b", folder=tmp_path) == ({0: Answer("to b")}, None)
        assert len(server.batches) == 2
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("when", ["before it was made", "after", "its answer was lost"])
    def test_killed_while_it_is_made(self, when, tmp_path, monkeypatch):
        """The run knows the file that the batch reads; whether there is a batch, the service knows."""

        def intercept(request):
            if (request.method, request.path) != ("POST", "/v1/batches") or request.number:
                return None
            if when == "before it was made":
                return Reply(500)
            server._usual(request)
            return Reply(504) if when == "after" else replace(Reply(body=b"lost"), cut=1)

        with ChatServer(echo, intercept) as server:
            found, error = ask(server, "a", "b", folder=tmp_path)
            assert found == {}
            assert error.startswith(f"rubric judge: {place(server)}: making a batch failed (")
            assert error.endswith("): run again later: what was paid for is found again")
            (path,) = tmp_path.iterdir()
            assert read_json(path)["batch"] is None
            found, error = ask(server, "a", "b", folder=tmp_path)
        assert (found, error) == ({0: Answer("to a"), 1: Answer("to b")}, None)
        assert len(server.batches) == 1
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("number", [None, "batch-1"])
    def test_that_of_another_run_is_left_alone(self, number, tmp_path):
        """It may be about to make it, or be waiting for it."""
        row = {"file": "file-1", "batch": number, "requests": ["another"]}
        write_json(tmp_path / "batch-x.json", row)
        with ChatServer(echo) as server:
            assert ask(server, "a", folder=tmp_path) == ({0: Answer("to a")}, None)
        assert read_json(tmp_path / "batch-x.json") == row
        assert server.asked("GET", "/v1/batches(/batch-1)?") == []

    def test_killed_before_all_is_kept(self, tmp_path):
        found = {}

        def kept(number, answer):
            if found:
                raise KeyboardInterrupt
            found[number] = answer

        with ChatServer(echo) as server:
            with pytest.raises(KeyboardInterrupt):
                asking(server).ask(bodies("a", "b"), Keep(kept, tmp_path), in_batches)
            ((number, _),) = found.items()
            left = "ab"[1 - number]
            assert ask(server, left, folder=tmp_path) == ({0: Answer(f"to {left}")}, None)
        assert len(server.batches) == 1

    def test_it_fails(self, tmp_path):
        with ChatServer(echo) as server:
            server.statuses = ["FAILED"]
            found, error = ask(server, "a", folder=tmp_path)
            ((number, _),) = server.batches.items()
            assert (found, error) == (
                {},
                f"rubric judge: {place(server)}: batch {number} failed (no reason given): mend that, and run again",
            )
            # and is not waited for again
            assert ask(server, "a", folder=tmp_path) == ({0: Answer("to a")}, None)

    @pytest.mark.parametrize("status", ["EXPIRED", "CANCELLED"])
    def test_it_ends_early(self, status, tmp_path):
        with ChatServer(echo) as server:
            server.statuses = [status]
            found, error = ask(server, "a", folder=tmp_path)
            ((number, _),) = server.batches.items()
        assert (found, error) == (
            {},
            f"rubric judge: 1 of 1 responses got no answer (last: batch {number} ended without it ({status})): the"
            " others are kept: run again later",
        )

    def test_a_refused_key(self, tmp_path):
        with ChatServer(echo, lambda _request: failed(401, f"Invalid key {KEY}")) as server:
            assert ask(server, "a", folder=tmp_path) == (
                {},
                f"rubric judge: {place(server)} refuses the key (HTTP 401: Invalid key [key]): set TOGETHER_API_KEY to"
                " one that is valid there",
            )
        assert len(server.requests) == 1

    CALLS = (
        ("POST", "/v1/files", "uploading a batch"),
        ("PUT", "/store/.*", "uploading a batch"),
        ("POST", "/v1/files/.*/preprocess", "uploading a batch"),
        ("POST", "/v1/batches", "making a batch"),
        ("GET", "/v1/batches/.*", "waiting for batch .*"),
        ("GET", "/v1/files/.*/content", "fetching answers of a batch"),
    )
    FAILURES = (
        ("500", Reply(500), CALLS),
        ("cut", replace(Reply(body=b"{}" * 50), cut=3), CALLS),
        # of the store, nothing but the status is read
        ("HTML", Reply(body=b"<html>", headers={"Content-Type": "text/html"}), CALLS[:1] + CALLS[2:]),
        ("another object", Reply(body=b"{}", headers={"Content-Type": "application/json"}), CALLS[:1] + CALLS[2:]),
    )

    @pytest.mark.parametrize(
        ("reply", "method", "path", "what"),
        [
            pytest.param(reply, *call, id=f"{name}-{call[2]}-{call[0]}")
            for name, reply, calls in FAILURES
            for call in calls
        ],
    )
    def test_a_call_that_fails(self, reply, method, path, what, tmp_path):
        """One line, and the next run ends well, with one batch that is paid for."""
        broken = True

        def intercept(request):
            return reply if broken and request.method == method and re.fullmatch(path, request.path) else None

        with ChatServer(echo, intercept) as server:
            found, error = ask(server, "a", folder=tmp_path)
            assert found == {}
            assert re.fullmatch(
                rf"rubric judge: {place(server)}: {what} failed \(.+\): run again later: what was paid for is found"
                " again",
                error,
            )
            broken = False
            assert ask(server, "a", folder=tmp_path) == ({0: Answer("to a")}, None)
        assert len(server.batches) == 1

    def test_a_batch_that_the_service_does_not_know(self, monkeypatch, tmp_path):
        """Made with another key, or long ago."""
        with ChatServer(echo) as server:
            self.kill(server, monkeypatch, tmp_path, "a")
            server.batches.clear()
            found, error = ask(server, "a", folder=tmp_path)
        number = read_json(next(tmp_path.iterdir()))["batch"]
        assert (found, error) == (
            {},
            f"rubric judge: {place(server)}: waiting for batch {number} failed (HTTP 404: no batch): is it Together,"
            f" and the key that of the batch? If so, delete batch-*.json in {tmp_path}, and it is asked anew; if not,"
            " set batch to false",
        )

    def test_parts(self, tmp_path, monkeypatch):
        monkeypatch.setattr(batches, "MOST_REQUESTS", 2)
        monkeypatch.setattr(batches, "MOST_BYTES", 1_800)
        texts = ["a", "b", "c", "x" * 1_500, "d"]
        with ChatServer(echo) as server:
            found, error = ask(server, *texts, folder=tmp_path)
            sent = [len(content.splitlines()) for name, content in server.files.items() if name.startswith("file-")]
        assert (found, error) == ({number: Answer(f"to {text}") for number, text in enumerate(texts)}, None)
        assert sent == [2, 1, 1, 1]

    def test_the_estimate_is_of_what_is_not_paid_for(self, tmp_path, monkeypatch):
        texts = ["x" * 3_000, "y" * 3_000]
        with ChatServer(echo) as server:
            self.kill(server, monkeypatch, tmp_path, texts[0])
            found, error = ask(server, *texts, folder=tmp_path, spend_limit_usd=0.0015)
            assert (len(found), error) == (2, None)
            found, error = ask(server, "z", *texts, folder=tmp_path, spend_limit_usd=0.0015)
        assert (found, len(server.batches)) == ({}, 2)
        assert error == (
            "rubric judge: 3 requests may cost $0.0021, and spend_limit_usd is $0.0015: raise it in the judge's file,"
            " or judge fewer responses"
        )
