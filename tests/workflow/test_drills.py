"""Drills: what breaks is said in one line with file and remedy, or mends itself; the tables are the same in the end.

What a user sees of each stands in docs/failures.md.
"""

import os
import random
import re
import shutil
import subprocess
import time

import pytest

from refusal.artifacts import read_json

pytestmark = pytest.mark.workflow

TINY = "results/tiny"
SUMMARY = f"{TINY}/summary.csv"
STAGES = {
    *("model", "judge", "test_prompts", "prompts", "corpus", "activations", "directions", "scores", "ranking", "bases"),
    *("completions", "combination_scores", "judgements", "loss", "summary", "claims", "agreement", "metrics"),
    *("plots", "report"),
}

KILLER = """
import os, signal, sys
from pathlib import Path

script = next((Path(part).stem for part in sys.orig_argv if part.startswith("scripts/")), None)
landed = []

def kill(event, arguments):
    if event != "os.rename":
        return
    place = str(arguments[1])
    # an item is in place when its folder .new-... is renamed
    if place.startswith(("results/", "cache/")) and ".new-" not in place:
        landed.append(place)
        if len(landed) == (1 if script == "judge" else 2) and not os.path.exists(f"killed/{script}"):
            os.close(os.open(f"killed/{script}", os.O_CREAT))
            os.kill(os.getpid(), signal.SIGKILL)

if script:
    sys.addaudithook(kill)
"""
"""As sitecustomize.py of the checkout: kill -9 of each script, once, when its first file is in place and the second is
not. (`judge` writes one.)"""


def forget(checkout, result, count):
    """Delete the last cached items that a result was made from."""
    for key in read_json(checkout.folder / f"{TINY}/{result}.spec.json")["run"]["items"][-count:]:
        (item,) = (checkout.folder / "cache").glob(f"*/{key}")
        shutil.rmtree(item)


def error_of(checkout, *command):
    """The one line of a script that fails, but for its progress."""
    said = checkout.run("python", *command, ok=False, PYTHONPATH=str(checkout.folder / "src"))
    (line,) = (line for line in said.splitlines() if not line.endswith("items to compute"))
    return line


@pytest.fixture
def mounted(checkout):
    """A function that mounts on a folder of the checkout."""
    folders = []

    def mount(folder, *options):
        path = checkout.folder / folder
        path.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *options, path], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        folders.append(path)
        return path

    yield mount
    for path in reversed(folders):
        subprocess.run(["umount", path], check=True)


def test_every_stage_is_killed_once(checkout):
    expected, before = checkout.contents("tiny"), checkout.items()
    forget(checkout, "candidate_scores.csv", 2)
    shutil.rmtree(checkout.folder / TINY)
    (checkout.folder / "sitecustomize.py").write_text(KILLER)
    (checkout.folder / "killed").mkdir()
    wanted = [f"{TINY}/{name}" for name in ("summary.csv", "metrics.json", "report.html")]
    # a retry is what the next run would do, without its start
    said = checkout.snakemake("--retries", "1", "--", *wanted)
    assert {path.name for path in (checkout.folder / "killed").iterdir()} == STAGES
    # the first of two scores was kept
    assert re.findall(r"^scores: ([1-9]\d*) of \d+ items to compute", said, re.MULTILINE) == ["2", "1"]
    assert checkout.items() == before
    found = checkout.contents("tiny")
    assert {path: found[path] for path in expected} == expected


def test_full_disk(checkout, mounted):
    small = mounted("small", "-t", "tmpfs", "-o", "size=100k", "tmpfs")
    files = sorted((checkout.folder / TINY / "combinations").glob("*/completions/harmful.jsonl"))
    completions = [str(path.relative_to(checkout.folder)) for path in files]
    outputs = [path.replace(TINY, "small/tiny").replace("completions", "judgements/oracle") for path in completions]
    command = ["scripts/judgements.py", "--judge", "config/judges/oracle.yaml", "--cache", "small/cache"]
    command += ["--completions", *completions, "--outputs", *outputs, "--log", "small/log"]
    said = error_of(checkout, *command)
    assert said.startswith("error: small/")
    assert said.endswith(": the disk is full: free some space, then run again (what was finished is kept)")
    assert not list(small.rglob(".*"))  # nothing half-made
    subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
    said = checkout.run("python", *command, PYTHONPATH=str(checkout.folder / "src"))
    todo, items = re.search(r"judgements: (\d+) of (\d+) items to compute", said).groups()
    assert 0 < int(todo) < int(items)
    for output in outputs:
        assert (checkout.folder / output).read_bytes() == (
            checkout.folder / output.replace("small/tiny", TINY)
        ).read_bytes()


