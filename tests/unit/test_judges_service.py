"""Asking a chat service: a real server on the loopback misbehaves, and there is an answer, or a clean stop."""

import json
import logging
import re
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
from asked import KEY, SERVICE, ask, asking, bodies, echo, hurry, place
from chat_server import ChatServer, Reply, completion, failed, said

from refusal.judges import service
from refusal.judges.base import Answer, Keep
from refusal.judges.batches import in_batches
from refusal.judges.service import TOGETHER, one_by_one


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    hurry(monkeypatch)


class TestAnswers:
    def test_each_with_its_number(self):
        texts = [f"t{number}" for number in range(12)]
        with ChatServer(echo) as server:
            found, error = ask(server, *texts)
            assert [request.body for request in sorted(server.chats, key=lambda one: int(one.text[1:]))] == bodies(
                *texts
            )
        assert (found, error) == ({number: Answer(f"to t{number}") for number in range(12)}, None)

    def test_none_to_none(self):
        with ChatServer(echo) as server:
            assert ask(server) == ({}, None)
        assert server.requests == []

    def test_what_cannot_be_read_is_an_answer_all_the_same(self):
        replies = {
            "empty": said(""),
            "none": said(None),
            "refused": said(None, refusal="I will not judge this."),
            "half": said("cut \ud83d"),
            "spaces": said("  x\n"),
        }
        with ChatServer(lambda request: replies[request.text]) as server:
            found, error = ask(server, *replies)
        assert error is None
        assert [found[number].raw for number in range(5)] == ["", "", "I will not judge this.", "cut �", "  x\n"]

    def test_they_are_kept_by_the_calling_thread_as_they_come(self):
        threads, seen = set(), threading.Event()

        def script(request):
            # the second is answered only once the first has been kept
            if request.text == "b":
                assert seen.wait(5)
            return echo(request)

        def kept(_number, _answer):
            threads.add(threading.current_thread())
            seen.set()

        with ChatServer(script) as server:
            asking(server).ask(bodies("a", "b"), Keep(kept), one_by_one)
        assert threads == {threading.current_thread()}

    def test_no_more_at_once_than_allowed(self):
        with ChatServer(lambda request: replace(echo(request), delay_s=0.05)) as server:
            found, error = ask(server, *map(str, range(13)), concurrency=3)
        assert (len(found), error, server.most_at_once) == (13, None, 3)

    def test_the_first_goes_alone(self):
        with ChatServer(lambda request: replace(echo(request), delay_s=0.1)) as server:
            ask(server, "a", "b", "c")
        first, *others = [request.at for request in server.chats]
        assert min(others) - first >= 0.1


BAD = {
    "429": failed(429, "slow down"),
    "500": failed(500, "oops"),
    "503": Reply(503),
    "408": failed(408),
    "a cut body": replace(said("half of it"), cut=20),
    "HTML": Reply(body=b"<html>\n<body>Bad gateway</body></html>", headers={"Content-Type": "text/html"}),
    "HTML that claims to be JSON": Reply(body=b"<html>", headers={"Content-Type": "application/json"}),
    "bad JSON": Reply(body=b'{"choices": [', headers={"Content-Type": "application/json"}),
    "deep JSON": Reply(body=b"[" * 100_000, headers={"Content-Type": "application/json"}),
    "no body": Reply(),
    "no choices": Reply(body=b'{"choices": []}'),
    "no list of choices": Reply(body=b'{"choices": {"0": 1}}'),
    "no message": Reply(body=b'{"choices": [{}]}'),
    "an error with status 200": failed(200, "overloaded"),
    "content that is no text": said(7),
    "not an object": Reply(body=b"[1]"),
}

