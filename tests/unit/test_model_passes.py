"""A forward pass with shared tokens, and one that starts at a layer, against one that does all of it."""

import dataclasses

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from refusal.directions import random_directions, span_basis
from refusal.model.batching import left_pad
from refusal.model.families import find_stream
from refusal.model.interventions import ablation, addition, none
from refusal.model.passes import Prefix, Start, exact_head, forward, shared_prefix
from refusal.model.residuals import recorded, resumed
from refusal.model.specimens import FAMILIES, specimen

D = 32
TEMPLATE = [1, 30, 31, 32, 33, 34]
# One shorter than the padding that another needs, one wider than the window of the families that have one.
PROMPTS = [TEMPLATE + rest for rest in ([60, 70, 6], [40, 6], [*range(90, 110), 6])]
MIX = [none(D), ablation(span_basis(random_directions(2, D, 0))[0]), addition(3 * random_directions(1, D, 1)[0], 1)]


def under(model, one):
    return reference.ablated(model, one.read) if one.vector is None else reference.added(model, one.vector, one.layer)


class TestSharedPrefix:
    @given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), min_size=1, max_size=5), st.integers(1, 3))
    def test_all_rows_share_it_and_keep_tokens_of_their_own(self, rows, own):
        prefix = shared_prefix(rows, own)
        count = len(prefix)
        assert prefix.tokens == rows[0][:count]
        assert all(row[:count] == rows[0][:count] for row in rows)
        assert count == 0 or count <= min(map(len, rows)) - own
        # and it is the longest one, where it is worth a pass
        longer = count + 1
        if count:
            assert longer > min(map(len, rows)) - own or len({tuple(row[:longer]) for row in rows}) > 1

    def test_a_few_tokens_are_not_worth_a_pass(self):
        assert len(shared_prefix([[1, 2, 3, 9], [1, 2, 3, 8]])) == 0
        assert shared_prefix([[1, 2, 3, 4, 9], [1, 2, 3, 4, 8]]).tokens == [1, 2, 3, 4]

    def test_rows_that_are_equal_keep_their_last_token(self):
        assert shared_prefix([PROMPTS[0]] * 3).tokens == PROMPTS[0][:-1]


@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_tokens_change_no_logit(family, use_cache, chat_model):
    chat = chat_model(family)
    rows = [(ids, one) for one in MIX for ids in PROMPTS]
    found = forward(chat, *zip(*rows, strict=True), shared_prefix(PROMPTS), use_cache=use_cache)
    assert (found.cache is not None) or not use_cache
    for logits, (ids, one) in zip(found.logits[:, -1], rows, strict=True):
        with under(chat.model, one):
            torch.testing.assert_close(logits, reference.last_logits(chat.model, ids), rtol=0, atol=1e-4)


def test_a_prefix_is_computed_once_while_its_interventions_stay(chat, monkeypatch):
    counted, real = [], chat.model.forward

    def counting(*args, **inputs):
        counted.append(tuple(inputs["input_ids"].shape if "input_ids" in inputs else args[0].shape))
        return real(*args, **inputs)

    monkeypatch.setattr(chat.model, "forward", counting)
    prefix, (first, second, third) = shared_prefix(PROMPTS), MIX
    forward(chat, PROMPTS[:2], [first, second], prefix)
    forward(chat, PROMPTS[1:], [second, third], prefix)
    forward(chat, PROMPTS[:2], [first, first], prefix)  # let go by the pass before
    assert counted == [(2, 6), (2, 3), (1, 6), (2, 21), (1, 6), (2, 3)]


def test_as_many_logits_as_asked_for(chat):
    found = forward(chat, PROMPTS[:1], MIX[:1], Prefix(TEMPLATE[:4]), keep=5)
    with torch.no_grad():
        expected = chat.model(torch.tensor(PROMPTS[:1])).logits[:, -5:]
    torch.testing.assert_close(found.logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [0, 6])
def test_a_pass_from_a_layer_is_the_end_of_a_whole_one(family, layer, shared, chat_model):
    chat, one = chat_model(family), addition(3 * random_directions(1, D, 1)[0], layer)
    prefix = Prefix(TEMPLATE[:shared])
    with recorded(chat.stream) as residuals:
        forward(chat, PROMPTS, [none(D)] * 3, prefix)
    assert len(residuals) == (6 if shared else 3)
    first, rest = residuals[layer], residuals[layer - 3]
    # rows of two prompts: narrower than what was recorded
    own = max(map(len, PROMPTS[:2])) - shared
    start = Start(layer, first, rest[:2, -own:])
    found = forward(chat, PROMPTS[:2], [one] * 2, prefix, start=start).logits[:, -1]
    for logits, ids in zip(found, PROMPTS, strict=False):
        with reference.added(chat.model, one.vector, layer):
            torch.testing.assert_close(logits, reference.last_logits(chat.model, ids), rtol=0, atol=1e-4)


