"""Models of the hub brought into HF_HOME, from a server on the loopback that imitates it; then loaded without it."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import describe
from hub_server import hub

from refusal.artifacts import read_json
from refusal.errors import UserError
from refusal.model.fetching import fetch
from refusal.model.loading import load
from refusal.provenance import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_this_test_alone"


@pytest.fixture(scope="module")
def repository(identity, tmp_path_factory):
    """A model's folder as it stands on the hub, with the same weights once more in another form."""
    folder = tmp_path_factory.mktemp("repository") / "files"
    shutil.copytree(identity("Llama").parent / "model", folder)
    for twin in ("consolidated.safetensors", "pytorch_model.bin"):
        (folder / twin).write_bytes(b"not to be fetched")
    return folder


TWICE = f"""
import os, sys
sys.path[:0] = [{str(ROOT / "src")!r}, {str(ROOT / "scripts")!r}]
from refusal import cli
import weights

try:
    cli.run(weights.main, weights.parser())
except SystemExit as left:
    print(left.code)
os.environ["HF_TOKEN"] = {TOKEN!r}
cli.run(weights.main, weights.parser())
"""
"""The script without a token, then with one; in one process, since what it imports takes seconds."""


def test_a_gated_model_is_fetched_with_a_token_and_loaded_without_the_hub(repository, tmp_path, monkeypatch):
    home, note, log = tmp_path / "home", tmp_path / "note.json", tmp_path / "log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    with hub("lab/model", COMMIT, repository, TOKEN) as server:
        environment |= {"HF_HOME": str(home), "HF_ENDPOINT": server.address, "NO_PROXY": "127.0.0.1"}
        flags = ["--id", "lab/model", "--revision", COMMIT, "--output", note, "--log", log]
        done = subprocess.run([sys.executable, "-c", TWICE, *flags], env=environment, capture_output=True, text=True)
        asked = list(server.asked)
        # as on a node without a network: tests are offline
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
        described = describe(None, tmp_path / "model.json", id="lab/model", revision=COMMIT)
        # and though the hub may be asked
        with monkeypatch.context() as online:
            online.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
            online.setattr("huggingface_hub.constants.ENDPOINT", server.address)
            loaded = load(described)
        assert server.asked == asked
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert done.stderr == (
        "error: lab/model: access is granted per person (HF_TOKEN is not set): accept its licence on the hub, then set"
        f" HF_TOKEN\nlab/model@{COMMIT} is in HF_HOME\n"
    )
    assert read_json(note) == {"id": "lab/model", "revision": COMMIT, "weights": ["model.safetensors"]}
    got = {line.rpartition("/")[2] for line in asked if line.startswith("GET")}
    assert "model.safetensors" in got
    assert not got & {"consolidated.safetensors", "pytorch_model.bin"}
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]
    assert read_json(described)["identity"]["weights"] == f"lab/model@{COMMIT}"
    assert loaded.width == read_json(repository / "config.json")["hidden_size"]
    # what is there is enough
    assert fetch("lab/model", COMMIT) == ["model.safetensors"]
    (weights,) = (home / "hub").rglob("model.safetensors")
    weights.unlink()
    with pytest.raises(UserError) as caught:
        fetch("lab/model", COMMIT)
    assert str(caught.value).startswith("lab/model: not in the local cache, and the hub cannot be reached (HF_TOKEN is")
