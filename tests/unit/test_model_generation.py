"""Greedy decoding: the same tokens as transformers' own, whatever shares the batch.

All in fp32, where two logits closer than 1e-5 may change places; the seeded models have no such tie here.
"""

import dataclasses
import math
from typing import ClassVar

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal.directions import random_directions, span_basis
from refusal.model import generation
from refusal.model.batching import Room
from refusal.model.generation import complete
from refusal.model.interventions import ablation, addition, none
from refusal.model.memory import footprint
from refusal.model.sampling import Sampling
from refusal.model.specimens import FAMILIES

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


def completed(chat, prompts, interventions, batch_rows, new=NEW, memory=math.inf, **more):
    found = {}
    room = Room(batch_rows, memory)
    complete(chat, prompts, interventions, new, room, lambda name, rows: found.update({name: rows}), **more)
    return found


def greedy(chat, ids, intervention, new=NEW):
    """One row in a batch of its own."""
    return completed(chat, [ids], {"": intervention}, 1, new)[""][0]


def sizes_of(chat, monkeypatch):
    """A list that each forward pass with a cache appends its rows to."""
    sizes, forward = [], chat.model.forward

    def counted(*args, **inputs):
        if inputs["input_ids"].shape[1] == 1 and inputs["past_key_values"].get_seq_length():
            sizes.append(len(inputs["input_ids"]))
        return forward(*args, **inputs)

    monkeypatch.setattr(chat.model, "forward", counted)
    return sizes


@pytest.fixture(scope="module")
def alone(stopping):
    """Every row decoded in a batch of its own."""
    return {name: [greedy(stopping, ids, one) for ids in PROMPTS] for name, one in INTERVENTIONS.items()}


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
    found = greedy(chat, PROMPTS[0], INTERVENTIONS["0-1"])
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


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Gemma3"])
def test_left_padding_changes_no_token(family, chat_model):
    """A short prompt beside a long one; Mistral and Gemma 3 also look back over a window shorter than the padding."""
    chat = dataclasses.replace(chat_model(family), stop_tokens=STOPS)
    long = [*range(30, 70), 6]
    pair = completed(chat, [PROMPTS[1], long], {"none": none(D)}, 2)["none"]
    assert pair == [greedy(chat, ids, none(D)) for ids in (PROMPTS[1], long)]


@pytest.mark.parametrize("share", [1e-9, 0.5, 2.0])
def test_when_rows_leave_and_enter_changes_nothing(stopping, alone, share, monkeypatch):
    """At once, at half, and only when all have ended."""
    monkeypatch.setattr(generation, "_COMPACT", share)
    sizes = sizes_of(stopping, monkeypatch)
    assert completed(stopping, PROMPTS, INTERVENTIONS, 6) == alone
    assert max(sizes) <= 6
    assert (len(set(sizes)) > 1) == (share <= 1 or len(sizes) > 6)


def test_waiting_rows_take_the_places_of_those_that_finish(stopping, monkeypatch):
    """With a place for each that ends, the batch stays full: fewer steps than batch after batch."""
    sizes = sizes_of(stopping, monkeypatch)
    completed(stopping, PROMPTS, INTERVENTIONS, 6)
    flowing = list(sizes)
    sizes.clear()
    monkeypatch.setattr(generation, "_COMPACT", 2.0)
    completed(stopping, PROMPTS, INTERVENTIONS, 6)
    assert len(flowing) < len(sizes)
    full = flowing[: -NEW - 1]  # at the end nobody waits
    assert full
    assert min(full) >= 5


@settings(max_examples=10)
@given(st.integers(1, 12), st.sampled_from(["Llama", "Mistral", "Gemma3"]))
def test_tokens_that_all_prompts_share_change_no_token(chat_model, batch_rows, family):
    """They are computed once per combination, and moved to where each row has them; Mistral's window ends in them."""
    chat = dataclasses.replace(chat_model(family), stop_tokens=STOPS)
    prompts = [[1, 30, 31, 32, 33, 34, *ids] for ids in PROMPTS]
    found = completed(chat, prompts, INTERVENTIONS, batch_rows)
    for name in INTERVENTIONS:
        for ids, completion in zip(prompts, found[name], strict=True):
            with under(chat.model, name):
                assert (completion.tokens, completion.stop_token) == reference.generate(chat.model, ids, STOPS, NEW)


def test_shared_tokens_are_computed_once_per_combination(chat, monkeypatch):
    prompts, counted = [[1, 30, 31, 32, 33, 34, *ids] for ids in PROMPTS], []
    forward = chat.model.forward

    def counting(*args, **inputs):
        if inputs:
            counted.append(inputs["input_ids"].numel())
        return forward(*args, **inputs)

    monkeypatch.setattr(chat.model, "forward", counting)
    completed(chat, prompts, INTERVENTIONS, 64, new=1)
    longest = max(map(len, PROMPTS))
    assert counted == [6 * len(INTERVENTIONS), longest * len(PROMPTS) * len(INTERVENTIONS)]


