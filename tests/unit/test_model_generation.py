"""Greedy decoding: the same tokens as transformers' own, whatever shares the batch.

All in fp32, where two logits closer than 1e-5 may change places; the seeded models have no such tie here.
"""

import dataclasses

import pytest
import reference
import torch
from conftest import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal.directions import random_directions, span_basis
from refusal.model import generation
from refusal.model.generation import complete, greedy
from refusal.model.interventions import ablation, addition, none

D, NEW = 32, 12
PROMPTS = [
    [3, 60, 70, 80, 205, 6],
    [40, 6],
    [90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 205, 6],
    [50, 51, 6],
    [77, 6],
]
INTERVENTIONS = {
    "none": none(D),
    "0": ablation(span_basis(random_directions(1, D, 0))[0]),
    "0-1": ablation(span_basis(random_directions(2, D, 0))[0]),
    "add-0": addition(3 * random_directions(1, D, 0)[0], 1),
}
# Many, so that rows of random models end at different steps and leave the batch.
STOPS = tuple(range(2, 264, 9))


@pytest.fixture(scope="module")
def stopping(chat):
    return dataclasses.replace(chat, stop_tokens=STOPS)


def completed(chat, prompts, interventions, batch_rows, new=NEW):
    found = {}
    complete(chat, prompts, interventions, new, batch_rows, lambda name, rows: found.update({name: rows}))
    return found


@pytest.fixture(scope="module")
def alone(stopping):
    """Every row decoded in a batch of its own."""
    return {name: [greedy(stopping, [ids], [one], NEW)[0] for ids in PROMPTS] for name, one in INTERVENTIONS.items()}


def under(model, name):
    """The naive oracle's context for an intervention of this module."""
    one = INTERVENTIONS[name]
    return reference.added(model, one.vector, 1) if name == "add-0" else reference.ablated(model, one.read)


