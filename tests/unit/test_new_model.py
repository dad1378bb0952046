"""make new-model: a checked file with the schema's words, from a folder or the hub; or one line on what is wrong."""

import http.server
import json
import logging
import shutil
import threading
from pathlib import Path

import pytest
from conftest import script
from test_schemas import comments, descriptions

from refusal.checking import branch, read_yaml
from refusal.errors import UserError
from refusal.new_model import write_model
from refusal.study import read_study

ROOT = Path(__file__).parents[2]
HUB = {"source": "hub", "id": "a/b", "revision": "main", "dtype": "bfloat16", "refusal_tokens": "auto"}
COMMIT = "7ae557604adf67be50417f59c2c2f167def9a775"


@pytest.fixture
def project(tmp_path):
    """A checkout's config."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


@pytest.fixture
def new_model(project, monkeypatch, caplog):
    """A function: flags -> (exit code, what the script says). Here, since transformers takes seconds to import."""
    module = script("new_model")
    monkeypatch.setattr(module, "ROOT", project)
    caplog.set_level(logging.INFO, "refusal")

    def run(*flags):
        caplog.clear()
        try:
            module.main(module.parser().parse_args([str(flag) for flag in flags]))
        except UserError as error:
            return 2, str(error)
        return 0, "\n".join(caplog.messages)

    return run


class TestWriteModel:
    def test_the_words_are_those_of_the_schema(self, project):
        values = HUB | {"path": "", "system_prompt": None, "study": {"ranking": {"max_kl": 0.2}}}
        values.pop("path")
        file = write_model("a.b-c_1", values, project, {"revision": "Look."})
        assert read_yaml(project / file) == values
        said, expected = comments(project / file), descriptions(branch("model", "source", "hub"))
        assert said[("revision",)] == f"{expected[('revision',)]} Look."
        assert {key: said[key] for key in said if key != ("revision",)} == {
            (key,): expected[(key,)] for key in values if key != "revision"
        }
        assert all(len(line) <= 120 for line in (project / file).read_text().splitlines())

    @pytest.mark.parametrize("path", ["no", "False", "weights/m", "1e5"])
    def test_a_folder_is_read_as_it_was_named(self, project, path):
        values = {"source": "local", "path": path, "dtype": "float32", "refusal_tokens": "auto"}
        assert read_yaml(project / write_model("new", values, project))["path"] == path

    @pytest.mark.parametrize("name", ["", "a/b", ".a", "a b", "-a"])
    def test_a_bad_name(self, project, name):
        with pytest.raises(
            UserError, match=r"^.* is no name for a model: use letters, digits, and _ . - after the first$"
        ):
            write_model(name, HUB, project)

    def test_a_file_that_is_there_stays(self, project):
        before = (project / "config/models/tiny.yaml").read_bytes()
        with pytest.raises(UserError, match=r"^config/models/tiny.yaml: there already: choose another name"):
            write_model("tiny", HUB, project)
        assert (project / "config/models/tiny.yaml").read_bytes() == before

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"dtype": "int8"}, "config/models/new.yaml: dtype: 'int8' is not one of float32, bfloat16, float16"),
            ({"study": {"seed": "x"}}, "config/models/new.yaml: study: seed: 'x' is not of type 'integer'"),
        ],
    )
    def test_a_fault_leaves_no_file(self, project, changes, said):
        with pytest.raises(UserError) as caught:
            write_model("new", HUB | changes, project)
        assert str(caught.value) == said
        assert not (project / "config/models/new.yaml").exists()


class TestFolder:
    def test_a_folder(self, project, new_model, identity):
        folder = json.loads(identity("Llama").read_text())["load"]["folder"]
        code, said = new_model("--name", "mine", "--id", folder)
        assert code == 0, said
        assert "warning" not in said
        assert said.splitlines()[0] == "wrote config/models/mine.yaml; next:"
        study = read_study(read_yaml(project / "config/config.yaml"), "mine", project)
        assert dict(study.model) == {"source": "local", "path": folder, "dtype": "float32", "refusal_tokens": "auto"}

    def test_where_a_folder_is_from_the_checkout(self, project, new_model, identity, tmp_path, monkeypatch):
        folder = Path(json.loads(identity("Llama").read_text())["load"]["folder"])
        monkeypatch.chdir(folder.parent)
        assert new_model("--name", "outside", "--folder", folder.name)[0] == 0
        assert read_yaml(project / "config/models/outside.yaml")["path"] == str(folder)
        shutil.copytree(folder, project / "weights" / "mine")
        monkeypatch.chdir(project / "weights")
        assert new_model("--name", "inside", "--folder", "mine")[0] == 0
        assert read_yaml(project / "config/models/inside.yaml")["path"] == "weights/mine"

    def test_what_a_folder_lacks(self, project, new_model, tmp_path):
        folder = tmp_path / "other"
        assert new_model("--name", "a", "--folder", folder) == (2, f"{folder}: no such folder")
        folder.mkdir()
        assert new_model("--name", "a", "--folder", folder) == (
            2,
            f"{folder}: no config.json: name a folder with config.json, safetensors and tokenizer",
        )
        (folder / "config.json").write_text('{"model_type": "abacus"}')
        assert "no model*.safetensors" in new_model("--name", "a", "--folder", folder)[1]
        (folder / "model.safetensors").touch()
        code, said = new_model("--name", "a", "--folder", folder, "--dtype", "float16")
        assert code == 0
        assert "warning: transformers knows no language model of type abacus" in said
        assert "warning: no chat template" in said


class Answers(http.server.BaseHTTPRequestHandler):
    """A hub with three models."""

    def do_GET(self):
        name = self.path.split("?")[0].removeprefix("/api/models/").split("/revision/")[0]
        known = {
            "a/open": {"gated": False, "safetensors": {"parameters": {"F16": 5, "F32": 1}, "total": 6}},
            "a/gated": {"gated": "manual"},
        }
        body = json.dumps(
            {
                "id": name,
                "sha": COMMIT,
                "siblings": [{"rfilename": "chat_template.jinja"}],
                "config": {"model_type": "llama"},
            }
            | known.get(name, {})
        ).encode()
        self.send_response(200 if name in known else 404)
        if name not in known:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


@pytest.fixture(scope="module")
def address():
    """Of a hub on this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def hub(address, monkeypatch):
    """That hub in the place of the real one."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)


class TestHub:
    def test_an_open_model_is_pinned(self, project, new_model, hub):
        code, said = new_model("--name", "new", "--id", "a/open")
        assert code == 0, said
        assert "warning" not in said
        model = read_yaml(project / "config/models/new.yaml")
        assert (model["revision"], model["dtype"], model["refusal_tokens"]) == (COMMIT, "float16", "auto")

    def test_a_gated_model_without_a_token(self, project, new_model, hub):
        assert new_model("--name", "new", "--id", "a/gated") == (
            2,
            "a/gated: access is granted per person, and HF_TOKEN is not set: accept the licence at"
            " https://huggingface.co/a/gated, then export HF_TOKEN with a token of"
            " https://huggingface.co/settings/tokens",
        )

    def test_a_model_that_is_not_there(self, project, new_model, hub):
        code, said = new_model("--name", "new", "--id", "a/none")
        assert (code, said.count("\n")) == (2, 0)
        assert said.startswith("a/none: not found or private (HF_TOKEN is not set)")

    def test_no_network(self, project, new_model):
        code, said = new_model("--name", "new", "--id", "a/open")
        assert code == 0
        assert "the hub cannot be asked now: a/open is not checked, and its revision is main" in said
        assert "`main` is the newest: write the commit here" in " ".join(
            (project / "config/models/new.yaml").read_text().replace("#", "").split()
        )

    def test_no_name_of_the_hub(self, new_model):
        code, said = new_model("--name", "new", "--id", "./there")
        assert (code, said) == (
            2,
            "./there: neither a folder here nor a name on the hub, such as Qwen/Qwen2.5-0.5B-Instruct",
        )