def test_layers_before_the_start_are_not_run_and_come_back(chat, monkeypatch):
    run, before = [], [vars(layer).get("forward") for layer in chat.stream.layers]
    for number, layer in enumerate(chat.stream.layers):
        real = layer.mlp.forward
        monkeypatch.setattr(layer.mlp, "forward", lambda x, number=number, real=real: run.append(number) or real(x))
    inputs = left_pad(PROMPTS[:1], chat.pad, chat.device)
    with torch.no_grad(), resumed(chat.stream, 2, torch.zeros(1, len(PROMPTS[0]), D)):
        chat.model(**inputs)
    assert run == [2]
    with pytest.raises(ZeroDivisionError), resumed(chat.stream, 2, torch.zeros(1, 1, D)):
        1 / 0  # noqa: B018
    assert [vars(layer).get("forward") for layer in chat.stream.layers] == before
    with torch.no_grad():
        chat.model(**inputs)
    assert run == [2, 0, 1, 2]


def test_recording_is_over_with_the_block(chat):
    inputs = left_pad(PROMPTS[:1], chat.pad, chat.device)
    with torch.no_grad(), recorded(chat.stream, 2) as kept:
        chat.model(**inputs)
    assert [tuple(residual.shape) for residual in kept] == [(1, 2, D)] * 3
    with torch.no_grad():
        chat.model(**inputs)
    assert len(kept) == 3
    assert torch.isfinite(torch.stack(kept)).all()


class TestExactHead:
    @pytest.mark.parametrize("family", ["Llama", "Gemma2"])
    def test_logits_of_a_bf16_model_are_fp32_products(self, family, monkeypatch):
        """Its own are rounded to 8 bits; Gemma 2 also caps its logits after the head."""
        monkeypatch.setattr("refusal.model.passes._HEAD_ROWS", 100)  # so that the vocabulary is cut
        model = specimen(family).bfloat16()
        with torch.no_grad(), exact_head(model):
            hidden = model.model(torch.tensor(PROMPTS[:1])).last_hidden_state[:, -1]
            found = model(torch.tensor(PROMPTS[:1]), logits_to_keep=1).logits[:, -1]
        with torch.no_grad():
            own = model(torch.tensor(PROMPTS[:1]), logits_to_keep=1).logits[:, -1]
        expected = hidden.float() @ model.get_output_embeddings().weight.float().T
        if cap := getattr(model.config, "final_logit_softcapping", None):
            expected = torch.tanh(expected / cap) * cap
        assert (found.dtype, own.dtype) == (torch.float32, torch.bfloat16)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert (own.float() - expected).abs().max() > 100 * (found - expected).abs().max()

    def test_a_bias_is_added(self):
        model = specimen("Llama").bfloat16()
        model.lm_head.bias = torch.nn.Parameter(torch.ones(264, dtype=torch.bfloat16))
        with torch.no_grad():
            with exact_head(model):
                found = model(torch.tensor(PROMPTS[:1])).logits
            own = model(torch.tensor(PROMPTS[:1])).logits
        torch.testing.assert_close(found, own.float(), rtol=0.02, atol=0.1)

    def test_nothing_is_done_to_an_fp32_model(self, chat):
        with exact_head(chat.model):
            assert not chat.model.get_output_embeddings()._forward_hooks


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_ablation_leaves_in_the_stream(family, dtype, limit, chat_model):
    """The residual's part along Q, as a share of its norm, at every layer and token of the pass."""
    model = specimen(family).to(dtype)
    chat = dataclasses.replace(chat_model(family), model=model, stream=find_stream(model, PROMPTS[0]))
    Q = span_basis(random_directions(3, D, 0))[0]
    with recorded(chat.stream) as residuals:
        forward(chat, PROMPTS[2:], [ablation(Q)])
    for residual in residuals:
        along = residual.double() @ torch.tensor(Q).T
        assert float((along.norm(dim=-1) / residual.double().norm(dim=-1)).max()) < limit