SAID = {
    "429": "HTTP 429: slow down",
    "500": "HTTP 500: oops",
    "503": "HTTP 503",
    "a cut body": (
        "the connection failed: peer closed connection without sending complete message body (received 20 bytes,"
        " expected {size})"
    ),
    "HTML": "HTTP 200 without a completion: <html> <body>Bad gateway</body></html>",
    "bad JSON": 'HTTP 200 without a completion: {{"choices": [',
    "no choices": 'HTTP 200 without a completion: {{"choices": []}}',
    "an error with status 200": "HTTP 200 without a completion: overloaded",
}


class TestTriedAgain:
    """What may pass: answered at the next try."""

    @pytest.mark.parametrize("bad", BAD)
    def test_once(self, bad):
        with ChatServer(lambda request: BAD[bad] if request.number == 0 else echo(request)) as server:
            assert ask(server, "a", "b") == ({0: Answer("to a"), 1: Answer("to b")}, None)
        assert [request.text for request in server.chats] == ["a", "a", "b"]

    @pytest.mark.parametrize("bad", SAID)
    def test_to_no_avail(self, bad):
        """The others are kept, this one is not: the next run asks for it alone."""
        script = lambda request: BAD[bad] if request.text == "b" else echo(request)  # noqa: E731
        with ChatServer(script) as server:
            found, error = ask(server, "a", "b", "c")
        why = SAID[bad].format(size=len(BAD[bad].body))
        assert found == {0: Answer("to a"), 2: Answer("to c")}
        assert error == (
            f"rubric judge: 1 of 3 responses got no answer (last: {why}): the others are kept: run again later"
        )
        assert sum(request.text == "b" for request in server.chats) == 3

    def test_or_is_invalid_for_now(self):
        script = lambda request: failed(500, "oops") if request.text == "b" else echo(request)  # noqa: E731
        with ChatServer(script) as server:
            found, error = ask(server, "a", "b", unanswered="invalid")
        assert (found, error) == ({0: Answer("to a"), 1: Answer("", "no answer: HTTP 500: oops", lasting=False)}, None)

    def test_a_timeout(self):
        script = lambda request: replace(echo(request), delay_s=1) if request.text == "b" else echo(request)  # noqa: E731
        with ChatServer(script) as server:
            found, error = ask(server, "a", "b", timeout_s=0.1, tries=2)
        assert found == {0: Answer("to a")}
        assert error == (
            "rubric judge: 1 of 2 responses got no answer (last: no answer within 0.1 s): the others are kept: run"
            " again later"
        )

    def test_nobody_there(self):
        with ChatServer(echo) as server:
            pass
        found, error = ask(server, "a")
        assert (found, error) == (
            {},
            "rubric judge: 1 of 1 responses got no answer (last: the connection failed: [Errno 111] Connection"
            " refused): the others are kept: run again later",
        )


class TestRetryAfter:
    @pytest.mark.parametrize("status", [429, 503])
    def test_seconds(self, status):
        with ChatServer(
            lambda request: failed(status, Retry_After="0.4") if request.number == 0 else echo(request)
        ) as server:
            assert ask(server, "a") == ({0: Answer("to a")}, None)
        first, second = [request.at for request in server.chats]
        assert 0.4 <= second - first < 2

    def test_a_date(self):
        def script(request):
            until = datetime.now(UTC) + timedelta(seconds=2)
            return (
                failed(429, Retry_After=format_datetime(until, usegmt=True)) if request.number == 0 else echo(request)
            )

        with ChatServer(script) as server:
            assert ask(server, "a") == ({0: Answer("to a")}, None)
        first, second = [request.at for request in server.chats]
        assert 0.9 <= second - first < 4  # the date has whole seconds

    @pytest.mark.parametrize("value", ["soon", "-5", "nan", "Wed, 99 Nov 2026"])
    def test_nonsense_is_as_if_it_were_not_there(self, value):
        with ChatServer(
            lambda request: failed(429, Retry_After=value) if request.number == 0 else echo(request)
        ) as server:
            assert ask(server, "a") == ({0: Answer("to a")}, None)

    @pytest.mark.parametrize("value", ["3600", "inf"])
    def test_longer_than_anybody_waits(self, value):
        with ChatServer(lambda _request: failed(429, "quota", Retry_After=value)) as server:
            found, error = ask(server, "a")
        assert (len(server.chats), found) == (1, {})
        assert error == (
            "rubric judge: 1 of 1 responses got no answer (last: HTTP 429: quota): the others are kept: run again later"
        )

    def test_waits_double_up_to_the_longest(self, monkeypatch):
        monkeypatch.setattr(service, "BACK_OFF_S", (0.05, 0.1))
        with ChatServer(lambda _request: failed(500)) as server:
            ask(server, "a", tries=7)
        at = [request.at for request in server.chats]
        for pause, (one, other) in zip((0.05, *[0.1] * 5), pairwise(at), strict=True):
            assert 0.75 * pause <= other - one < pause + 0.6  # the last would be 1.2 s at least


