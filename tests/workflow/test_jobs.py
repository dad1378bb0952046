"""A stage shared out over jobs, here of a machine with two GPUs: what one job gives, and each computes its own."""

import io
import os
import re
import shutil

import pandas as pd
import pytest

pytestmark = pytest.mark.workflow

SUMMARY = "results/tiny/summary.csv"

DRIVER = """#!/bin/sh
echo 'GPU 0: A card (UUID: GPU-of-test-jobs-0)'
echo 'GPU 1: A card (UUID: GPU-of-test-jobs-1)'
"""
"""As nvidia-smi: two GPUs that are none, so that torch runs on the processor."""


def test_shared_out_or_not_the_results_are_the_same(checkout):
    files, items = checkout.contents("tiny"), checkout.items()
    for stage in ("scores", "completions"):
        shutil.rmtree(checkout.folder / "cache" / stage)
    shutil.rmtree(checkout.folder / "results/tiny/combinations")
    (checkout.folder / "results/tiny/candidate_scores.csv").unlink()
    run = checkout.setting("run")
    checkout.change("config/config.yaml", run={**run, "jobs": {**run["jobs"], "scores": 2, "completions": 2}})
    (checkout.folder / "nvidia-smi").write_text(DRIVER)
    (checkout.folder / "nvidia-smi").chmod(0o755)
    said = checkout.snakemake(SUMMARY, PATH=f"{checkout.folder}{os.pathsep}{os.environ['PATH']}")
    found = checkout.contents("tiny")
    # what shares a batch moves scores by rounding, and nothing else
    for path in ("candidate_scores.csv", "ranking.csv"):
        before, after = (pd.read_csv(io.BytesIO(content.pop(path))) for content in (files, found))
        pd.testing.assert_frame_equal(after, before, rtol=0, atol=1e-5)
    assert found == files
    # those of the other organism and of the prompt filter aside, the same items as one job made
    now = checkout.items()
    assert now["completions"] <= items["completions"]
    assert now["scores"] <= items["scores"]
    logs = checkout.folder / "logs/tiny"
    harmful = [(logs / f"completions_harmful.{part}-of-2.log").read_text() for part in range(2)]
    counts = [int(re.search(r"completions: (\d+) of \1 items to compute", text)[1]) for text in harmful]
    assert max(counts) - min(counts) <= 1
    assert "completions: 0 of" in (logs / "completions_harmful.log").read_text()
    assert sum(counts) * 3 == len(now["completions"])
    assert not (checkout.folder / "results/tiny/parts").exists() or not any(
        (checkout.folder / "results/tiny/parts").iterdir()
    )
    assert "rule scores_part" in said
    # two jobs at a time, each with a GPU of its own and half of the threads
    assert re.search(r"^Provided resources: gpu\D+2\b", said, re.MULTILINE)
    assert all(len(re.findall(r"^on GPU GPU-of-test-jobs-[01]$", text, re.MULTILINE)) == 1 for text in harmful)
    assert "Nothing to be done" in checkout.snakemake(SUMMARY)
