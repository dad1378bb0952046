"""From a folder to a ChatModel through the model step, and one line for everything that loading can raise."""

import json
import shutil

import pytest
import torch
from conftest import SPECIAL, TEMPLATE, build_tokenizer, describe
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from refusal.artifacts import read_json
from refusal.errors import UserError
from refusal.hub import explain
from refusal.identity import folder_key, layers, model_key, scoring_key
from refusal.model.loading import load
from refusal.model.specimens import specimen


class TestModelStep:
    def test_what_it_writes_of_a_model(self, identity):
        record = read_json(identity("Llama"))
        assert (record["architecture"], record["layers"], record["width"]) == ("LlamaForCausalLM", 3, 32)
        assert [token["position"] for token in record["positions"]] == [-3, -2, -1]
        assert [token["token"] for token in record["positions"]] == ["<end>", "Ċ", "<assistant>"]
        assert [token["string"] for token in record["refusal_tokens"]] == ["I", "S"]
        assert record["identity"]["stop_tokens"] == [SPECIAL.index("<eos>")]
        assert layers(identity("Llama")) == 3

    def test_the_identity_tells_weights_but_not_where_they_stand(self, identity, tmp_path):
        folder = identity("Llama").parent / "model"
        shutil.copytree(folder, tmp_path / "moved")
        moved = describe(tmp_path / "moved", tmp_path / "model.json")
        assert model_key(moved) == model_key(identity("Llama"))
        assert read_json(moved)["load"] != read_json(identity("Llama"))["load"]

    @pytest.mark.parametrize(
        "changes", [{"dtype": "bfloat16"}, {"system_prompt": "Be kind"}, {"chat_template": TEMPLATE + "\n\n"}]
    )
    def test_the_identity_changes_with_what_decides_responses(self, identity, tmp_path, changes):
        if "chat_template" in changes:
            (tmp_path / "template.jinja").write_text(changes["chat_template"])
            changes = {"chat_template": tmp_path / "template.jinja"}
        changed = describe(identity("Llama").parent / "model", tmp_path / "model.json", **changes)
        assert model_key(changed) != model_key(identity("Llama"))

    def test_how_the_template_is_asked_and_told_stands_in_the_identity(self, identity, tmp_path, caplog):
        caplog.set_level("INFO")
        folder = identity("Llama").parent / "model"
        assert not {"asking", "date"} & set(read_json(identity("Llama"))["identity"])  # nothing is new for this model
        (tmp_path / "template.jinja").write_text("{{ strftime_now('%Y') + style }}" + TEMPLATE)
        template = {"chat_template": tmp_path / "template.jinja"}
        paths = [
            describe(folder, tmp_path / f"{style}.json", template_options={"style": style}, **template)
            for style in ("short", "long")
        ]
        assert model_key(paths[0]) != model_key(paths[1])
        record = read_json(paths[0])["identity"]
        assert record["date"] == "2024-07-26"
        assert record["asking"] == {
            "scored": {"options": {"style": "short"}, "appended": ""},
            "answered": {"options": {"style": "short"}, "appended": ""},
            "block": None,
            "opened": False,
        }
        assert caplog.messages[-3] == (
            'chat template: asked with {"style": "short"}; told that today is 2024-07-26, on every day'
        )
        chat = load(paths[0])
        (row,) = chat.encode([{"id": "a", "instruction": "Hi"}])
        assert chat.tokenizer.decode(row).startswith("2024short<bos>")

    def test_an_option_that_the_template_does_not_read(self, identity, tmp_path):
        with pytest.raises(UserError, match=r"^template_options: the chat template reads no `style`; it reads none$"):
            describe(identity("Llama").parent / "model", tmp_path / "model.json", template_options={"style": "short"})
        assert not (tmp_path / "model.json").exists()

    def test_a_template_that_leaves_the_system_prompt_out(self, identity, tmp_path):
        (tmp_path / "template.jinja").write_text(
            "{% for message in messages if message.role == 'user' %}"
            + TEMPLATE.replace("messages", "[message]")
            + "{% endfor %}"
        )
        template = {"chat_template": tmp_path / "template.jinja"}
        folder = identity("Llama").parent / "model"
        with pytest.raises(UserError) as caught:
            describe(folder, tmp_path / "model.json", system_prompt="Be kind.", **template)
        assert str(caught.value) == (
            "the chat template leaves the system prompt out: change `system_prompt` or `chat_template`"
        )
        for empty in (None, ""):
            describe(folder, tmp_path / "model.json", system_prompt=empty, **template)

    def test_a_model_that_brings_its_own_code(self, identity, tmp_path, monkeypatch):
        """It is neither run nor asked about."""
        shutil.copytree(identity("Llama").parent / "model", tmp_path / "model")
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        config |= {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        (tmp_path / "model" / "configuration_own.py").write_text("raise SystemExit('it was run')")
        monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it was asked about"))
        with pytest.raises(UserError) as caught:
            describe(tmp_path / "model", tmp_path / "model.json")
        assert str(caught.value) == (
            f"{tmp_path / 'model'}: needs code from its own repository, which is not run here: use a version of the"
            " model that transformers knows (Qwen1.5 instead of Qwen, for instance)"
        )

    def test_refusal_tokens_decide_scores_alone(self, identity, tmp_path):
        changed = describe(identity("Llama").parent / "model", tmp_path / "model.json", refusal_tokens=["X"])
        assert model_key(changed) == model_key(identity("Llama"))
        assert scoring_key(changed) != scoring_key(identity("Llama"))

    def test_other_weights_are_another_model(self, identity, tmp_path):
        folder = identity("Llama").parent / "model"
        shutil.copytree(folder, tmp_path / "other")
        weights = tmp_path / "other" / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        before, after = folder_key(folder), folder_key(tmp_path / "other")
        assert {name for name in before if before[name] != after[name]} == {"model.safetensors"}
        assert {"config.json", "tokenizer.json", "generation_config.json"} <= set(before)

    @pytest.mark.parametrize("both", [True, False])
    def test_a_folder_or_a_hub_name(self, tmp_path, both):
        with pytest.raises(UserError, match=r"^give --folder or --id, one of them$"):
            describe(tmp_path if both else None, tmp_path / "model.json", id="a/b" if both else None)

    def test_a_refusal_token_of_several(self, identity, tmp_path):
        with pytest.raises(UserError, match=r'^refusal token "Sorry" is 5 tokens here'):
            describe(identity("Llama").parent / "model", tmp_path / "model.json", refusal_tokens=["Sorry"])
        assert not (tmp_path / "model.json").exists()


class TestLoad:
    def test_the_weights_are_those_saved_and_frozen(self, chat):
        for name, value in specimen("Llama").state_dict().items():
            torch.testing.assert_close(chat.model.state_dict()[name], value, rtol=0, atol=0)
        assert not chat.model.training
        assert not any(parameter.requires_grad for parameter in chat.model.parameters())

    def test_what_stages_ask_of_it(self, chat):
        assert chat.suffix[0] == SPECIAL.index("<end>")
        assert chat.tokenizer.convert_ids_to_tokens(list(chat.refusal_tokens)) == ["I", "S"]
        assert (chat.pad, chat.device, chat.system_prompt) == (0, torch.device("cpu"), None)
        assert chat.run["dtype"] == "float32"
        assert chat.run["versions"]["torch"] == torch.__version__

    def test_dtype_system_prompt_and_template_of_the_identity(self, identity, tmp_path):
        (tmp_path / "template.jinja").write_text(TEMPLATE.replace("<assistant>", "<assistant>>"))
        path = describe(
            identity("Llama").parent / "model",
            tmp_path / "model.json",
            dtype="bfloat16",
            system_prompt="Be kind",
            chat_template=tmp_path / "template.jinja",
        )
        chat = load(path)
        assert (chat.model.dtype, chat.system_prompt, chat.run["dtype"]) == (torch.bfloat16, "Be kind", "bfloat16")
        assert len(chat.suffix) == 4

    def test_an_unsupported_family_is_refused_before_any_work(self, tmp_path):
        specimen("Mamba").save_pretrained(tmp_path / "model")
        build_tokenizer().save_pretrained(tmp_path / "model")
        path = describe(tmp_path / "model", tmp_path / "model.json")
        with pytest.raises(
            UserError, match=r"^MambaForCausalLM: its layers keep a recurrent state, .*: unsupported family$"
        ):
            load(path)

    def test_modules_placed_by_hand_are_those_of_the_stream(self, identity, tmp_path):
        folder = identity("Llama").parent / "model"
        placed = describe(folder, tmp_path / "model.json", modules={"layers": "model.layers"})
        assert model_key(placed) != model_key(identity("Llama"))  # it decides what is ablated
        assert len(load(placed).stream.all_writers) == 7
        wrong = describe(folder, tmp_path / "wrong.json", modules={"writers": ["self_attn"]})
        with pytest.raises(UserError, match=r"^LlamaForCausalLM: layer 0: its writers do not add up"):
            load(wrong)

    def test_an_imported_run_has_no_model(self, tmp_path):
        (tmp_path / "model.json").write_text('{"load": {"published": "runs/gemma"}, "identity": {}}')
        with pytest.raises(UserError) as caught:
            load(tmp_path / "model.json")
        assert str(caught.value) == (
            f"{tmp_path / 'model.json'}: an imported published run, without its model: no stage that needs one can run"
            " on it"
        )

    def test_a_folder_that_went_missing(self, identity, tmp_path):
        record = read_json(identity("Llama"))
        record["load"]["folder"] = str(tmp_path / "gone")
        (tmp_path / "model.json").write_text(json.dumps(record))
        with pytest.raises(UserError) as caught:
            load(tmp_path / "model.json")
        assert str(caught.value).startswith(f"{tmp_path / 'gone'}/")
        assert "\n" not in str(caught.value)

    def test_weights_that_are_damaged(self, identity, tmp_path):
        shutil.copytree(identity("Llama").parent / "model", tmp_path / "model")
        path = describe(tmp_path / "model", tmp_path / "model.json")
        (tmp_path / "model" / "model.safetensors").write_bytes(b"cut")
        with pytest.raises(UserError) as caught:
            load(path)
        assert str(caught.value) == (
            f"{tmp_path / 'model' / 'model.safetensors'}: not what {path} describes: restore it (--forcerun organism"
            ", unpack or teach makes it again), or run snakemake with --forcerun model if it is meant"
        )

    def test_weights_that_are_missing_are_not_drawn_at_random(self, identity, tmp_path):
        shutil.copytree(identity("Llama").parent / "model", tmp_path / "model")
        file = tmp_path / "model" / "model.safetensors"
        weights = load_file(file)
        del weights["model.layers.1.mlp.down_proj.weight"]
        save_file(weights, file, metadata={"format": "pt"})
        path = describe(tmp_path / "model", tmp_path / "model.json")
        with pytest.raises(UserError) as caught:
            load(path)
        assert str(caught.value) == (
            f"{tmp_path / 'model'}: 1 of its weights are missing, such as model.layers.1.mlp.down_proj.weight:"
            " get it again"
        )


def hub_error(kind, message="401 Client Error"):
    import httpx

    return kind(message, response=httpx.Response(401, request=httpx.Request("GET", "https://huggingface.co/a/b")))


def wrapped(inner):
    """As transformers hands it on: an OSError whose cause is the hub's."""
    try:
        raise OSError("We couldn't connect to the hub, see the cause") from inner
    except OSError as error:
        return error


class TestExplain:
    @pytest.mark.parametrize("set_", [True, False])
    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            (
                errors.GatedRepoError,
                "a/b: access is granted per person (TOKEN): accept its licence on the hub, then set HF_TOKEN",
            ),
            (errors.RevisionNotFoundError, "a/b: no such revision: correct its `revision` in config/"),
            (
                errors.RepositoryNotFoundError,
                "a/b: not found or private (TOKEN): correct the name in config/, or set HF_TOKEN",
            ),
        ],
    )
    def test_what_the_hub_says(self, kind, message, set_):
        said = explain("a/b", wrapped(hub_error(kind)), {"HF_TOKEN": "hf_secret"} if set_ else {})
        assert said == message.replace("TOKEN)", "HF_TOKEN is set)" if set_ else "HF_TOKEN is not set)")

    @pytest.mark.parametrize(
        "inner", [errors.LocalEntryNotFoundError("x"), errors.OfflineModeIsEnabled("x"), ConnectionError()]
    )
    def test_no_network(self, inner):
        assert explain("a/b", wrapped(inner), {}) == (
            "a/b: not in the local cache, and the hub cannot be reached (HF_TOKEN is not set): connect to the network"
            " and set HF_TOKEN (a gated model needs it), or point HF_HOME at a cache that holds it"
        )

    def test_anything_else_is_one_line(self):
        assert explain("folder", ValueError("no\n  such thing"), {}) == "folder: cannot be loaded: no such thing"

    def test_a_token_is_never_said(self):
        for inner in (hub_error(errors.GatedRepoError), ConnectionError("hf_secret"), ValueError("other")):
            assert "hf_secret" not in explain("a/b", wrapped(inner), {"HF_TOKEN": "hf_secret"})
