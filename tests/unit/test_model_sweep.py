"""The sweep against the definitions in fp64, a prompt and a candidate at a time."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal.directions import random_directions, span_basis
from refusal.errors import UserError
from refusal.model import scores, sweep
from refusal.model.batching import Room
from refusal.model.scores import Epsilon
from refusal.model.specimens import FAMILIES
from refusal.model.sweep import Method

D = 32
TEMPLATE = [1, 30, 31, 32, 33]
"""Tokens that all prompts share at the start."""

HARMFUL = [TEMPLATE + rest for rest in ([60, 70, 80, 205, 6], [40, 6], [90, 91, 92, 93, 94, 95, 96, 97, 98, 205, 6])]
HARMLESS = [TEMPLATE + rest for rest in ([50, 51, 6], [77, 6], [60, 61, 62, 63, 64, 65, 66, 6])]
CANDIDATES = {f"{layer}": (4 * random_directions(1, D, layer)[0], layer) for layer in range(3)}
SCORES = {"bypass": (sweep.bypass, HARMFUL), "kl": (sweep.divergence, HARMLESS), "induce": (sweep.induce, HARMLESS)}


def swept(chat, score, batch_rows=16, candidates=CANDIDATES, memory=math.inf, **more):
    compute, prompts = SCORES[score]
    found = {}
    compute(
        chat, candidates, prompts, Room(batch_rows, memory), lambda name, value: found.update({name: value}), **more
    )
    return found


def naive(chat, score, direction, layer):
    """A candidate's score as the paper defines it."""
    model, tokens = chat.model, chat.refusal_tokens
    clean = [reference.last_logits(model, ids) for ids in HARMLESS]
    if score == "induce":
        with reference.added(model, direction, layer):
            return np.mean([reference.refusal_score(reference.last_logits(model, ids), tokens) for ids in HARMLESS])
    with reference.ablated(model, span_basis(direction[None])[0]):
        if score == "bypass":
            return np.mean([reference.refusal_score(reference.last_logits(model, ids), tokens) for ids in HARMFUL])
        after = [reference.last_logits(model, ids) for ids in HARMLESS]
        return np.mean([reference.kl(before, logits) for before, logits in zip(clean, after, strict=True)])


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_the_definition_of_each_candidate(family, score, chat_model):
    chat = chat_model(family)
    found = swept(chat, score)
    assert set(found) == set(CANDIDATES)
    for name, candidate in CANDIDATES.items():
        assert found[name] == pytest.approx(naive(chat, score, *candidate), abs=1e-4)
    assert len({round(value, 3) for value in found.values()}) == 3  # they differ at all


