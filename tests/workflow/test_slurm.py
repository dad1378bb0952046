"""The study on a real SLURM of one machine, through profiles/slurm: what jobs ask, what survives which interruption."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.workflow

SCRIPTS = Path(__file__).parents[1] / "slurm"
SUMMARY = "results/tiny/summary.csv"
PROFILE = ("--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "5")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM with a partition `cpu` and a partition `gpu` of two GPUs that are none; its folder."""
    if not shutil.which("slurmctld"):
        pytest.skip("no SLURM here: apt-get install slurm-wlm")
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", f"{folder}/bin", prepend=os.pathsep)
        try:
            subprocess.run([SCRIPTS / "up.sh", folder], check=True)
            yield folder
        finally:
            subprocess.run([SCRIPTS / "down.sh", folder], check=True)


def slurm(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def jobs(checkout):
    """Job number -> rule and wildcards, and what SLURM says of it; of the jobs that a checkout submitted."""
    found = {}
    for line in slurm("scontrol", "--oneliner", "--details", "show", "job").splitlines():
        says = dict(re.findall(r"(\S+?)=(\S*)", line))
        if says.get("WorkDir") == str(checkout.folder):
            found[int(says["JobId"])] = {
                "what": says["Comment"].removeprefix("rule_").replace("_wildcards_", " "),
                "state": says["JobState"],
                "partition": says["Partition"],
                "gpus": says.get("TresPerJob"),
                "cpus": int(says["NumCPUs"]),
                "memory": says["MinMemoryNode"],
                "time": says["TimeLimit"],
                "log": Path(says["StdOut"]),
            }
    return found


def restart_controller(folder):
    """Stop the controller for some seconds; it finds its jobs again."""
    process = int((folder / "slurmctld.pid").read_text())
    os.kill(process, signal.SIGTERM)
    end = time.monotonic() + 20
    while Path(f"/proc/{process}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(2)
    slurm("slurmctld")


def test_jobs_ask_for_what_they_need_and_killed_ones_for_more(cluster, checkout):
    run = checkout.setting("run")
    checkout.change(
        "config/config.yaml",
        # combinations finish one by one, with other responses to be made
        prompts={**checkout.setting("prompts"), "counts": {"train": 96, "val": 24, "test": 20}},
        run={
            **run,
            "batch_rows": 20,
            "jobs": {**run["jobs"], "loss": 2},
            "ask": {"memory_gib": 1, "minutes": 5, "gpus": 1},
        },
    )
    checkout.change("config/models/tiny.yaml", ask={"memory_gib": 2})
    before = checkout.items()["completions"]
    process = checkout.start("--max-threads", "1", "--", SUMMARY, how=PROFILE)
    script = "scripts/completions.py"
    checkout.wait_for(
        lambda: len(checkout.items()["completions"] - before) >= 2 and len(list(checkout.running(script))) == 2
    )
    frozen = set()
    for running in checkout.running(script):
        os.kill(running, signal.SIGSTOP)
        frozen.add(int(re.search(rb"SLURM_JOB_ID=(\d+)", Path(f"/proc/{running}/environ").read_bytes())[1]))
    kept = {
        key: (checkout.folder / "cache/completions" / key).stat().st_mtime_ns
        for key in checkout.items()["completions"] - before
    }
    restart_controller(cluster)
    known = jobs(checkout)
    # what needs the harmless responses goes on while the other job waits for its end
    cancelled, timed_out = sorted(frozen, key=lambda number: "harmless" not in known[number]["what"])
    slurm("scancel", str(cancelled))
    slurm("scontrol", "update", f"jobid={timed_out}", "EndTime=now+1")
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed[-6000:]

    found = jobs(checkout)
    assert (found[cancelled]["state"], found[timed_out]["state"]) == ("CANCELLED", "TIMEOUT")
    again = {number: job for number, job in found.items() if job["state"] == "COMPLETED"}
    assert set(found) == {cancelled, timed_out, *again}
    sets = ("harmful", "harmless", "borderline")
    parts = ("loss_part tiny_0_2", "loss_part tiny_1_2")
    assert sorted(job["what"] for job in again.values()) == sorted(
        [*(f"completions tiny_{kind}" for kind in sets), *parts, "loss tiny"]
    )
    # the memory of the model's file, the minutes of the study
    for number, job in again.items():
        second = job["what"] in (known[cancelled]["what"], known[timed_out]["what"])
        assert (job["memory"], job["time"]) == (("4G", "00:10:00") if second else ("2G", "00:05:00")), job
        assert (job["partition"], job["gpus"], job["cpus"]) == ("gpu", "gres:gpu:1", 1)
        assert job["log"].is_relative_to(checkout.folder / "logs/slurm")
        assert "rule" in job["log"].read_text(), number
    assert (known[cancelled]["memory"], known[cancelled]["time"]) == ("2G", "00:05:00")
    # what was finished stays, and is not computed again
    assert kept == {key: (checkout.folder / "cache/completions" / key).stat().st_mtime_ns for key in kept}
    pending = [
        re.search(
            r"completions: (\d+) of (\d+) items to compute",
            (checkout.folder / f"logs/tiny/completions_{known[number]['what'].split('_')[-1]}.log").read_text(),
        )
        for number in (cancelled, timed_out)
    ]
    assert sum(int(count[2]) - int(count[1]) for count in pending) >= len(kept)
    assert all((checkout.folder / f"logs/tiny/loss.{part}-of-2.log").exists() for part in range(2))
    # neither what is asked nor where it ran is a reason to run again
    checkout.change("config/models/tiny.yaml", ask={"memory_gib": 3, "minutes": 9, "gpus": 2})
    assert "Nothing to be done" in checkout.snakemake(SUMMARY)


def test_an_interrupt_cancels_the_jobs(cluster, checkout):
    checkout.change("config/models/tiny.yaml", ask={"gpus": 2})
    wanted = ("results/tiny/activations.safetensors", "resources/organisms/tiny1/config.json")
    process = checkout.start("--force", "--", *wanted, how=PROFILE)
    checkout.wait_for(lambda: [job["state"] for job in jobs(checkout).values()] == ["RUNNING"] * 2)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    checkout.wait_for(lambda: {job["state"] for job in jobs(checkout).values()} == {"CANCELLED"})
    found = {job["what"]: job for job in jobs(checkout).values()}
    # all GPUs and threads that are asked for: what one machine has bounds no job
    says = {what: tuple(job[key] for key in ("partition", "gpus", "cpus", "memory")) for what, job in found.items()}
    assert says == {"activations tiny": ("gpu", "gres:gpu:2", 8, "16G"), "organism tiny1": ("cpu", None, 2, "4G")}


def test_stages_that_load_a_model_and_no_others_ask_for_a_gpu(finished):
    """Of every stage; a dry run submits nothing, so this needs no SLURM."""
    said = finished.run("snakemake", "--executor", "slurm", "--jobs", "2", "--dry-run", "--forceall", "--", SUMMARY)
    asked = dict(re.findall(r"^(?:local)?rule (\w+):$.*?^ +resources: (.*?)$", said, re.MULTILINE | re.DOTALL))
    on_gpu = {rule for rule, resources in asked.items() if "gpu=1" in resources}
    assert on_gpu == {"prompts", "activations", "scores", "completions", "combination_scores", "loss"}
    assert {rule for rule in asked if "mem_mb=4096" in asked[rule] and "runtime=30" in asked[rule]} == on_gpu | {
        "organism"
    }