@pytest.mark.parametrize("name", INTERVENTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_transformers_greedy_a_row_at_a_time(family, name, chat_model):
    chat = dataclasses.replace(chat_model(family), stop_tokens=STOPS)
    prompts = PROMPTS[:3]
    found = completed(chat, prompts, {"none": none(D), name: INTERVENTIONS[name]}, 16)[name]
    for ids, completion in zip(prompts, found, strict=True):
        with under(chat.model, name):
            expected = reference.generate(chat.model, ids, STOPS, NEW)
        assert (completion.tokens, completion.stop_token) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_agrees_with_full_forward_passes(family, chat_model):
    chat = dataclasses.replace(chat_model(family), stop_tokens=(2,))
    (found,) = greedy(chat, PROMPTS[:1], [INTERVENTIONS["0-1"]], NEW)
    ids = list(PROMPTS[0])
    with reference.ablated(chat.model, INTERVENTIONS["0-1"].read):
        for token in found.tokens:
            assert int(reference.last_logits(chat.model, ids).argmax()) == token
            ids.append(token)


def test_the_examples_are_not_trivial(alone):
    """The laws below say something: rows end early and late, and interventions change tokens."""
    rows = [one for found in alone.values() for one in found]
    lengths = {len(one.tokens) for one in rows}
    assert len(lengths) > 3
    assert {one.stop_token is None for one in rows} == {True, False}
    assert all(alone[name] != alone["none"] for name in INTERVENTIONS if name != "none")


@settings(max_examples=15)
@given(
    st.permutations(range(len(PROMPTS))),
    st.permutations(list(INTERVENTIONS)),
    st.integers(1, 20),
    st.integers(1, len(PROMPTS)),
)
def test_batch_size_order_and_mix_change_no_token(stopping, alone, order, names, batch_rows, count):
    order = order[:count]
    prompts = [PROMPTS[number] for number in order]
    found = completed(stopping, prompts, {name: INTERVENTIONS[name] for name in names}, batch_rows)
    assert found == {name: [alone[name][number] for number in order] for name in names}


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Gemma3Text"])
def test_left_padding_changes_no_token(family, chat_model):
    """A short prompt beside a long one; Mistral and Gemma 3 also look back over a window shorter than the padding."""
    chat = dataclasses.replace(chat_model(family), stop_tokens=STOPS)
    long = [*range(30, 70), 6]
    pair = greedy(chat, [PROMPTS[1], long], [none(D)] * 2, NEW)
    assert pair == [greedy(chat, [ids], [none(D)], NEW)[0] for ids in (PROMPTS[1], long)]


@pytest.mark.parametrize("share", [1e-9, 0.5, 2.0])
def test_compaction_changes_nothing(stopping, alone, share, monkeypatch):
    """At once, at half, and never."""
    monkeypatch.setattr(generation, "_COMPACT", share)
    sizes = []
    forward = stopping.model.forward
    monkeypatch.setattr(
        stopping.model, "forward", lambda **inputs: sizes.append(len(inputs["input_ids"])) or forward(**inputs)
    )
    assert completed(stopping, PROMPTS, INTERVENTIONS, 32) == alone
    assert (sizes[-1] < sizes[0]) == (share <= 1)
    assert sizes == sorted(sizes, reverse=True)


def test_the_batch_is_over_when_all_rows_are(stopping, monkeypatch):
    steps = []
    forward = stopping.model.forward
    monkeypatch.setattr(stopping.model, "forward", lambda **inputs: steps.append(1) or forward(**inputs))
    everything = dataclasses.replace(stopping, stop_tokens=tuple(range(264)))
    found = greedy(everything, PROMPTS, [none(D)] * len(PROMPTS), NEW)
    assert len(steps) == 1
    assert all(one.tokens == [] and one.stop_token is not None for one in found)


def test_the_length_ends_a_row(chat):
    never = dataclasses.replace(chat, stop_tokens=(-1,))
    assert [len(one.tokens) for one in greedy(never, PROMPTS, [none(D)] * len(PROMPTS), 5)] == [5] * len(PROMPTS)
    assert greedy(never, PROMPTS[:1], [none(D)], 1)[0].stop_token is None


def test_the_models_own_sampling_and_penalties_are_ignored(stopping, alone, monkeypatch):
    for key, value in {"do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0}.items():
        monkeypatch.setattr(stopping.model.generation_config, key, value)
    assert completed(stopping, PROMPTS, {"none": none(D)}, 32)["none"] == alone["none"]


def test_each_intervention_is_handed_over_as_soon_as_it_is_finished(stopping):
    """So that a killed stage keeps what it had: after 5 rows of 2 a batch, the first is done before batch 4 starts."""
    seen = []
    batches = []
    real = generation.greedy

    def counted(chat, prompts, interventions, new):
        batches.append(len(prompts))
        return real(chat, prompts, interventions, new)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "greedy", counted)
        complete(
            stopping, PROMPTS, INTERVENTIONS, 2, 2, lambda name, rows: seen.append((name, len(batches), len(rows)))
        )
    assert seen == [("none", 3, 5), ("0", 5, 5), ("0-1", 8, 5), ("add-0", 10, 5)]


def test_out_of_memory_gives_the_same_tokens_and_says_so(stopping, alone, monkeypatch, caplog):
    forward = stopping.model.forward

    def small(**inputs):
        if len(inputs["input_ids"]) > 3:
            raise torch.OutOfMemoryError
        return forward(**inputs)

    monkeypatch.setattr(stopping.model, "forward", small)
    assert completed(stopping, PROMPTS, INTERVENTIONS, 16) == alone
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        "out of memory: batches of 8 rows from here on (run.batch_rows)",
        "out of memory: batches of 4 rows from here on (run.batch_rows)",
        "out of memory: batches of 2 rows from here on (run.batch_rows)",
    ]


def test_a_completion_leaves_the_stop_token_out(stopping, alone):
    for completion in alone["none"]:
        assert not set(completion.tokens) & set(STOPS)
        assert completion.stop_token is None or completion.stop_token in STOPS