@settings(max_examples=12)
@given(st.sampled_from(list(SCORES)), st.integers(1, 20), st.permutations(list(CANDIDATES)), st.integers(1, 3))
def test_batch_size_order_and_company_change_nothing(chat, score, batch_rows, order, count):
    expected = swept(chat, score)
    found = swept(chat, score, batch_rows, {name: CANDIDATES[name] for name in order[:count]})
    assert found == pytest.approx({name: expected[name] for name in order[:count]}, abs=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_a_bound_of_memory_changes_nothing(chat, score):
    assert swept(chat, score, memory=1) == pytest.approx(swept(chat, score), abs=1e-5)


def test_given_those_taken_both_are_ablated(chat):
    taken = CANDIDATES["0"][0][None]
    found = swept(chat, "bypass", candidates={"1": CANDIDATES["1"]}, taken=taken)
    both = span_basis(np.stack([CANDIDATES["0"][0], CANDIDATES["1"][0]]))[0]
    with reference.ablated(chat.model, both):
        expected = [
            reference.refusal_score(reference.last_logits(chat.model, ids), chat.refusal_tokens) for ids in HARMFUL
        ]
    assert found == {"1": pytest.approx(np.mean(expected), abs=1e-4)}


@pytest.mark.parametrize("family", ["Llama", "Gemma2"])
def test_sequential_ablates_as_the_published_hooks_do(family, chat_model):
    """Of Gemma 2 that differs for one direction too: the hooks stand before the norms after attention and mlp."""
    chat, taken = chat_model(family), CANDIDATES["0"][0][None]
    method = Method("sequential", Epsilon(1e-8, 1e-6))
    for more, before in (({}, []), ({"taken": taken}, [taken[0]])):
        found = swept(chat, "bypass", method=method, **more)
        for name, (direction, _) in CANDIDATES.items():
            with reference.published_hooks(chat.model, [*before, direction]):
                logits = torch.stack([reference.last_logits(chat.model, ids) for ids in HARMFUL])
            p = logits.double().softmax(-1)[:, list(chat.refusal_tokens)].sum(-1)
            expected = float(((p + 1e-8).log() - (1 - p + 1e-8).log()).mean())
            assert found[name] == pytest.approx(expected, abs=1e-4)
    plain = swept(chat, "bypass", method=method)
    assert (plain == pytest.approx(swept(chat, "bypass"), abs=1e-4)) == (family == "Llama")


@pytest.mark.parametrize("score", SCORES)
def test_an_epsilon_is_used_in_every_score(chat, score):
    found, exact = swept(chat, score, method=Method(epsilon=Epsilon(0.1, 0.1))), swept(chat, score)
    assert all(abs(found[name] - exact[name]) > 1e-3 for name in exact)


def test_an_addition_runs_no_layer_below_its_own_twice(chat, monkeypatch):
    """The first pass runs all layers over the prompts; candidates of layer 2 run that one alone."""
    counts = [0, 0, 0]
    for number, layer in enumerate(chat.stream.layers):
        attention = layer.self_attn.forward

        def counted(*args, number=number, attention=attention, **kwargs):
            counts[number] += len(kwargs["hidden_states"])
            return attention(*args, **kwargs)

        monkeypatch.setattr(layer.self_attn, "forward", counted)
    late = {str(seed): (random_directions(1, D, seed)[0], 2) for seed in range(5)}
    swept(chat, "induce", candidates=late)
    once = 2 + len(HARMLESS)  # the shared tokens, by themselves and before the prompts, and the prompts
    assert counts[0] == counts[1] == once
    assert counts[2] == once + 5 + 5 * len(HARMLESS)


def test_out_of_memory_gives_the_same_scores_and_says_so(chat, monkeypatch, caplog):
    expected, forward = {score: swept(chat, score) for score in SCORES}, chat.model.forward

    def small(*args, **inputs):
        if inputs and len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError
        return forward(*args, **inputs)

    monkeypatch.setattr(chat.model, "forward", small)
    for score in SCORES:
        assert swept(chat, score) == pytest.approx(expected[score], abs=1e-5)
    assert "out of memory: batches of 2 rows from here on (run.batch_rows)" in caplog.messages


@pytest.mark.parametrize("score", SCORES)
def test_each_candidate_is_handed_over_as_soon_as_it_is_finished(chat, score, monkeypatch):
    monkeypatch.setattr(sweep, "_CHUNK", 1)
    monkeypatch.setattr(scores, "_CHUNK", 1)
    seen, batches = [], []
    forward = chat.model.forward
    monkeypatch.setattr(chat.model, "forward", lambda *a, **inputs: batches.append(1) or forward(*a, **inputs))
    compute, prompts = SCORES[score]
    compute(chat, CANDIDATES, prompts, Room(3), lambda name, _value: seen.append((name, len(batches))))
    assert [name for name, _ in seen] == list(CANDIDATES)
    steps = np.diff([count for _, count in seen])
    assert (steps > 0).all()


@pytest.mark.parametrize("score", SCORES)
def test_a_score_that_is_not_finite_is_an_error(chat, score, monkeypatch):
    forward = chat.model.forward

    def broken(*args, **inputs):
        out = forward(*args, **inputs)
        if inputs and len(inputs["input_ids"]) > 3:
            out.logits[-1] = math.nan
        return out

    monkeypatch.setattr(chat.model, "forward", broken)
    with pytest.raises(UserError, match="is nan: the model's logits overflow; use dtype float32 or bfloat16"):
        swept(chat, score, 9)
