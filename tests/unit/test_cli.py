"""How scripts leave: 0 done, 2 with one line for bad input or a full disk, 1 with a traceback for a bug."""

import argparse
import errno
import logging
import os
import subprocess
import sys
import textwrap

import pytest

from refusal import cli
from refusal.errors import UserError
from refusal.provenance import ROOT


@pytest.fixture(autouse=True)
def quiet_logging(monkeypatch):
    """`run` configures the root logger and the number of threads; put both back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], root.level = handlers, level


def left(main, monkeypatch, *flags):
    """Exit code of a script whose main is `main`."""
    monkeypatch.setattr(sys, "argv", ["stage.py", *flags])
    try:
        cli.run(main, cli.parser("A stage."))
    except SystemExit as error:
        return error.code
    return 0


def raising(error):
    def main(_args):
        raise error

    return main


def left_by_a_process(*flags):
    """Exit code, output and messages of a script that meets bad input."""
    code = """
        from refusal import cli
        from refusal.errors import UserError
        def main(args):
            raise UserError("bad")
        cli.run(main, cli.parser("x"))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), *flags]
    done = subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


class TestExitCodes:
    def test_done(self, monkeypatch, capsys):
        assert left(lambda args: cli.log.info("%d kept", 3), monkeypatch) == 0
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", "3 kept\n")

    def test_bad_input_is_one_line(self, monkeypatch, capsys):
        assert left(raising(UserError("config.yaml: seed: mend it")), monkeypatch) == 2
        assert capsys.readouterr().err == "error: config.yaml: seed: mend it\n"

    @pytest.mark.parametrize(
        "error", [ZeroDivisionError("bug"), KeyError("x"), OSError(errno.EIO, "bug"), AssertionError("bug")]
    )
    def test_a_bug_keeps_its_traceback(self, monkeypatch, capsys, error):
        assert left(raising(error), monkeypatch) == 1
        said = capsys.readouterr().err
        assert said.startswith("unexpected error\nTraceback (most recent call last):\n")
        assert said.splitlines()[-1].startswith(type(error).__name__)
        assert "in main" in said

    @pytest.mark.parametrize(
        ("number", "message"),
        [
            (errno.ENOSPC, "the disk is full: free some space, then run again (what was finished is kept)"),
            (errno.EDQUOT, "the disk quota is used up: free some space, then run again (what was finished is kept)"),
            (errno.EROFS, "the file system is read-only: choose a writable folder"),
            (errno.EACCES, "permission denied: make the folder writable"),
        ],
    )
    def test_the_disk(self, monkeypatch, capsys, number, message):
        assert left(raising(OSError(number, "x", "results/a.csv")), monkeypatch) == 2
        assert capsys.readouterr().err == f"error: results/a.csv: {message}\n"
        assert left(raising(OSError(number, "x")), monkeypatch) == 2
        assert capsys.readouterr().err == f"error: writing failed: {message}\n"

    def test_a_disk_that_is_really_full(self, monkeypatch, capsys):
        if not os.path.exists("/dev/full"):  # noqa: PTH110 (a device)
            pytest.skip("no /dev/full on this system")

        def main(_args):
            with open("/dev/full", "w") as file:  # noqa: PTH123
                file.write("x")

        assert left(main, monkeypatch) == 2
        assert capsys.readouterr().err.startswith("error: writing failed: the disk is full")

    def test_a_full_disk_under_a_library_of_rust(self, monkeypatch, capsys):
        error = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
        assert left(raising(error), monkeypatch) == 2
        assert capsys.readouterr().err.startswith("error: writing failed: the disk is full")

    def test_interrupted(self, monkeypatch, capsys):
        assert left(raising(KeyboardInterrupt()), monkeypatch) == 130
        assert capsys.readouterr().err == "interrupted: what was finished is kept\n"

    def test_a_process_leaves_with_them(self):
        assert left_by_a_process() == (2, "", "error: bad\n")


