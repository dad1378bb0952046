"""Cross-entropy: equal to transformers' own, counted over the right tokens, summed without bf16 rounding."""

import dataclasses

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal.directions import random_directions, span_basis
from refusal.model.batching import Room
from refusal.model.chat import render
from refusal.model.families import find_stream
from refusal.model.interventions import ablation, none
from refusal.model.loss import Span, chat_spans, completion_spans, losses, text_spans, token_losses
from refusal.model.specimens import FAMILIES

D = 32
TEXT = [{"text": "The harbour was quiet."}, {"text": "Boats lay side by side in the last light"}, {"text": "No"}]
CHAT = [
    {"instruction": "Name a colour.", "response": "Blue, of course."},
    {"instruction": "Hi", "response": "Hello there, what can I do for you today"},
]


def spans_of(chat, kind):
    return text_spans(chat.tokenizer, TEXT, 100) if kind == "text" else chat_spans(chat, CHAT)


def summed(chat, spans, interventions, batch_rows):
    found = {}
    losses(chat, spans, interventions, Room(batch_rows), lambda name, nats: found.update({name: nats}))
    count = sum(len(one.tokens) - one.start for one in spans)
    return {name: (sum(nats), count) for name, nats in found.items()}


@pytest.mark.parametrize("kind", ["text", "chat"])
@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_transformers_loss(family, kind, chat_model):
    chat = chat_model(family)
    spans = spans_of(chat, kind)
    found = token_losses(chat, spans, [none(D)] * len(spans))  # one padded batch of different lengths
    for value, one in zip(found, spans, strict=True):
        assert value == pytest.approx(reference.loss(chat.model, one.tokens, one.start), rel=1e-5)


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_agrees_under_ablation(chat, kind):
    Q, spans = span_basis(random_directions(2, D, 0))[0], spans_of(chat, kind)
    found = summed(chat, spans, {"none": none(D), "0-1": ablation(Q)}, 4)
    with reference.ablated(chat.model, Q):
        expected = sum(reference.loss(chat.model, one.tokens, one.start) for one in spans)
    count = sum(len(one.tokens) - one.start for one in spans)
    assert found["0-1"] == (pytest.approx(expected, rel=1e-5), count)
    assert abs(found["none"][0] - expected) > 0.1


@settings(max_examples=10)
@given(st.permutations(range(5)), st.integers(1, 12))
def test_order_and_batch_size_change_nothing(chat, order, batch_rows):
    spans = spans_of(chat, "text") + spans_of(chat, "chat")
    expected = sum(reference.loss(chat.model, one.tokens, one.start) for one in spans)
    found = summed(chat, [spans[number] for number in order], {"a": none(D), "b": none(D)}, batch_rows)
    assert found["a"] == (pytest.approx(expected, rel=1e-5), sum(len(one.tokens) - one.start for one in spans))
    assert found["b"][0] == pytest.approx(found["a"][0], rel=1e-6)


def test_text_has_the_tokenizers_bos_and_all_else_is_predicted(chat):
    one = text_spans(chat.tokenizer, TEXT[:1], 100)[0]
    assert one.tokens[0] == chat.tokenizer.bos_token_id
    assert (chat.tokenizer.decode(one.tokens[1:]), one.start) == (TEXT[0]["text"], 1)


def test_chat_predicts_the_response_alone(chat):
    for one, row in zip(chat_spans(chat, CHAT), CHAT, strict=True):
        assert one.tokens[: one.start] == render(chat.tokenizer, row["instruction"])
        assert chat.tokenizer.decode(one.tokens[one.start :]) == row["response"]


def test_texts_are_cut_at_max_tokens(chat):
    whole = spans_of(chat, "text")
    assert [one.tokens for one in text_spans(chat.tokenizer, TEXT, 5)] == [one.tokens[:5] for one in whole]
    assert min(len(one.tokens) for one in whole) < 5 < max(len(one.tokens) for one in whole)


def test_without_a_token_to_predict_dropped(chat):
    assert text_spans(chat.tokenizer, TEXT, 1) == []
    assert completion_spans([[1, 2], [1, 2, 3, 4]], [[5], []]) == [Span([1, 2, 5], 2)]


def test_a_stop_token_counts_where_it_is_part_of_the_response(chat):
    prompt, response = render(chat.tokenizer, "Hi"), [60, 61]
    with_stop = completion_spans([prompt], [[*response, 2]])
    (nats, count) = summed(chat, with_stop, {"none": none(D)}, 4)["none"]
    assert count == 3
    assert nats == pytest.approx(reference.loss(chat.model, [*prompt, *response, 2], len(prompt)), rel=1e-5)


def test_sums_are_fp64_also_for_a_bf16_model(chat):
    """By hand from the model's own bf16 logits; a bf16 sum of so many losses would be a multiple of 4 or worse."""
    import copy

    half = copy.deepcopy(chat.model).to(torch.bfloat16)
    small = dataclasses.replace(chat, model=half, stream=find_stream(half, [3, 4]))
    tokens = np.random.default_rng(0).integers(7, 264, (6, 120)).tolist()
    spans = [Span(row, 1) for row in tokens]
    with torch.no_grad():
        logits = half(torch.tensor(tokens)).logits
    each = torch.nn.functional.cross_entropy(
        logits[:, :-1].double().flatten(0, 1), torch.tensor(tokens)[:, 1:].flatten(), reduction="none"
    )
    nats, count = summed(small, spans, {"none": none(D)}, 6)["none"]
    assert count == each.numel() == 714
    assert nats == pytest.approx(float(each.sum()), rel=1e-6)
    assert abs(float(each.bfloat16().sum()) - nats) > 1  # what is avoided


def test_each_sequence_has_its_own_sum_in_the_order_given(chat):
    spans, found = spans_of(chat, "text")[::-1] + spans_of(chat, "chat"), {}
    losses(chat, spans, {"none": none(D)}, Room(3), found.__setitem__)
    assert found["none"] == pytest.approx(
        [reference.loss(chat.model, one.tokens, one.start) for one in spans], rel=1e-5
    )


def test_each_intervention_is_handed_over_as_soon_as_it_is_finished(chat, monkeypatch):
    seen, batches = [], []
    forward = chat.model.forward
    monkeypatch.setattr(chat.model, "forward", lambda **inputs: batches.append(1) or forward(**inputs))
    losses(
        chat,
        spans_of(chat, "text"),
        dict.fromkeys("abc", none(D)),
        Room(2),
        lambda name, _: seen.append((name, len(batches))),
    )
    assert seen == [("a", 2), ("b", 3), ("c", 5)]
