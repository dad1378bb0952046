"""A model that nothing in the library or in transformers has heard of: from its folder through the whole engine."""

import dataclasses

import numpy as np
import pytest
import reference
import torch
from conftest import build_tokenizer, describe
from qwen1 import Qwen1StyleConfig, Qwen1StyleForCausalLM

from refusal.directions import random_directions, span_basis
from refusal.model.batching import Room
from refusal.model.families import find_stream
from refusal.model.generation import complete
from refusal.model.interventions import ablation, addition, none, sequential
from refusal.model.loading import load
from refusal.model.passes import Start, forward, shared_prefix
from refusal.model.residuals import recorded
from refusal.model.scores import last_logits
from refusal.model.weights import agreement

D = 32
TEMPLATE = [1, 30, 31, 32, 33]
PROMPTS = [TEMPLATE + rest for rest in ([60, 70, 6], [40, 6], [*range(90, 110), 6])]
MIX = {
    "none": none(D),
    "0-1": ablation(span_basis(random_directions(2, D, 0))[0]),
    "sequential": sequential(random_directions(2, D, 1)),
    "add": addition(3 * random_directions(1, D, 1)[0], 1),
}


@pytest.fixture(scope="module")
def authored(tmp_path_factory):
    """Loaded the way any model is, by transformers' own registry."""
    from transformers import AutoConfig, AutoModelForCausalLM

    AutoConfig.register("qwen1-style", Qwen1StyleConfig, exist_ok=True)
    AutoModelForCausalLM.register(Qwen1StyleConfig, Qwen1StyleForCausalLM, exist_ok=True)
    folder = tmp_path_factory.mktemp("qwen1")
    torch.manual_seed(0)
    model = Qwen1StyleForCausalLM(Qwen1StyleConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0))
    model.save_pretrained(folder / "model")
    build_tokenizer().save_pretrained(folder / "model")
    return load(describe(folder / "model", folder / "model.json"))


def under(model, name):
    one = MIX[name]
    if name == "add":
        return reference.added(model, one.vector, one.layer)
    if name == "sequential":
        return reference.published_hooks(model, one.read)
    return reference.ablated(model, one.read)


@pytest.fixture(autouse=True)
def readers(monkeypatch):
    monkeypatch.setitem(reference.READERS, "Qwen1StyleForCausalLM", ("ln_1", "ln_2"))


def test_its_modules_are_found_by_their_roles(authored):
    stream, layers = authored.stream, authored.model.transformer["h"]
    assert stream.entry == (authored.model.transformer["wte"],)
    assert stream.layers == tuple(layers)
    assert stream.writers == stream.blocks == tuple((layer.attn, layer.mlp) for layer in layers)
    assert stream.in_tuples


@pytest.mark.parametrize("name", MIX)
def test_padding_and_shared_tokens_change_nothing(authored, name):
    rows = [(ids, MIX[name]) for ids in PROMPTS]
    for found in (last_logits(authored, rows), last_logits(authored, rows, shared_prefix(PROMPTS))):
        for logits, ids in zip(found, PROMPTS, strict=True):
            with under(authored.model, name):
                expected = reference.last_logits(authored.model, ids)
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", MIX)
def test_cached_decoding_is_a_full_forward_pass_a_token(authored, name):
    chat = dataclasses.replace(authored, stop_tokens=(2,))
    found = {}
    complete(chat, PROMPTS, MIX, 6, Room(5), lambda key, completions: found.update({key: completions}))
    for ids, completion in zip(PROMPTS, found[name], strict=True):
        seen = list(ids)
        with under(chat.model, name):
            for token in completion.tokens:
                assert int(reference.last_logits(chat.model, seen).argmax()) == token
                seen.append(token)


def test_a_pass_starts_at_a_layer_also_where_layers_return_tuples(authored):
    with recorded(authored.stream) as residuals:
        forward(authored, PROMPTS[:1], [MIX["none"]])
    found = forward(authored, PROMPTS[:1], [MIX["add"]], start=Start(1, None, residuals[1])).logits[0, -1]
    with under(authored.model, "add"):
        torch.testing.assert_close(found, reference.last_logits(authored.model, PROMPTS[0]), rtol=0, atol=1e-4)


def test_hooks_and_weights_give_equal_logits(authored):
    model = Qwen1StyleForCausalLM(authored.model.config).eval().requires_grad_(False)
    found = agreement(model, find_stream(model, PROMPTS[0]), np.asarray(MIX["0-1"].read), PROMPTS)
    assert found.difference < 1e-5 < 1 < found.effect
    assert found.leftover < 1e-5
