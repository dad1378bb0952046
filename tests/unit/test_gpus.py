"""GPUs handed out: real processes that claim the GPUs of a machine that is none, some of them killed."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from uuid import uuid4

import pytest

from refusal import gpus
from refusal.provenance import ROOT

CLAIMS = textwrap.dedent("""
    import logging, os, sys
    from refusal import gpus
    logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
    gpus._PAUSE = 0.01
    gpus.claim(int(sys.argv[1]))
    print("has", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    sys.stdin.read()
""")


class Machine:
    """GPUs that nvidia-smi lists, named so that no other test's are alike, and processes that claim them."""

    def __init__(self, folder: Path, count: int):
        self.uuids = [f"GPU-{uuid4()}" for _ in range(count)]
        self.path = folder
        self.started: list[subprocess.Popen] = []
        self.lists(*(f"GPU {number}: A card (of 80 GB) (UUID: {uuid})" for number, uuid in enumerate(self.uuids)))

    def lists(self, *lines: str) -> None:
        (self.path / "nvidia-smi").write_text("\n".join(["#!/bin/sh", "cat <<END", *lines, "END", ""]))
        (self.path / "nvidia-smi").chmod(0o755)

    def claims(self, count: int, visible: str | None = None) -> subprocess.Popen:
        """A process that claims, and then goes on until its input ends."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
        environment |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        command = [sys.executable, "-c", CLAIMS, str(count)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.started.append(subprocess.Popen(command, env=environment, **pipes))
        return self.started[-1]

    def has(self, process: subprocess.Popen) -> list[str]:
        """What CUDA sees in a process that has claimed; it has said so in its log."""
        (said, names) = process.stdout.readline(), process.stdout.readline().split()[1]
        assert said == f"on GPU {', '.join(self.own(name) for name in names.split(','))}\n"
        return names.split(",")

    def own(self, name: str) -> str:
        return self.uuids[int(name)] if name.isdecimal() else name


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function: how many GPUs -> the machine."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made = []

    def make(count: int) -> Machine:
        made.append(Machine(tmp_path, count))
        return made[-1]

    yield make
    for process in (process for one in made for process in one.started):
        process.kill()
        with process:
            pass


class TestClaims:
    def test_none_is_held_twice_and_what_a_killed_job_held_is_free(self, machine):
        two = machine(2)
        first, second = two.claims(1), two.claims(1)
        held = two.has(first), two.has(second)
        assert sorted([*held[0], *held[1]]) == sorted(two.uuids)
        third = two.claims(1)
        waits = f"waiting for 1 of the GPUs {', '.join(two.uuids)}: other jobs hold them\n"
        assert third.stdout.readline() == waits
        second.send_signal(signal.SIGKILL)
        assert two.has(third) == held[1]

    def test_several_for_one_job(self, machine):
        three = machine(3)
        pair = three.claims(2)
        held = three.has(pair)
        assert len(set(held)) == 2
        other = three.claims(2)
        assert other.stdout.readline().startswith("waiting for 2 of the GPUs ")
        # the one that is free is not kept by who needs two
        single = three.claims(1)
        (rest,) = set(three.uuids) - set(held)
        assert three.has(single) == [rest]
        single.communicate("")
        pair.communicate("")
        assert len(set(three.has(other))) == 2

    def test_all_of_them_for_each_of_several_jobs(self, machine):
        both = machine(2)
        racing = [both.claims(2) for _ in range(4)]
        for process in racing:
            process.stdin.close()  # it ends as soon as it has them
        for process in racing:
            assert f"has {','.join(both.uuids)}\n" in process.stdout.read()

    def test_of_those_that_are_visible_by_the_names_they_have_there(self, machine):
        three = machine(3)
        assert three.has(three.claims(1, visible="2")) == ["2"]
        last = three.claims(1, visible=three.uuids[2][:12])
        assert last.stdout.readline() == f"waiting for 1 of the GPUs {three.uuids[2]}: other jobs hold them\n"
        assert set(three.has(three.claims(2, visible="0,1,2"))) == {"0", "1"}

    def test_fewer_than_asked_for(self, machine):
        one = machine(1)
        process = one.claims(2)
        assert process.stdout.readline() == "2 GPUs asked for, 1 here\n"
        assert one.has(process) == one.uuids

    def test_the_processor_and_all(self, machine, monkeypatch):
        machine(2)
        gpus.claim(None)
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        gpus.claim(0)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
        gpus.claim(1)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


class TestVisible:
    @pytest.mark.parametrize(
        ("named", "numbers"),
        [
            ("0", [0]),
            ("1, 0", [1, 0]),
            ("", []),
            ("-1", []),
            ("NoDevFiles", []),
            ("1,7,0", [1]),  # as CUDA, which stops there
        ],
    )
    def test_by_number(self, machine, monkeypatch, named, numbers):
        two = machine(2)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert list(gpus.visible().values()) == [two.uuids[number] for number in numbers]

    def test_instances_of_a_gpu(self, machine, monkeypatch):
        two = machine(2)
        parts = [f"MIG-{uuid4()}" for _ in range(2)]
        two.lists(
            f"GPU 0: A100 (UUID: {two.uuids[0]})",
            *(f"  MIG 3g.20gb     Device  {number}: (UUID: {part})" for number, part in enumerate(parts)),
            f"GPU 1: A100 (UUID: {two.uuids[1]})",
        )
        assert list(gpus.visible()) == [*parts, two.uuids[1]]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", parts[1])
        assert gpus.visible() == {parts[1]: parts[1]}

    def test_without_a_driver(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert gpus.visible() == {}
        gpus.claim(1)
        assert "CUDA_VISIBLE_DEVICES" not in os.environ

    def test_a_driver_that_fails(self, machine):
        one = machine(1)
        (one.path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
        assert gpus.visible() == {}