class TestRefused:
    """What is wrong with one request: its answer, for good."""

    @pytest.mark.parametrize("status", [400, 413, 422])
    def test_alone(self, status):
        script = lambda request: failed(status, "odd text") if request.text == "b" else echo(request)  # noqa: E731
        with ChatServer(script) as server:
            found, error = ask(server, "a", "b", "c")
        assert error is None
        assert found == {0: Answer("to a"), 1: Answer("", f"HTTP {status}: odd text"), 2: Answer("to c")}
        assert len(server.chats) == 3

    def test_too_long_by_the_words_of_together(self):
        """Which come with 403 too, elsewhere a refused key."""
        words = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193"
        with ChatServer(lambda _request: failed(403, words)) as server:
            found, error = ask(server, *"abcde")
        assert (found, error) == ({number: Answer("", f"HTTP 403: {words}") for number in range(5)}, None)

    def test_before_the_first_answer(self):
        """They may be the fault of the settings, so they are kept only once another was answered."""
        script = lambda request: failed(400, "odd") if request.text in "ab" else echo(request)  # noqa: E731
        with ChatServer(script) as server:
            found, error = ask(server, "a", "b", "c")
        refused = Answer("", "HTTP 400: odd")
        assert (found, error) == ({0: refused, 1: refused, 2: Answer("to c")}, None)

    def test_all(self):
        with ChatServer(lambda _request: failed(400, "max_token is unknown")) as server:
            found, error = ask(server, *"abcdef")
        assert (len(server.chats), found) == (3, {})
        assert error == (
            f"rubric judge: {place(server)} left 3 requests in a row without an answer (last: HTTP 400: max_token is"
            " unknown): what was answered is kept: run again later, or check model, base_url and max_tokens in the"
            " judge's file"
        )

    @pytest.mark.parametrize("way", [one_by_one, in_batches])
    def test_many_that_are_all_are_none_for_good(self, way):
        """As after a mistake in the settings, which only another word of them mends."""
        with ChatServer(lambda _request: failed(400, "bad max_tokens")) as server:
            found, said_ = ask(server, *"abcdef", way=way)
        assert found == {}
        assert said_.startswith(f"rubric judge: {place(server)} left ")
        assert "requests in a row without an answer (last: HTTP 400: bad max_tokens): what was answered" in said_

    def test_a_few_that_are_all(self):
        """Perhaps the fault of the settings: used now, and asked about again."""
        with ChatServer(lambda _request: failed(400, "odd")) as server:
            assert ask(server, "a", "b") == (dict.fromkeys((0, 1), Answer("", "HTTP 400: odd", lasting=False)), None)


