"""Chats with the finished study's model: in a pipe, at a terminal, in a browser; the same words as the study's."""

import codecs
import importlib.util
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from refusal.artifacts import read_json, read_jsonl, write_json

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.workflow

COMBINATIONS = ("none", "0-1", "random-k1-s0", "add-0")


def completions(checkout, combination, kind="harmful"):
    return read_jsonl(checkout.folder / f"results/tiny/combinations/{combination}/completions/{kind}.jsonl")


def chat(checkout, *flags, lines=(), ok=0):
    """Run the chat in a pipe; what it wrote on both streams."""
    done = subprocess.run(
        [sys.executable, "scripts/chat.py", *flags],
        cwd=checkout.folder,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ok, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def console(finished):
    """What one chat says: first turns and a score under several combinations, then two turns beside the baseline."""
    val = read_jsonl(finished.folder / "results/tiny/prompts/harmful_val.jsonl")[0]["instruction"]
    prompts = [row["prompt"] for row in completions(finished, "none")[:4]]
    lines = ["/score"]
    for name in COMBINATIONS:
        lines.append(f"/ablate {name}")
        for prompt in (*prompts, val):
            lines += ["/reset", prompt]
    out, err = chat(
        finished, "--model", "tiny", "--json", lines=[*lines, "/reset", "/compare", "/ablate 0-1", *prompts[:2]]
    )
    return [json.loads(line) for line in out.splitlines()], err


def test_a_pipe_gets_the_study_s_own_replies_and_scores(finished, console):
    """Every first turn is the study's completion, token by token, and its score that of the study."""
    found, err = console
    fields = ("prompt", "response", "reasoning", "token_ids", "stop_token", "finish_reason", "n_tokens")
    for place, name in enumerate(COMBINATIONS):
        *replies, scored = found[5 * place : 5 * place + 5]
        rows = completions(finished, name)[:4]
        assert {reply["combination"] for reply in replies} == {name}
        assert [[reply[key] for key in fields] for reply in replies] == [[row[key] for key in fields] for row in rows]
        scores = read_json(finished.folder / f"results/tiny/combinations/{name}/scores.json")
        assert scored["refusal_score"] == pytest.approx(scores["by_prompt"]["harmful_refusal_score"][0], abs=1e-4)
    assert [(row["turn"], row["combination"]) for row in found[-4:]] == [
        (1, "none"),
        (1, "0-1"),
        (2, "none"),
        (2, "0-1"),
    ]
    assert "replies from now on: random-k1-s0\n" in err


def test_standard_output_has_the_replies_alone_until_something_is_wrong(finished):
    """The published scripts' spelling; baseline and ablated, of ranks that the study did not ablate."""
    row = completions(finished, "none")[0]
    flags = ["--vectors_ablated", "0-1-2", "--model_path", "resources/organisms/tiny", "--compare"]
    out, err = chat(finished, *flags, lines=[row["prompt"], "/ablate 0-99", "not asked"], ok=2)
    first, _second = out.splitlines()
    assert first == row["response"]
    *_, left, right, wrong = err.splitlines()
    assert (left, right) == ("none", "0-1-2, goes into the history")
    assert wrong.startswith('error: "0-99": results/tiny/top_directions.safetensors keeps')


MISTAKES = {
    "--model tiny --ablate 0-99": r'"0-99": results/tiny/top_directions\.safetensors keeps \d+ candidates \(ranks 0-\d',
    "--model tyni": "unknown model 'tyni': results/ has tiny, tiny1; config/models/ has llama3, smollm2,"
    " smollm2-refusing, tiny, tiny1$",
    "--model llama3": (
        "results/llama3/model.json: not made yet: run snakemake --cores 1"
        " results/llama3/combinations/none/basis.safetensors$"
    ),
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_what_cannot_be_is_said_in_a_line(finished, flags):
    out, err = chat(finished, *flags.split(), lines=["hello"], ok=2)
    assert out == ""
    assert re.match(f"error: {MISTAKES[flags]}", err)
    assert err.count("\n") == 1


class Terminal:
    """A chat at a terminal of 100 columns."""

    def __init__(self, folder, *flags):
        self.pid, self._place = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ.update(TERM="xterm", COLUMNS="100", LINES="40")
            os.environ.pop("NO_COLOR", None)
            os.execv(sys.executable, [sys.executable, str(ROOT / "scripts/chat.py"), *flags])
        self.seen, self._text = "", codecs.getincrementaldecoder("utf-8")("replace")

    def until(self, pattern, seconds=60):
        """Read until the pattern comes; what came, styles aside."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen, re.DOTALL)):
            assert time.monotonic() < end, self.seen
            if select.select([self._place], [], [], 1)[0]:
                seen = self.seen + self._text.decode(os.read(self._place, 65536))
                self.seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen).replace("\r\n", "\n")
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def type(self, text, enter="\r"):
        os.write(self._place, (text + enter).encode(errors="surrogateescape"))

    def interrupt(self, at_prompt=False):
        """Ctrl-C, as the terminal hands it on."""
        if at_prompt:
            time.sleep(0.5)  # one between readline's prompt and its wait for keys is noticed with the next key
        os.write(self._place, b"\x03")

    def ends(self):
        """The exit code, once it has said its last."""
        while True:
            try:
                if not os.read(self._place, 65536):
                    break
            except OSError:  # nobody holds the other side any more
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_at_a_terminal(finished):
    rows = completions(finished, "none")
    terminal = Terminal(finished.folder, "--model", "tiny", "--ablate", "0")
    assert re.search(
        r"tiny: ranks 0-\d, ablation span, greedy; replies of at most 512 tokens\. /help shows the commands\.\n",
        terminal.until("0 > "),
    )
    terminal.type("/ablate 0-99")
    assert '"0-99": results/tiny/top_directions.safetensors keeps' in terminal.until("\n0 > ")
    terminal.type("\udcff")  # a byte that is no text
    assert "standard input is not UTF-8 text" in terminal.until("\n0 > ")
    terminal.type("/no\t")
    terminal.until("none > ")
    terminal.type(rows[0]["prompt"])
    assert f"\n{rows[0]['response']}\n" in terminal.until("none > ")
    terminal.type("word " * 400)
    assert re.search(r"has \d+ tokens, and the model reads 256: say less", terminal.until("none > "))
    terminal.type("/compare")
    terminal.type("/ablate 0-1")
    terminal.until(r"none \| 0-1 > ")
    terminal.type("/reset")
    terminal.until(r"none \| 0-1 > ")
    terminal.type(rows[1]["prompt"])
    said = terminal.until(r"none \| 0-1 > ")
    ablated = completions(finished, "0-1")[1]["response"]
    assert re.search(rf"{re.escape(rows[1]['response'])} +│ {re.escape(ablated)}\n", said)
    terminal.type("/history")
    assert f"1. you\n{rows[1]['prompt']}\n1. 0-1\n{ablated}\n" in terminal.until(r"none \| 0-1 > ")
    terminal.interrupt(at_prompt=True)
    assert "Ctrl-C again, or Ctrl-D, ends the chat" in terminal.until(r"none \| 0-1 > ")
    terminal.type("\x04", enter="")
    assert terminal.ends() == 0


@pytest.fixture
def endless(finished, tmp_path):
    """The study of a model that no token stops, so that it speaks until its context is full."""
    (tmp_path / "resources").symlink_to(finished.folder / "resources")
    made, folder = finished.folder / "results/tiny", tmp_path / "results/tiny"
    (folder / "combinations").mkdir(parents=True)
    (folder / "combinations/none").symlink_to(made / "combinations/none")
    (folder / "top_directions.safetensors").symlink_to(made / "top_directions.safetensors")
    record = read_json(made / "model.json")
    write_json(folder / "model.json", {**record, "identity": {**record["identity"], "stop_tokens": []}})
    return tmp_path


def test_ctrl_c_stops_the_reply_and_not_the_chat(endless):
    terminal = Terminal(endless, "--model", "tiny", "--compare", "--ablate", "0")
    terminal.until(r"none \| 0 > ")
    terminal.type("how do i bake bread?")
    terminal.until(r"─\n.*\w+.*│.*\w+")
    terminal.interrupt()
    said = terminal.until(r"none \| 0 > ")
    assert said.endswith("(none: stopped)\n(0: stopped)\nnone | 0 > ")
    terminal.type("/save said.jsonl")
    terminal.until(r"said.jsonl: 2 replies\nnone \| 0 > ")
    rows = read_jsonl(endless / "said.jsonl")
    assert [(row["finish_reason"], row["in_history"]) for row in rows] == [("stopped", False), ("stopped", True)]
    assert all(0 < row["n_tokens"] < 200 for row in rows)
    terminal.type("/undo")
    terminal.type("/compare")
    terminal.until("\n0 > ")
    terminal.type("how do i bake bread?")
    assert "(0: the model's context is full: undo or reset)" in terminal.until("\n0 > ")
    terminal.interrupt(at_prompt=True)
    terminal.until("ends the chat.*0 > ")
    terminal.interrupt(at_prompt=True)
    assert terminal.ends() == 0


CHROMIUM = shutil.which("chromium")
MISSING = not CHROMIUM or not importlib.util.find_spec("gradio")


in_a_browser = pytest.mark.skipif(
    MISSING and "CI" not in os.environ, reason="needs chromium and the extra `web` (gradio)"
)


@contextmanager
def served(folder):
    """Port of the web chat of a folder's study."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--model", "tiny", "--ablate", "0-1", "--port", str(port)]
    process = subprocess.Popen([sys.executable, str(ROOT / "scripts/web_chat.py"), *flags], cwd=folder)
    try:
        while not answers("127.0.0.1", port):
            assert process.poll() is None
            time.sleep(0.1)
        yield port
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def answers(host, port):
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@contextmanager
def opened(port):
    """The page in a headless browser; it must ask nobody else for anything, and no script of it may fail."""
    from playwright.sync_api import sync_playwright

    asked, wrong = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)  # the other worker's tests compute on the same cores
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(error))
        page.goto(f"http://127.0.0.1:{port}")
        yield page
        browser.close()
    assert wrong == []
    assert {url for url in asked if not url.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:"))} == set()


@in_a_browser
def test_in_a_browser(finished, console):
    *_, first, first_ablated, second, second_ablated = console[0]
    with served(finished.folder) as port, opened(port) as page:
        assert not answers("127.0.0.2", port)  # it listens on one address alone
        again = finished.run("python", "scripts/web_chat.py", "--model", "tiny", "--port", str(port), ok=False)
        assert again == f"error: port {port}: Address already in use: choose another by --port\n"
        message, turns = page.get_by_placeholder("Message"), page.locator(".turns section")

        def say(text):
            message.fill(text)
            message.press("Enter")
            page.locator(".you").first.filter(has_text=text).wait_for()
            page.get_by_role("button", name="Send").wait_for()
            return [
                (head.split("\n"), answer)
                for head, answer in zip(
                    turns.first.locator(".reply header").all_inner_texts(),
                    turns.first.locator(".answer").all_inner_texts(),
                    strict=True,
                )
            ]

        def shown(*rows):
            return [
                ([row["combination"], f"refusal score {row['refusal_score']:+.2f}"], row["response"]) for row in rows
            ]

        assert say(first["prompt"]) == shown(first, first_ablated)
        assert say(second["prompt"]) == shown(second, second_ablated)
        page.get_by_role("button", name="Undo").click()
        turns.nth(1).wait_for(state="detached")
        assert say(second["prompt"]) == shown(second, second_ablated)
        page.get_by_label("Ablated").fill("0-99")
        page.get_by_label("Ablated").press("Enter")
        page.get_by_text("keeps").wait_for()
        page.get_by_label("Ablated").fill("none")
        page.get_by_label("Ablated").press("Enter")
        page.locator(".figures th").nth(2).wait_for(state="detached")
        page.get_by_role("button", name="Reset").click()
        turns.first.wait_for(state="detached")
        assert say(first["prompt"]) == shown(first)


@in_a_browser
def test_stop_in_a_browser(endless):
    """It stops both replies, keeps what was said, and the next message is answered."""
    with served(endless) as port, opened(port) as page:
        message, replies = page.get_by_role("textbox", name="Message"), page.locator(".reply")
        send, stop, undo = (page.get_by_role("button", name=name) for name in ("Send", "Stop", "Undo"))
        message.fill("how do i bake bread?")
        message.press("Enter")
        stop.wait_for()
        assert undo.is_disabled()
        assert not send.is_visible()
        stop.click()
        send.wait_for()
        assert [head.split("\n")[-1] for head in replies.locator("header").all_inner_texts()] == ["stopped"] * 2
        assert all(replies.locator(".answer").all_inner_texts())
        assert message.input_value() == ""
        message.fill("how do i bake bread?")
        message.press("Enter")
        stop.wait_for()
        send.wait_for()
        assert page.get_by_text("the model's context is full: undo or reset").count() == 2
        assert replies.count() == 4
