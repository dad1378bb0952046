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
# a job that finds its items in the cache takes 6 s
PROFILE = ("--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "7")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM with a partition `cpu` and a partition `gpu` of two GPUs that are none; its folder."""
    if not shutil.which("slurmctld"):
        # a skip would pass for a test
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no SLURM here: apt-get install slurm-wlm")
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
    # from the sweep on; scores are in the cache
    shutil.rmtree(checkout.folder / "results/tiny/combinations")
    (checkout.folder / "results/tiny/candidate_scores.csv").unlink()
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
    others = [f"{stage} tiny" for stage in ("scores", "combination_scores", "loss")]
    assert sorted(job["what"] for job in again.values()) == sorted(
        [*others, *(f"completions tiny_{kind}" for kind in sets), *parts]
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
    models = checkout.folder / "config/models"
    shutil.copy(models / "tiny1.yaml", models / "third.yaml")
    checkout.change("config/models/tiny.yaml", ask={"gpus": 2})
    checkout.change("config/models/tiny1.yaml", ask={"gpus": 0})
    wanted = ("results/tiny/activations.safetensors", "results/tiny1/prompts/report.json")
    process = checkout.start("--force", "--", *wanted, "resources/organisms/third/config.json", how=PROFILE)
    checkout.wait_for(lambda: [job["state"] for job in jobs(checkout).values()] == ["RUNNING"] * 3)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    checkout.wait_for(lambda: {job["state"] for job in jobs(checkout).values()} == {"CANCELLED"})
    found = {job["what"]: job for job in jobs(checkout).values()}
    # all GPUs and threads that are asked for: what one machine has bounds no job
    says = {what: tuple(job[key] for key in ("partition", "gpus", "cpus", "memory")) for what, job in found.items()}
    assert says == {
        "activations tiny": ("gpu", "gres:gpu:2", 8, "16G"),
        "prompts tiny1": ("cpu", None, 8, "16G"),
        "organism third": ("cpu", None, 2, "4G"),
    }


def test_stages_that_load_a_model_and_no_others_ask_for_a_gpu(project, tmp_path):
    """Of every stage that a study may have, for a large model of the hub; a dry run, which needs no SLURM."""
    checkout = project.copy(tmp_path / "project")
    run, ranking = checkout.setting("run"), checkout.setting("ranking")
    checkout.change(
        "config/config.yaml",
        ranking={**ranking, "mode": "conditional"},
        judges=["substring", "qwen3guard"],
        run={**run, "jobs": dict.fromkeys(run["jobs"], 2)},
    )
    checkout.change("config/models/llama3.yaml", refusal_tokens="auto", ask={"memory_gib": 40, "minutes": 720})
    said = checkout.run(
        *("snakemake", "--executor", "slurm", "--jobs", "2", "--dry-run", "--", "results/llama3/summary.csv")
    )
    asked, read = (
        dict(re.findall(rf"^(?:local)?rule (\w+):$.*?^ +{what}: (.*?)$", said, re.MULTILINE | re.DOTALL))
        for what in ("resources", "input")
    )
    shared_out = {"scores", "completions", "combination_scores", "loss"}
    of_model = {"refusal_tokens", "prompts", "activations", "conditional_scores", *shared_out}
    of_model |= {f"{stage}_part" for stage in shared_out}
    loading = {rule for rule, resources in asked.items() if "gpu=1" in resources}
    assert loading == of_model | {"judgements_by_model"}
    # memory in MB, minutes
    size = {rule: re.search(r"runtime=(\d+).*mem_mb=(\d+)", asked[rule]).groups() for rule in loading}
    assert size == {**dict.fromkeys(of_model, ("720", "40960")), "judgements_by_model": ("240", "16384")}
    # by then, weights are where a node without a network finds them
    assert "weights" in asked
    notes = {rule: re.findall(r"resources/hub/([^@]+)@", read[rule]) for rule in read if "resources/hub/" in read[rule]}
    assert notes == {
        **{rule: ["meta-llama/Meta-Llama-3-8B-Instruct"] for rule in of_model},
        "judgements_by_model": ["Qwen/Qwen3Guard-Gen-8B"],
    }