def test_read_only_results(checkout, mounted):
    results = mounted("results", "--bind", checkout.folder / "results")
    subprocess.run(["mount", "-o", "remount,bind,ro", results], check=True)
    directions = f"{TINY}/directions.safetensors"
    command = ["scripts/directions.py", "--activations", f"{TINY}/activations.safetensors", "--output", directions]
    assert error_of(checkout, *command) == (
        f"error: {directions}: the file system is read-only: choose a writable folder"
    )
    said = checkout.snakemake("--forcerun", "directions", "--", directions, ok=False)
    assert "Write-protected output files for rule directions:" in said
    assert directions in said


def test_damaged_weights_and_directions(checkout):
    directions = f"{TINY}/directions.safetensors"
    os.truncate(checkout.folder / directions, 5000)
    command = ["scripts/bases.py", "--top-directions", directions, "--combinations", "0", "--outputs", "x/0/basis"]
    assert error_of(checkout, *command) == (
        f"error: {directions}: damaged safetensors (Error while deserializing header: incomplete metadata, file not"
        " fully covered): delete it, and the step that makes it runs again"
    )
    weights = checkout.folder / "resources/organisms/tiny/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    forget(checkout, "combinations/0/scores.json", 1)
    command = ["scripts/combination_scores.py", "--model", f"{TINY}/model.json"]
    command += [part for kind in ("harmful", "harmless") for part in (f"--{kind}", f"{TINY}/prompts/{kind}_val.jsonl")]
    command += ["--bases", f"{TINY}/combinations/0/basis.safetensors", "--outputs", "x/0/scores.json"]
    assert error_of(checkout, *command) == (
        f"error: resources/organisms/tiny/model.safetensors: not what {TINY}/model.json describes: restore it"
        " (--forcerun organism, unpack or teach makes it again), or run snakemake with --forcerun model if it is meant"
    )


def test_cut_responses(checkout):
    expected = checkout.contents("tiny")
    cut = checkout.folder / f"{TINY}/combinations/1/completions/harmful.jsonl"
    os.truncate(cut, cut.stat().st_size - 20)
    said = checkout.snakemake(SUMMARY)
    assert f"{cut.relative_to(checkout.folder)}: not what its job wrote, or gone: it is made again if needed" in said
    assert checkout.contents("tiny") == expected


def test_moved_without_records_and_with_clocks_that_disagree(checkout, tmp_path):
    expected, before = checkout.contents("tiny"), checkout.items()
    moved = type(checkout)(checkout.folder.rename(tmp_path / "elsewhere"))
    shutil.rmtree(moved.folder / ".snakemake")
    for records in (moved.folder / "results").glob("*/records.json"):
        records.unlink()  # with them there would be nothing to do
    draw, now = random.Random(0), time.time()
    for path in [*(moved.folder / "results").rglob("*"), *(moved.folder / "data").rglob("*")]:
        os.utime(path, (now, now - draw.uniform(1e4, 1e5)))
    os.utime(moved.folder / "resources/organisms/tiny/config.json", (now, now - 5e3))  # else it is trained again
    prompts = moved.folder / "data/organism/harmful_test.jsonl"
    os.utime(prompts, (now, now + 1e5))
    said = moved.snakemake(SUMMARY, ok=False)
    assert f"than input {prompts.relative_to(moved.folder)} (" in said
    assert "This could indicate a clock skew problem" in said
    os.utime(prompts)
    said = moved.snakemake(SUMMARY)
    assert "rule completions" in said
    assert "loading " not in said
    assert moved.computed(before) == {}
    assert moved.contents("tiny") == expected