class TestLog:
    def test_a_file_has_what_the_terminal_has(self, monkeypatch, capsys, tmp_path):
        path = tmp_path / "logs" / "m" / "stage.log"

        def main(_args):
            cli.log.info("started")
            raise UserError("bad")

        assert left(main, monkeypatch, "--log", str(path)) == 2
        assert path.read_text() == capsys.readouterr().err == "started\nerror: bad\n"

    def test_a_traceback_too_and_nothing_of_the_last_run(self, monkeypatch, tmp_path):
        path = tmp_path / "stage.log"
        path.write_text("old\n")
        left(raising(ZeroDivisionError("bug")), monkeypatch, "--log", str(path))
        assert path.read_text().splitlines()[0] == "unexpected error"
        assert path.read_text().splitlines()[-1] == "ZeroDivisionError: bug"

    def test_one_that_cannot_be_written_buries_nothing(self):
        if not os.path.exists("/dev/full"):  # noqa: PTH110 (a device)
            pytest.skip("no /dev/full on this system")
        assert left_by_a_process("--log", "/dev/full") == (2, "", "error: bad\n")

    def test_libraries_that_log_each_request_are_quiet(self, monkeypatch, capsys):
        left(lambda args: logging.getLogger("httpx").info("GET"), monkeypatch)
        left(lambda args: logging.getLogger("httpx").warning("late"), monkeypatch)
        assert capsys.readouterr().err == "late\n"


class TestFlags:
    def test_threads_are_set_before_torch_is_imported(self, monkeypatch):
        seen = []
        left(lambda args: seen.append(os.environ["OMP_NUM_THREADS"]), monkeypatch, "--threads", "3")
        left(lambda args: seen.append(os.environ["OMP_NUM_THREADS"]), monkeypatch)
        assert seen == ["3", "3"]  # left alone where nothing is asked for

    def test_those_of_a_stage_with_a_model(self):
        args = cli.stage_parser("x").parse_args(["--model", "m.json"])
        assert (str(args.model), str(args.cache), args.batch_rows, args.log) == ("m.json", "cache", 512, None)

    def test_help_says_a_default_where_there_is_one(self):
        made = cli.parser("x")
        made.add_argument("--needed", required=True, help="a file")
        made.add_argument("--several", nargs="*", default=[], help="files")
        made.add_argument("--switch", action="store_true", help="on")
        made.add_argument("--draws", type=int, default=0, help="none")
        said = made.format_help()
        assert "none (default: 0)" in said
        assert said.count("(default:") == 1

    def test_the_filters_have_the_published_thresholds(self):
        made = argparse.ArgumentParser()
        cli.filter_flags(made)
        assert vars(made.parse_args([])) == {"max_kl": 0.1, "min_induce": 0.0, "max_layer_share": 0.8}


class TestProgress:
    @pytest.fixture
    def clock(self, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(cli.time, "monotonic", lambda: now[0])
        return now

    def test_all_items_in_order(self, caplog):
        caplog.set_level("INFO")
        assert list(cli.progress(iter("abc"), "what")) == ["a", "b", "c"]
        assert caplog.messages == []

    def test_a_line_a_minute_and_one_at_the_end(self, clock, caplog):
        caplog.set_level("INFO")
        for _ in cli.progress(range(5), "scores", unit="passes"):
            clock[0] += 40
        assert caplog.messages == [
            "scores: 2/5 passes, 80 s",
            "scores: 4/5 passes, 160 s",
            "scores: 5 passes in 200.0 s",
        ]

    def test_without_a_length(self, clock, caplog):
        caplog.set_level("INFO")
        for _ in cli.progress(iter(range(2)), "scores", unit="passes"):
            clock[0] += 61
        assert caplog.messages == ["scores: 1/? passes, 61 s", "scores: 2/? passes, 122 s"]

    def test_a_note_that_changes(self, clock, caplog):
        caplog.set_level("INFO")
        for _ in cli.progress(range(2), "scores", unit="passes", note=lambda: f"${clock[0]:.2f} so far"):
            clock[0] += 61
        assert caplog.messages[:2] == [
            "scores: 1/2 passes, $61.00 so far, 61 s",
            "scores: 2/2 passes, $122.00 so far, 122 s",
        ]

    def test_a_note_on_a_terminal(self, monkeypatch, capsys):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        done = []
        for item in cli.progress([1, 2], "scores", note=lambda: f"sum {sum(done)}"):
            done.append(item)
        (*_, last) = capsys.readouterr().err.strip().split("\r")
        assert "2/2" in last
        assert "sum 3" in last

    def test_a_bar_on_a_terminal(self, monkeypatch, capsys, caplog):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert list(cli.progress([1, 2], "scores", unit="passes")) == [1, 2]
        assert "scores: 100%" in capsys.readouterr().err
        assert caplog.messages == []
