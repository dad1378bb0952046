"""Ablation by hooks equals ablation by weights in every family, and a wrong stream would show."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from conftest import describe, script
from torch import nn

from refusal.artifacts import write_jsonl, write_tensors
from refusal.combinations import parse
from refusal.directions import intervention_tensors, random_directions, span_basis
from refusal.errors import UserError
from refusal.model.families import find_stream
from refusal.model.specimens import FAMILIES, specimen
from refusal.model.weights import Projected, agreement, project_weights

D = 32
ROWS = [[3, 60, 70, 80, 205, 6], [40, 6], [*range(90, 110), 6]]
NORMED = ("Gemma2", "Gemma3", "Olmo2", "Glm4")


def basis(k=2, seed=0):
    return span_basis(random_directions(k, D, seed))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_and_weights_give_equal_logits(family):
    model = specimen(family)
    found = agreement(model, find_stream(model, ROWS[0]), basis(), ROWS)
    assert found.difference < 1e-5
    assert found.leftover < 1e-5
    assert found.effect > 1  # it does something
    assert len(found.matrices) == (6 if family in NORMED else 0)


@pytest.mark.parametrize("family", ["Llama", "Llama with biases, tied", "GPT2", "Gemma2", "GptOss"])
def test_a_projected_model_is_a_plain_one(family):
    """No hook is left; only writers are changed, and what is tied to the embedding is not."""
    model = specimen(family)
    stream, before = find_stream(model, ROWS[0]), {name: one.clone() for name, one in model.state_dict().items()}
    head = model.get_output_embeddings().weight.clone()
    project_weights(model, stream, basis())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    torch.testing.assert_close(model.get_output_embeddings().weight, head, rtol=0, atol=0)
    changed = {
        name for name, one in model.state_dict().items() if name in before and not torch.equal(one, before[name])
    }
    assert changed
    ends = ("o_proj.weight", "o_proj.bias", "down_proj.weight", "down_proj.bias", "down_proj", "down_proj_bias")
    ends += ("c_proj.weight", "c_proj.bias", "embed_tokens.weight", "wte.weight", "wpe.weight")
    assert all(name.endswith(ends) for name in changed)


def test_agrees_with_weights_projected_by_name():
    model, Q = specimen("Llama"), basis(3)
    expected = reference.orthogonalized(model, Q)
    project_weights(model, find_stream(model, ROWS[0]), Q)
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=0, atol=1e-6)


def test_a_writer_that_is_left_out_shows():
    model = specimen("Llama")
    stream = find_stream(model, ROWS[0])
    partial = replace(stream, writers=(stream.writers[0][:1], *stream.writers[1:]))
    assert agreement(model, partial, basis(), ROWS).leftover > 1e-3


def test_an_mlp_as_wide_as_the_stream_is_projected_along_the_right_axis():
    model = specimen("Llama", intermediate_size=D)  # every weight is square
    assert agreement(model, find_stream(model, ROWS[0]), basis(), ROWS).difference < 1e-5


def test_an_expert_that_no_token_reaches_is_said():
    class Idle(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.idle = inner, nn.Linear(D, D)

        def forward(self, x):
            return self.inner(x)

    model = specimen("Llama")
    model.model.layers[1].mlp = Idle(model.model.layers[1].mlp)
    with pytest.raises(UserError) as caught:
        project_weights(model, find_stream(model, ROWS[0]), basis())
    assert str(caught.value) == (
        "model.layers.1.mlp.idle.weight: no token of the probe reaches it, so what it writes along cannot be told: the"
        " comparison needs a model all of whose experts are used"
    )


def test_a_matrix_stands_behind_a_norm():
    model = specimen("Olmo2")
    assert project_weights(model, find_stream(model, ROWS[0]), basis())[0] == "model.layers.0.post_attention_layernorm"
    behind = model.model.layers[0].post_attention_layernorm
    assert isinstance(behind, Projected)
    np.testing.assert_allclose(behind.matrix.numpy(), np.eye(D) - basis().T @ basis(), atol=1e-6)


class TestScript:
    def run(self, *flags):
        verify = script("verify_weights")
        verify.main(verify.parser().parse_args(list(map(str, flags))))

    @pytest.fixture
    def study(self, identity, tmp_path):
        """A model's identity, prompts, and bases of two combinations and an addition."""
        for name in ("0-1", "random-k1-s0", "add-0"):
            tensors, facts = intervention_tensors(parse(name), random_directions(2, D, 1), "span", 0)
            write_tensors(tmp_path / name / "basis.safetensors", tensors, {**facts, "layer": 1})
        write_jsonl(tmp_path / "prompts.jsonl", [{"id": str(n), "instruction": "word " * n} for n in range(1, 6)])
        return tmp_path, describe(identity("Gemma2").parent / "model", tmp_path / "gemma" / "model.json")

    def test_a_model(self, study, tmp_path, caplog):
        caplog.set_level("INFO")
        folder, model = study
        bases = [folder / name / "basis.safetensors" for name in ("0-1", "random-k1-s0")]
        output = tmp_path / "table.csv"
        self.run(
            "--model", model, "--bases", *bases, "--prompts", folder / "prompts.jsonl", "--rows", 3, "--output", output
        )
        rows = list(csv.DictReader(output.open()))
        assert [(row["model"], row["basis"], row["rows"], row["matrices"]) for row in rows] == [
            ("gemma", "0-1", "3", "6"),
            ("gemma", "random-k1-s0", "3", "6"),
        ]
        assert all(float(row["difference"]) < 1e-5 < 1e-2 < float(row["effect"]) for row in rows)
        assert any(message.startswith("gemma, 0-1: logits differ by ") for message in caplog.messages)

    def test_families(self, caplog):
        caplog.set_level("INFO")
        self.run("--families", "Mixtral", "Glm4")
        said = [message for message in caplog.messages if "logits differ by" in message]
        assert [message.split(",")[0] for message in said] == ["Mixtral", "Glm4"]
        assert said[1].endswith("a matrix behind 6 norms")

    def test_a_writer_that_was_not_found_fails(self, monkeypatch):
        """On both sides it is missing, so the logits are equal: what is left in the stream tells."""
        from refusal.model import families

        def partly(model, token_ids):
            stream = find_stream(model, token_ids)
            return replace(stream, writers=(*stream.writers[:-1], stream.writers[-1][:1]))

        monkeypatch.setattr(families, "find_stream", partly)
        with pytest.raises(
            UserError, match=r"^Llama, random: the stream keeps a cosine of 0\.\d+ > 1e-05 \(1 of 1\): abl"
        ):
            self.run("--families", "Llama")

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ([], "give --model with --bases and --prompts, or --families: one of them"),
            (["--families", "--model", "m"], "give --model with --bases and --prompts, or --families: one of them"),
            (
                ["--model", "m"],
                "--model needs --bases (basis.safetensors of combinations) and --prompts (a prompt file)",
            ),
            (["--families", "Lama"], "--families: unknown family 'Lama': known are Llama, Llama with biases, tied, "),
        ],
    )
    def test_flags_that_do_not_fit(self, flags, message):
        with pytest.raises(UserError) as caught:
            self.run(*flags)
        assert str(caught.value).startswith(message)

    def test_an_addition_is_no_basis(self, study):
        folder, model = study
        path = folder / "add-0" / "basis.safetensors"
        with pytest.raises(UserError) as caught:
            self.run("--model", model, "--bases", path, "--prompts", folder / "prompts.jsonl")
        assert str(caught.value) == (
            f"{path}: no basis of a span: give those of ablations or controls, made with `ablation: span`"
        )

    def test_a_difference_is_an_error(self):
        with pytest.raises(
            UserError, match=r"^Llama, random: hooks and weights differ by .* > -1 \(1 of 1\): ablation"
        ):
            self.run("--families", "Llama", "--tolerance", -1)