class TestStops:
    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refused_key(self, status):
        with ChatServer(lambda _request: failed(status, f"Invalid key {KEY}")) as server:
            found, error = ask(server, *"abcdef")
        assert (len(server.chats), found) == (1, {})
        assert error == (
            f"rubric judge: {place(server)} refuses the key (HTTP {status}: Invalid key [key]): set TOGETHER_API_KEY to"
            " one that is valid there"
        )

    @pytest.mark.parametrize(("status", "code"), [(404, None), (404, "model_not_found"), (400, "model_not_available")])
    def test_a_removed_model(self, status, code):
        """Together answers 400 for some that it no longer serves."""
        with ChatServer(lambda _request: failed(status, "Unable to access model m", code)) as server:
            found, error = ask(server, *"abcdef")
        assert (len(server.chats), found) == (1, {})
        assert error == (
            f"rubric judge: {place(server)} does not have m (HTTP {status}: Unable to access model m): set model in the"
            " judge's file to one that it has, or mend base_url"
        )

    def test_no_credit(self):
        with ChatServer(lambda _request: failed(402, "no credit")) as server:
            assert ask(server, "a", "b") == (
                {},
                f"rubric judge: {place(server)} wants to be paid (HTTP 402: no credit): add credit there and run again:"
                " answers are kept",
            )

    def test_another_address(self):
        with ChatServer(lambda _request: Reply(405, b"<html>Method not allowed</html>")) as server:
            assert ask(server, "a") == (
                {},
                f"rubric judge: {place(server)} cannot be asked (HTTP 405: <html>Method not allowed</html>): mend"
                " base_url in the judge's file",
            )

    def test_in_the_middle_what_is_under_way_is_kept(self):
        """A key that is revoked: the other three are on their way, and nothing is sent after them."""

        def script(request):
            if request.text == "b":
                return replace(failed(401, "revoked"), delay_s=0.1)
            return replace(echo(request), delay_s=0.3 if request.number else 0)

        with ChatServer(script) as server:
            found, error = ask(server, *"abcdefghi")
        assert "refuses the key (HTTP 401: revoked)" in error
        assert sorted(["b", *("abcdefghi"[number] for number in found)]) == sorted(one.text for one in server.chats)
        assert len(server.chats) <= 5

    def test_a_service_that_is_down_is_not_hammered(self):
        with ChatServer(lambda _request: failed(503, "down")) as server:
            found, error = ask(server, *map(str, range(100)), tries=2)
        assert (len(server.chats), found, server.most_at_once) == (6, {}, 1)
        assert error == (
            f"rubric judge: {place(server)} left 3 requests in a row without an answer (last: HTTP 503: down): what was"
            " answered is kept: run again later, or check model, base_url and max_tokens in the judge's file"
        )

    def test_nor_one_that_breaks_down(self):
        script = lambda request: echo(request) if request.number < 20 else failed(503, "down")  # noqa: E731
        with ChatServer(script) as server:
            found, error = ask(server, *map(str, range(500)), tries=2, concurrency=6)
        assert len(found) == 20
        assert "left 6 requests in a row" in error
        assert len(server.chats) <= 20 + 2 * 12

    def test_failures_here_and_there_stop_nothing(self):
        script = lambda request: failed(500, "odd") if request.text in "bdfhj" else echo(request)  # noqa: E731
        with ChatServer(script) as server:
            found, error = ask(server, *"abcdefghij", concurrency=1)
        assert sorted(found) == [0, 2, 4, 6, 8]
        assert error.startswith("rubric judge: 5 of 10 responses got no answer (last: HTTP 500: odd)")

    def test_a_stop_ends_the_waiting(self):
        """One waits for half a minute when another is told that the key is gone."""
        script = {
            "a": echo,
            "b": lambda _request: failed(429, Retry_After="30"),
            "c": lambda _request: replace(failed(401), delay_s=0.2),
        }
        started = time.monotonic()
        with ChatServer(lambda request: script[request.text](request)) as server:
            found, error = ask(server, "a", "b", "c")
        assert "refuses the key" in error
        assert found == {0: Answer("to a")}
        assert len(server.chats) == 3  # not asked again behind its wait
        assert time.monotonic() - started < 5

    def test_interrupted(self, caplog):
        """What is under way is paid for, so it is waited for and kept."""
        caplog.set_level("INFO", "refusal")
        found = {}

        def kept(number, answer):
            found[number] = answer
            if number == 1:
                raise KeyboardInterrupt

        def script(request):
            return replace(echo(request), delay_s=0.0 if request.text in "ab" else 0.3)

        with ChatServer(script) as server, pytest.raises(KeyboardInterrupt):
            asking(server).ask(bodies(*"abcdefgh"), Keep(kept), one_by_one)
        assert sorted("abcdefgh"[number] for number in found) == sorted(request.text for request in server.chats)
        assert 2 <= len(found) <= 5
        assert any(
            re.fullmatch(r"rubric judge: .*: interrupted: \d answers are under way, and kept once they are here", line)
            for line in caplog.messages
        )


