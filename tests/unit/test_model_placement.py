"""Models larger than a device: layers on a disk or apart give the same tokens, scores and losses."""

import json

import pytest

from refusal.directions import random_directions, span_basis
from refusal.errors import UserError
from refusal.model.batching import Room
from refusal.model.generation import complete
from refusal.model.interventions import ablation, addition, none
from refusal.model.loading import load
from refusal.model.loss import Span, losses
from refusal.model.sweep import bypass, divergence, induce

D = 32
TEMPLATE = [1, 30, 31, 32, 33]
PROMPTS = [TEMPLATE + rest for rest in ([60, 70, 6], [40, 6], [90, 91, 92, 6])]
INTERVENTIONS = {
    "none": none(D),
    "0-1": ablation(span_basis(random_directions(2, D, 0))[0]),
    "add-0": addition(3 * random_directions(1, D, 0)[0], 1),
}
CANDIDATES = {f"{layer}": (4 * random_directions(1, D, layer)[0], layer) for layer in range(3)}

# Two splits of the layers over places; `cpu` stands for a device, `disk` for one that weights are fetched from.
SPLITS = {
    "last layers on a disk": {
        "model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk",
        "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk",
    },
    "all but the middle on a disk": {
        "model.embed_tokens": "disk", "model.layers.0": "disk", "model.layers.1": "cpu", "model.layers.2": "disk",
        "model.norm": "disk", "model.rotary_emb": "cpu", "lm_head": "cpu",
    },
}  # fmt: skip


def figures(chat):
    """Tokens, scores and losses of a model."""
    found = {"tokens": {}, "loss": {}, "induce": {}, "kl": {}, "bypass": {}}
    complete(chat, PROMPTS, INTERVENTIONS, 6, Room(4), lambda name, rows: found["tokens"].update({name: rows}))
    spans = [Span(ids, 5) for ids in PROMPTS]
    losses(chat, spans, INTERVENTIONS, Room(4), lambda name, nats: found["loss"].update({name: sum(nats)}))
    for score, compute in {"induce": induce, "kl": divergence, "bypass": bypass}.items():
        compute(chat, CANDIDATES, PROMPTS, Room(4), lambda name, value, s=score: found[s].update({name: value}))
    return found


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("family", ["Llama", "Gemma2"])
def test_the_same_wherever_layers_stand(family, split, identity, chat_model, tmp_path):
    place = tmp_path / "map.json"
    chosen = dict(SPLITS[split])
    if chat_model(family).model.config.tie_word_embeddings:  # one weight stands in one place
        chosen["lm_head"] = chosen["model.embed_tokens"]
    place.write_text(json.dumps(chosen))
    chat = load(identity(family), str(place))
    assert {n for n, device in chat.model.hf_device_map.items() if device == "disk"} == {
        name for name, device in chosen.items() if device == "disk"
    }
    assert any(parameter.is_meta for parameter in chat.model.parameters())
    assert chat.device.type == "cpu"
    found, expected = figures(chat), figures(chat_model(family))
    assert found["tokens"] == expected["tokens"]
    for kind in ("loss", "induce", "kl", "bypass"):
        assert found[kind] == pytest.approx(expected[kind], abs=1e-5)
    # once more: what a pass replaced in layers that accelerate wrapped is back
    assert figures(chat)["induce"] == found["induce"]


def test_a_map_that_is_not_there(identity):
    with pytest.raises(UserError, match=r"nowhere\.json"):
        load(identity("Llama"), "nowhere.json")


@pytest.mark.parametrize("device", [1, "cuda:1"])
def test_a_map_with_a_gpu_that_the_job_does_not_have(device, identity, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    place = tmp_path / "map.json"
    place.write_text(json.dumps({"model": 0, "lm_head": device}))
    with pytest.raises(UserError) as caught:
        load(identity("Llama"), str(place))
    assert str(caught.value) == (
        f"{place}: names GPU 1, counted from 0, and this job has 1: raise `gpus` in run.ask of config/config.yaml, or"
        " in `ask` of the model's file"
    )