@pytest.mark.parametrize("memory", [1, 200_000, 600_000])
def test_a_bound_of_memory_changes_no_token(stopping, alone, memory, monkeypatch):
    sizes = sizes_of(stopping, monkeypatch)
    assert completed(stopping, PROMPTS, INTERVENTIONS, 32, memory=memory) == alone
    needs = footprint(stopping)
    cheapest = min(needs.decoded(len(ids), NEW).memory for ids in PROMPTS)
    assert max(sizes) <= max(1, memory // cheapest)
    assert (max(sizes) > 1) == (memory > 2 * cheapest)


def test_the_batch_is_over_when_all_rows_are(stopping, monkeypatch):
    sizes = sizes_of(stopping, monkeypatch)
    everything = dataclasses.replace(stopping, stop_tokens=tuple(range(264)))
    found = completed(everything, PROMPTS, {"none": none(D)}, 32)["none"]
    assert sizes == []  # the first token comes from the pass over the prompts
    assert all(one.tokens == [] and one.stop_token is not None for one in found)


def test_the_length_ends_a_row(chat):
    never = dataclasses.replace(chat, stop_tokens=(-1,))
    assert [len(one.tokens) for one in completed(never, PROMPTS, {"": none(D)}, 4, 5)[""]] == [5] * len(PROMPTS)
    assert greedy(never, PROMPTS[0], none(D), 1).stop_token is None


def test_the_models_own_sampling_and_penalties_are_ignored(stopping, alone, monkeypatch):
    for key, value in {"do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0}.items():
        monkeypatch.setattr(stopping.model.generation_config, key, value)
    assert completed(stopping, PROMPTS, {"none": none(D)}, 32)["none"] == alone["none"]


def test_each_intervention_is_handed_over_as_soon_as_it_is_finished(chat, monkeypatch):
    """So that a killed stage keeps what it had: with two places and no early end, after the last of its 5 rows."""
    never, seen, steps = dataclasses.replace(chat, stop_tokens=(-1,)), [], sizes_of(chat, monkeypatch)
    complete(never, PROMPTS, INTERVENTIONS, 3, Room(2), lambda name, rows: seen.append((name, len(steps), len(rows))))
    assert seen == [("none", 6, 5), ("0", 10, 5), ("0-1", 16, 5), ("add-0", 20, 5)]


@pytest.mark.parametrize("after", [0, 3])
def test_out_of_memory_gives_the_same_tokens_and_says_so(stopping, alone, monkeypatch, caplog, after):
    """Also in the middle of a batch, whose unfinished rows start over."""
    forward, calls = stopping.model.forward, []

    def small(*args, **inputs):
        calls.append(1)
        if inputs and len(inputs["input_ids"]) > 3 and len(calls) > after:
            raise torch.OutOfMemoryError
        return forward(*args, **inputs)

    monkeypatch.setattr(stopping.model, "forward", small)
    assert completed(stopping, PROMPTS, INTERVENTIONS, 16) == alone
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said[-1] in [f"out of memory: batches of {rows} rows from here on (run.batch_rows)" for rows in (1, 2, 3)]


class TestSampling:
    SAMPLING = Sampling(temperature=1.5, top_p=0.9, seed=7)
    SEEDS: ClassVar = {name: [f"{name} {ids}" for ids in PROMPTS] for name in INTERVENTIONS}

    def sampled(self, chat, batch_rows, order=(0, 1, 2, 3, 4), names=tuple(INTERVENTIONS), sampling=SAMPLING):
        found = completed(
            chat,
            [PROMPTS[number] for number in order],
            {name: INTERVENTIONS[name] for name in names},
            batch_rows,
            sampling=sampling,
            seeds={name: [self.SEEDS[name][number] for number in order] for name in names},
        )
        return {(name, number): one for name, rows in found.items() for number, one in zip(order, rows, strict=True)}

    @settings(max_examples=10)
    @given(st.permutations(range(len(PROMPTS))), st.permutations(list(INTERVENTIONS)), st.integers(1, 20))
    def test_batch_size_order_and_mix_change_no_token(self, stopping, order, names, batch_rows):
        assert self.sampled(stopping, batch_rows, order, names) == self.sampled(stopping, 1)

    def test_another_seed_other_tokens(self, stopping, alone):
        first = self.sampled(stopping, 16)
        other = self.sampled(stopping, 16, sampling=dataclasses.replace(self.SAMPLING, seed=8))
        assert first != other
        assert any(one != alone[name][number] for (name, number), one in first.items())

    def test_cold_is_greedy(self, stopping, alone):
        found = self.sampled(stopping, 16, sampling=Sampling(1e-4, 1.0, 7))
        assert found == {(name, number): one for name, rows in alone.items() for number, one in enumerate(rows)}


def test_a_completion_leaves_the_stop_token_out(stopping, alone):
    for completion in alone["none"]:
        assert not set(completion.tokens) & set(STOPS)
        assert completion.stop_token is None or completion.stop_token in STOPS