class TestCost:
    def test_of_the_tokens_that_were_used(self, caplog):
        caplog.set_level("INFO", "refusal")
        with ChatServer(lambda _request: said("x", (1_000, 500))) as server:
            ask(server, "a", "b", "c")
        assert caplog.messages == ["rubric judge: 3 answers for $0.0060 (3,000 tokens sent, 1,500 written)"]

    @pytest.mark.parametrize(
        "usage", [None, "many", {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": 1}]
    )
    def test_by_the_rule_of_the_estimate_where_the_service_says_nothing(self, usage, caplog):
        caplog.set_level("INFO", "refusal")
        reply = Reply(body=json.dumps({**completion("y" * 30), "usage": usage}).encode())
        with ChatServer(lambda _request: reply) as server:
            ask(server, "x" * 300)
        assert caplog.messages == ["rubric judge: 1 answers for $0.0001 (108 tokens sent, 10 written)"]

    def test_the_estimate_needs_neither_key_nor_network(self, monkeypatch):
        monkeypatch.delenv("TOGETHER_API_KEY")
        monkeypatch.setattr("socket.socket", None)
        assert SERVICE.estimate(bodies("x" * 300, "é" * 150)) == (
            "about $0.0003 at most (2 requests; about 216 tokens sent, one for 3 bytes; at most 20 tokens written)"
        )
        assert SERVICE.estimate([]) == "nothing"

    def test_an_estimate_above_the_limit_asks_nothing(self):
        with ChatServer(echo) as server:
            found, error = ask(server, "x" * 30_000, "y", spend_limit_usd=0.01)
        assert (server.requests, found) == ([], {})
        assert error == (
            "rubric judge: 2 requests may cost $0.0101, and spend_limit_usd is $0.0100: raise it in the judge's file,"
            " or judge fewer responses"
        )

    def test_the_limit_while_it_runs(self, caplog):
        """The service counts more tokens than the estimate: two at a cent make two, and one more was on its way."""
        caplog.set_level("INFO", "refusal")
        with ChatServer(lambda _request: said("x", (10_000, 0))) as server:
            found, error = ask(server, *map(str, range(20)), spend_limit_usd=0.02, concurrency=2)
        assert (len(found), len(server.chats)) in ((2, 2), (3, 3))
        assert error == (
            f"rubric judge: spend_limit_usd is spent ($0.0200): {20 - len(found)} of 20 requests were not sent, what"
            " was answered is kept: raise it and run again"
        )
        assert caplog.messages[-1].startswith(f"rubric judge: {len(found)} answers for $0.0{len(found)}00 (")

    def test_the_limit_with_the_last_answer_is_no_fault(self):
        with ChatServer(lambda _request: said("x", (10_000, 0))) as server:
            assert ask(server, "a", "b", spend_limit_usd=0.02, concurrency=1)[1] is None


class TestProgress:
    def test_what_was_sent_in_vain_counts(self):
        """The service worked for an answer that nobody can read, and says for how many tokens."""
        empty = {"choices": [], "usage": {"prompt_tokens": 5000, "completion_tokens": 500}}

        def reply(request):
            return Reply(body=json.dumps(empty).encode()) if request.number == 0 else said("yes", used=(5000, 500))

        with ChatServer(reply) as server:
            found, error = ask(server, "a", "b", "c", spend_limit_usd=0.012, concurrency=1)
        assert list(found) == [0]  # twice 6,000 tokens' worth is the limit
        assert error.startswith("rubric judge: spend_limit_usd is spent ($0.0120): 2 of 3 requests were not sent")

    def test_a_line_a_minute_with_the_cost_so_far(self, caplog, monkeypatch):
        caplog.set_level("INFO", "refusal")
        monkeypatch.setattr("refusal.cli._MINUTE", 0.0)
        with ChatServer(lambda _request: said("x", (1_000, 0))) as server:
            ask(server, "a", "b")
        assert [line.rsplit(",", 1)[0] for line in caplog.messages[:2]] == [
            f"rubric judge: {place(server)}: 1/2 answers, $0.0010 so far",
            f"rubric judge: {place(server)}: 2/2 answers, $0.0020 so far",
        ]

    def test_a_bar_on_a_terminal(self, capsys, monkeypatch):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        with ChatServer(lambda _request: said("x", (1_000, 0))) as server:
            ask(server, "a", "b")
        (*_, last) = capsys.readouterr().err.strip().split("\r")
        assert last.startswith(f"rubric judge: {place(server)}: 100%")
        assert "2/2" in last
        assert "$0.0020" in last


class TestKey:
    @pytest.mark.parametrize("value", [None, "", " \n"])
    def test_none(self, value, monkeypatch):
        monkeypatch.delenv("TOGETHER_API_KEY") if value is None else monkeypatch.setenv("TOGETHER_API_KEY", value)
        with ChatServer(echo) as server:
            assert ask(server, "a") == (
                {},
                "rubric judge: TOGETHER_API_KEY is not set: export the service's key (any word for a service"
                " without keys)",
            )
        assert server.requests == []

    @pytest.mark.parametrize("value", ["two words", "schlüssel", "a\nb"])
    def test_one_that_cannot_be_sent(self, value, monkeypatch):
        monkeypatch.setenv("TOGETHER_API_KEY", value)
        with ChatServer(echo) as server:
            assert ask(server, "a") == (
                {},
                "rubric judge: TOGETHER_API_KEY holds a character that no key has, such as a space: set it anew",
            )

    def test_it_is_sent_without_the_line_break_that_a_file_ends_with(self, monkeypatch):
        monkeypatch.setenv("TOGETHER_API_KEY", f"{KEY}\n")
        with ChatServer(echo) as server:
            assert ask(server, "a")[1] is None
        assert [request.headers["Authorization"] for request in server.chats] == [f"Bearer {KEY}"]

    @pytest.mark.parametrize("way", [one_by_one, in_batches])
    def test_it_stands_in_no_log_answer_file_or_error(self, way, caplog, tmp_path):
        """Not even where the service repeats it, and with all that the client logs."""
        caplog.set_level(logging.DEBUG)
        script = {
            "a": echo,
            "b": lambda _request: failed(400, f"Bearer {KEY} may not"),
            "c": lambda _request: failed(500, f"Bearer {KEY} broke"),
        }
        with ChatServer(lambda request: script[request.text](request)) as server:
            found, error = ask(server, "a", "b", "c", way=way, folder=tmp_path)
        assert found[1] == Answer("", "HTTP 400: Bearer [key] may not")
        assert "HTTP 500: Bearer [key] broke" in error
        written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
        assert KEY not in f"{found}{error}{caplog.text}{written}"


def test_the_address_of_together_is_that_of_its_client(monkeypatch):
    from together import Together

    monkeypatch.delenv("TOGETHER_BASE_URL", raising=False)
    assert str(Together(api_key="x").base_url).rstrip("/") == TOGETHER
