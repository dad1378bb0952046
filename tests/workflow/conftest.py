"""A finished small study of both organisms, made once; each test gets a copy of its own to change."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]

SMALL = {
    "prompts": {"counts": {"train": 96, "val": 24, "test": 36}},
    "combinations": ["singles", "pairs"],
    "controls": {"sizes": [1, 2], "draws": 1, "shuffled_draws": 1},
}
"""Over config.yaml: the same study with fewer prompts."""

WORKER = os.environ.get("PYTEST_XDIST_WORKER")

CORES = "1" if WORKER else "2"
"""Of two workers each has a core, since jobs that compute on the same one wait for each other."""


@dataclass(frozen=True)
class Checkout:
    """A copy of the project in a folder of its own."""

    folder: Path

    def snakemake(self, *arguments: str, ok: bool = True, **variables: str) -> str:
        """Run the real snakemake; returns what it printed."""
        return self.run("snakemake", "--cores", CORES, *arguments, ok=ok, **variables)

    def run(self, *command: str, ok: bool = True, **variables: str) -> str:
        """Run a command of the environment in the folder, with more variables; returns what it printed."""
        environment = _environment() | variables
        done = subprocess.run(self._located(command), cwd=self.folder, env=environment, text=True, **_CAPTURED)
        assert (done.returncode == 0) == ok, done.stdout[-6000:]
        return done.stdout

    def shell(self, command: str, **variables: str) -> tuple[int, str]:
        """Run a line of a shell in the folder; returns its exit code and what it printed."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=_environment() | variables, text=True, **_CAPTURED
        )
        return done.returncode, done.stdout

    def start(self, *arguments: str, how: Sequence[str] = ("--cores", CORES)) -> subprocess.Popen:
        """Start snakemake in a process group of its own, to be killed."""
        command = self._located(["snakemake", *how, *arguments])
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=_environment(),
            start_new_session=True,
            # what a shell starts in the background ignores it, and hands that on
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            text=True,
            **_CAPTURED,
        )

    def items(self) -> dict[str, set[str]]:
        """Stage -> keys of the finished items in the cache."""
        return {
            stage.name: {item.name for item in stage.iterdir() if not item.name.startswith(".")}
            for stage in (self.folder / "cache").iterdir()
        }

    def computed(self, before: dict[str, set[str]]) -> dict[str, int]:
        """Stage -> number of items computed since `before`; stages without any are left out."""
        fresh = {stage: len(keys - before.get(stage, set())) for stage, keys in self.items().items()}
        return {stage: count for stage, count in fresh.items() if count}

    def contents(self, model: str) -> dict[str, bytes]:
        """Path -> bytes of all result files of a model, specs and records aside."""
        root = self.folder / "results" / model
        aside = (".spec.json", "records.json")
        files = (path for path in root.rglob("*") if path.is_file() and not path.name.endswith(aside))
        return {str(path.relative_to(root)): path.read_bytes() for path in files}

    def change(self, file: str, **values) -> None:
        """Set top-level keys of a YAML file."""
        path = self.folder / file
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}, sort_keys=False))

    def setting(self, *keys: str):
        """A value of config/config.yaml."""
        value = yaml.safe_load((self.folder / "config/config.yaml").read_text())
        for key in keys:
            value = value[key]
        return value

    def copy(self, folder: Path) -> "Checkout":
        """The same checkout elsewhere, cache and snakemake's records included."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Checkout(folder)

    def running(self, script: str) -> Iterator[int]:
        """The processes that run a script here."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                here = (entry / "cwd").resolve() == self.folder.resolve()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # ended meanwhile
            if here and command[0].endswith(b"python") and script.encode() in command:
                yield int(entry.name)

    @staticmethod
    def kill_all(process: subprocess.Popen) -> None:
        """kill -9 snakemake and all it started."""
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    @staticmethod
    def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
        """Poll until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.02)

    @staticmethod
    def _located(command) -> list[str]:
        return [str(Path(sys.executable).parent / command[0]), *command[1:]]


_CAPTURED = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


def _environment() -> dict[str, str]:
    removed = ("HF_TOKEN", "TOGETHER_API_KEY", "PYTHONPATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {key: value for key, value in os.environ.items() if key not in removed} | {"HF_HUB_OFFLINE": "1"}


def copy_of_project(folder: Path) -> Checkout:
    """The tracked files, and those not ignored, as they are in the work tree."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    checkout = Checkout(folder)
    merged = yaml.safe_load((folder / "config/config.yaml").read_text())
    for key, value in SMALL.items():
        merged[key] = {**merged[key], **value} if isinstance(value, dict) else value
    (folder / "config/config.yaml").write_text(yaml.safe_dump(merged, sort_keys=False))
    return checkout


def _finish(folder: Path) -> Checkout:
    checkout = copy_of_project(folder)
    organisms = [f"resources/organisms/{name}/config.json" for name in ("tiny", "tiny1")]
    # side by side, since training gains little by a second core
    checkout.snakemake("--cores", "2", "--set-threads", "organism=1", "--", *organisms)
    checkout.snakemake("results/tiny/summary.csv", "results/tiny1/summary.csv")
    return checkout


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Checkout:
    """The small study of both organisms, finished; not to be changed."""
    if not WORKER:
        return _finish(tmp_path_factory.mktemp("finished"))
    folder = tmp_path_factory.getbasetemp().parent / "finished"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _finish(folder.with_name("unfinished"))
            folder.with_name("unfinished").rename(folder)
    return Checkout(folder)


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Checkout:
    """The project alone, without a study that was run."""
    return copy_of_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def checkout(finished, tmp_path) -> Checkout:
    """A copy of the finished study, to be changed."""
    return finished.copy(tmp_path / "moved")  # results must not depend on where the checkout stands
