"""What a machine has of what a study needs, each by itself: ok, warn or missing, with what to do."""

import re
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import script

from refusal import doctor, hub
from refusal.checking import read_yaml
from refusal.doctor import GIB, Card, Found
from refusal.errors import UserError
from refusal.study import read_study

ROOT = Path(__file__).parents[2]
CARD = Card("A100", 40 * GIB, 39 * GIB, "550.1")


def study(model="tiny", **changes):
    return read_study(read_yaml(ROOT / "config/config.yaml") | changes, model)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A function that puts a command on the path, and nothing else."""

    def put(name, lines):
        (tmp_path / name).write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


class TestMachine:
    def test_python(self):
        assert doctor.python().state == "ok"
        assert doctor.python("2.7").said.endswith("and 2.7 is needed: PYTHON=python2.7 make .venv/installed")

    def test_packages(self, tmp_path):
        lock = tmp_path / "requirements.lock"
        lock.write_text("# made\na==1.0\nb==2.0\nc==3.0+cpu\n")

        def installed(versions):
            def version(name):
                if name not in versions:
                    raise metadata.PackageNotFoundError
                return versions[name]

            return version

        found = doctor.packages(lock, installed({"a": "1.0", "b": "2.0", "c": "3.0"}))
        assert found == Found("packages", "ok", "3, as in requirements.lock")
        found = doctor.packages(lock, installed({"a": "1.1", "b": "2.0+cu130", "c": "3.0"}))
        assert found.state == "warn"
        assert found.said == "not those that were tested together: a 1.1 (lock: 1.0): `make .venv/installed`"
        assert doctor.packages(lock, installed({})) == Found(
            "packages", "missing", "a, b, c: run `make .venv/installed`"
        )

    def test_cards(self, command):
        command("nvidia-smi", "echo 'NVIDIA A100, 40960, 39936, 550.1'")
        assert doctor.cards() == [Card("NVIDIA A100", 40 * GIB, 39 * GIB, "550.1")]
        command("nvidia-smi", "exit 9")
        assert doctor.cards() == []

    def test_gpu(self):
        assert doctor.gpu([CARD], 1, 1) == Found("GPU", "ok", "A100 (39 of 40 GiB free); driver 550.1")
        assert doctor.gpu([CARD], 0, 1).said.endswith("torch uses 0 of 1: is its build for GPUs, and for this driver?")
        assert doctor.gpu([], 0, 0).said == "none: models run on the processor"

    @pytest.mark.parametrize(
        ("weights", "cards", "machine", "state", "said"),
        [
            (15, 39, 100, "ok", "weights 15.0 GiB; free: GPU 39.0, machine 100.0 GiB"),
            (70, 39, 100, "warn", "run from the machine's memory, slowly"),
            (140, 39, 100, "warn", "is read from a disk in each pass"),
            (15, 0, 100, "ok", "weights 15.0 GiB; free: 100.0 GiB"),
            (15, 0, 16, "warn", "is read from a disk in each pass"),
        ],
    )
    def test_memory(self, weights, cards, machine, state, said):
        found = doctor.memory(weights * GIB, cards * GIB, machine * GIB)
        assert found.state == state
        assert said in found.said

    def test_disk(self, tmp_path):
        assert doctor.disk("disk", tmp_path / "not" / "yet", 1).state == "ok"
        found = doctor.disk("disk", tmp_path, 1e18)
        assert found.state == "missing"
        assert found.said.endswith("are free: free some, or move it")

    def test_slurm(self, command, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        partitions = tmp_path / "partitions.yaml"
        partitions.write_text("partitions:\n  cpu: {}\n  gpu: {max_gpu: 8}\n")
        assert doctor.slurm(partitions).said == "none here; only `--profile profiles/slurm` needs it"
        command("sinfo", "printf 'gpu\\ncpu\\n'")
        assert doctor.slurm(partitions) == Found("SLURM", "ok", "partitions cpu, gpu")
        command("sinfo", "printf 'big\\ncpu\\n'")
        assert doctor.slurm(partitions).said == f"{partitions}: no partition gpu; there are big, cpu"
        command("sinfo", "exit 1")
        assert doctor.slurm(partitions).state == "warn"

    def test_hosts_that_do_not_answer(self):
        (found,) = doctor.reachable({"hub": "http://127.0.0.1:9/x"})
        assert (found.what, found.state) == ("hub", "missing")
        assert found.said.startswith("127.0.0.1:9: cannot be reached (ConnectionError)")


class TestSecrets:
    def test_none_is_needed(self):
        assert doctor.secrets(study("tiny"), None, {}) == []

    @pytest.mark.parametrize(("gated", "state"), [(True, "missing"), (None, "warn"), (False, "ok")])
    def test_a_model_of_the_hub(self, gated, state):
        (found,) = doctor.secrets(study("llama3"), gated, {})
        assert (found.what, found.state) == ("HF_TOKEN", state)

    def test_a_service_that_judges(self):
        (_, found) = doctor.secrets(study("llama3", judges=["substring", "rubric"]), None, {})
        assert found == Found("TOGETHER_API_KEY", "missing", "not set, and needed by rubric: export the service's key")

    def test_a_key_of_spaces_is_none(self):
        _, found = doctor.secrets(study("llama3", judges=["rubric"]), None, {"TOGETHER_API_KEY": " \n"})
        assert found.state == "missing"

    def test_values_are_never_shown(self):
        secret = {"HF_TOKEN": "hf_abc", "TOGETHER_API_KEY": "xyz"}
        found = doctor.secrets(study("llama3", judges=["rubric"]), True, secret)
        assert [one.said for one in found] == ["set", "set"]


class TestModels:
    def test_weights(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert doctor.weights(study("tiny"), None, True) == (None, Found("weights", "ok", "trained here first"))
        sizes, found = doctor.weights(study("smollm2"), None, True)
        assert (sizes, found.state) == (None, "warn")
        assert found.said.endswith("snakemake resources/models/smollm2/config.json, then ask again")

    @pytest.mark.parametrize(
        ("asked", "state", "said"),
        [
            (True, "missing", "not in the local cache, and the hub cannot"),
            (False, "warn", "not in the cache of the hub"),
        ],
    )
    def test_a_hub_that_says_nothing(self, asked, state, said):
        sizes, found = doctor.weights(study("llama3"), None, asked)
        assert (sizes, found.state) == (None, state)
        assert found.said.startswith(f"meta-llama/Meta-Llama-3-8B-Instruct: {said}")

    def test_prompts(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        found = doctor.prompts(study("llama3"))
        assert found == Found(
            "prompts", "missing", "no such file: data/borderline_test.jsonl: correct `prompts`, or put it there"
        )

    def test_addresses(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert doctor.addresses(study("tiny")) == {}
        assert set(doctor.addresses(study("llama3", judges=["rubric"]))) == {
            "prompt sets",
            "hub (model, pile, alpaca)",
            "judge rubric",
        }


class TestScript:
    def run(self, capsys, *flags):
        made = script("doctor")
        code = 0
        try:
            made.main(made.parser().parse_args([*flags, "--no-network"]))
        except SystemExit as error:
            code = error.code
        return code, capsys.readouterr().out

    @pytest.mark.parametrize("loss", [None, 36000.0])
    def test_a_study_that_can_start(self, capsys, monkeypatch, loss):
        monkeypatch.chdir(ROOT)
        jobs = [] if loss is None else [{"job": "loss", "seconds": loss}]
        monkeypatch.setattr("refusal.report.origins.times", lambda folder: jobs)
        code, said = self.run(capsys, "--model", "tiny")
        assert code == 0
        assert "29 combinations, 8,700 responses; from nothing:" in said
        assert ("Took last: with the settings that it had then." in said) == bool(jobs)
        assert [line.split()[-2:] == ["10.0", "h"] for line in said.splitlines() if line.startswith("loss ")] == [
            bool(jobs)
        ]
        assert re.search(r"^On c.* measured now\.$", said, re.MULTILINE)
        for stage in ("prompts", "completions_harmful", "loss", "the rest", "all"):
            assert f"\n{stage} " in said

    @pytest.mark.parametrize(("cached", "disks"), [(None, ["disk of HF_HOME", "disk"]), (Path(), ["disk"])])
    def test_room_for_weights_that_are_to_be_downloaded(self, monkeypatch, tmp_path, cached, disks):
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.setattr(hub, "cached_weights", lambda *_: cached)
        sizes = SimpleNamespace(weights=lambda dtype: 16e9)
        memory, *found = script("doctor")._room(study("llama3"), ["none", "0"], sizes, [])
        assert [memory.what, *(one.what for one in found)] == ["memory", *disks]
        assert found[0].said.startswith(f"{tmp_path}: needs about 16.0 GB") == (cached is None)

    def test_values_on_the_command_line_as_for_snakemake(self, capsys, monkeypatch, tmp_path):
        monkeypatch.chdir(ROOT)
        (tmp_path / "over.yaml").write_text("prompts: {counts: {test: 50}}\n")
        flags = ["--model", "tiny", "--no-times", "--configfile", str(tmp_path / "over.yaml"), "--config"]
        assert "19 combinations, 2,850 responses" in self.run(capsys, *flags, "combinations=[singles]", "seed=1")[1]
        with pytest.raises(UserError, match=r"--config seed: .*name=value"):
            self.run(capsys, *flags, "seed")

    def test_a_study_that_cannot(self, capsys, monkeypatch, tmp_path):
        monkeypatch.chdir(ROOT)
        monkeypatch.delenv("TOGETHER_API_KEY", raising=False)
        (tmp_path / "paid.yaml").write_text("judges: [substring, rubric]\n")
        code, said = self.run(capsys, "--model", "llama3", "--configfile", str(tmp_path / "paid.yaml"), "--no-times")
        assert code == 1
        assert "missing  TOGETHER_API_KEY  not set, and needed by rubric" in said
        assert "judge rubric: about $" in said

    @pytest.mark.parametrize(("count", "said"), [(3, "3 s"), (200, "3 min"), (5399, "90 min"), (9000, "2.5 h")])
    def test_durations(self, count, said):
        assert doctor.duration(count) == said
