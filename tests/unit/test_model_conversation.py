"""Conversations: the study's own completions at the first turn, the template's rendering at later ones."""

import dataclasses
import math
from itertools import pairwise

import pytest
import reference
from conftest import describe
from templates import STYLES

from refusal.directions import random_directions, span_basis
from refusal.errors import UserError
from refusal.model import generation
from refusal.model.batching import OutOfMemoryError, Room
from refusal.model.chat import render, tokenize_chat
from refusal.model.conversation import Conversation, Version
from refusal.model.generation import complete
from refusal.model.interventions import ablation, none
from refusal.model.loading import load
from refusal.model.sampling import Sampling
from refusal.model.specimens import specimen

D, NEW = 32, 12
BASE = Version("none", none(D), "base")
PAIR = Version("0-1", ablation(span_basis(random_directions(2, D, 0))[0]), "pair")
STOPS = tuple(range(2, 264, 9))


def talking(chat, new=NEW, rows=2, **more):
    return Conversation(chat, Room(rows), new, **more)


def said(conversation, message, *versions, scored=False):
    """The turn when it has ended."""
    return list(conversation.ask(message, versions or (BASE,), scored))[-1]


@pytest.mark.parametrize("family", ["Llama", "Gemma3", "Qwen2Moe", "GPT2"])
def test_the_first_turn_is_the_study_s_completion(family, chat_model):
    chat = dataclasses.replace(chat_model(family), stop_tokens=STOPS)
    found = {}
    ids = chat.encode_for_responses([{"id": "a", "instruction": "Name a colour"}])
    both = {one.id: one.intervention for one in (BASE, PAIR)}
    complete(chat, ids, both, NEW, Room(2), lambda name, rows: found.update({name: rows[0]}))
    turn = said(talking(chat), "Name a colour", BASE, PAIR)
    for reply in turn.replies:
        expected = found[reply.combination]
        assert (list(reply.tokens), reply.stop_token) == (expected.tokens, expected.stop_token)
        assert (reply.reasoning, reply.response) == chat.split(expected.tokens)
        assert reply.ending == ("length" if expected.stop_token is None else "stop")
    alone = said(talking(chat), "Name a colour", PAIR)
    assert alone.kept == turn.kept


@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_later_turns_reply_to_all_that_was_kept(family, chat_model):
    chat, conversation = chat_model(family), talking(chat_model(family))
    first = said(conversation, "One", BASE, PAIR)
    second = said(conversation, "Two", PAIR)
    messages = [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": first.kept.response},
        {"role": "user", "content": "Two"},
    ]
    ids = tokenize_chat(chat.tokenizer, messages)
    with reference.ablated(chat.model, PAIR.intervention.read):
        assert list(second.kept.tokens) == reference.generate(chat.model, ids, chat.stop_tokens, NEW)[0]
    assert first.kept.combination == "0-1"
    assert conversation.turns == [first, second]
    del conversation.turns[:]
    assert said(conversation, "One", BASE, PAIR) == first


def test_a_system_prompt_stands_before_every_conversation(chat):
    prompted = dataclasses.replace(chat, system_prompt="Be brief.")
    ids = render(chat.tokenizer, "One", "Be brief.")
    expected = reference.generate(chat.model, ids, chat.stop_tokens, NEW)[0]
    assert list(said(talking(prompted), "One").kept.tokens) == expected


def test_growing_is_one_token_at_a_time_and_text_is_only_added_to(chat):
    chat = dataclasses.replace(chat, stop_tokens=())
    turns = list(talking(chat, new=40).ask("Zwölf Boxkämpfer", (BASE, PAIR)))
    for place in range(2):
        replies = [turn.replies[place] for turn in turns]
        assert [len(reply.tokens) for reply in replies] == list(range(1, 41))
        assert [reply.ending for reply in replies] == [None] * 39 + ["length"]
        for before, after in pairwise(replies):
            assert after.response.startswith(before.response)
    # random bytes: some begin a character that does not come
    assert "\ufffd" in turns[-1].replies[0].response + turns[-1].replies[1].response


def test_a_character_is_shown_when_all_its_bytes_are_there(chat, monkeypatch):
    euro = chat.tokenizer.encode("a€b", add_special_tokens=False)
    steps = [{"none": generation.Completion(euro[:n], None)} for n in range(1, 6)]
    monkeypatch.setattr("refusal.model.conversation.growing", lambda *_: iter(steps))
    conversation = talking(chat, new=5)
    assert [turn.kept.response for turn in conversation.ask("x", (BASE,))] == ["a", "a", "a", "a€", "a€b"]
    asked = conversation.ask("x", (BASE,))
    assert [next(asked).kept.response for _ in range(2)] == ["a", "a"]
    conversation.stop()
    assert [(turn.kept.response, turn.kept.ending) for turn in asked] == [("a", "stopped")]


def test_stopped_between_two_tokens(chat):
    conversation = talking(chat, new=40)
    asked = conversation.ask("One", (BASE, PAIR))
    for _ in range(3):
        next(asked)
    conversation.stop()
    (turn,) = asked
    assert [(len(reply.tokens), reply.ending) for reply in turn.replies] == [(4, "stopped")] * 2
    assert conversation.turns == [turn]
    assert said(conversation, "Two").kept.ending == "length"


def test_scores_are_read_where_the_answer_starts(chat):
    conversation = talking(chat)
    said(conversation, "One", PAIR)
    steps = list(conversation.ask("Two", (BASE, PAIR), scored=True))
    assert steps[0].replies == ()
    first = conversation.turns[0]
    messages = [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": first.kept.response},
        {"role": "user", "content": "Two"},
    ]
    ids = tokenize_chat(chat.tokenizer, messages)
    for one in (BASE, PAIR):
        with reference.ablated(chat.model, one.intervention.read):
            p = reference.last_logits(chat.model, ids).double().softmax(-1)[list(chat.refusal_tokens)].sum()
        assert steps[0].scores[one.id] == pytest.approx(math.log(p / (1 - p)), abs=1e-4)
    assert {id(turn.scores) for turn in steps} == {id(steps[0].scores)}


def test_no_room_in_the_context(chat):
    conversation = talking(chat, new=300)
    first = said(conversation, "One")
    assert (first.kept.ending, len(first.kept.tokens)) == ("context", 256 - len(render(chat.tokenizer, "One")))
    count = len(render(chat.tokenizer, "x" * 300))
    with pytest.raises(UserError) as caught:
        said(talking(chat), "x" * 300)
    assert str(caught.value) == (
        f"with this message the conversation has {count} tokens, and the model reads 256: say less, undo or reset"
    )
    with pytest.raises(UserError, match="and the model reads 256"):
        said(conversation, "Two")
    assert conversation.turns == [first]


def test_sampled_as_the_study_samples(chat):
    sampling, found = Sampling(1.5, 0.95, 3), {}
    chat = dataclasses.replace(chat, system_prompt="Be brief.")
    ids = chat.encode_for_responses([{"id": "a", "instruction": "One"}])
    complete(
        chat, ids, {"0-1": PAIR.intervention}, NEW, Room(1), lambda _, rows: found.update(one=rows[0]), sampling,
        {"0-1": ["pair\nOne"]},
    )  # fmt: skip
    # the longest reply decides no draw
    turn = said(talking(chat, new=2 * NEW, sampling=sampling), "One", BASE, PAIR)
    assert list(turn.kept.tokens)[:NEW] == found["one"].tokens
    assert turn.replies[0].tokens != turn.kept.tokens


def test_out_of_memory_starts_over_and_says_the_same(chat, monkeypatch):
    expected = said(talking(chat), "One", BASE, PAIR)
    step, calls = generation._step, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise OutOfMemoryError
        return step(*arguments)

    monkeypatch.setattr(generation, "_step", failing)
    assert said(talking(chat), "One", BASE, PAIR) == expected


@pytest.fixture(scope="module")
def reasoning(tmp_path_factory):
    """A random model that is asked as Qwen 3 is."""
    folder = tmp_path_factory.mktemp("reasoning")
    tokenizer = STYLES["qwen-3"].tokenizer()
    specimen("Llama", vocab_size=len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return load(describe(folder / "model", folder / "model.json"))


def test_reasoning_is_shown_and_the_answer_alone_is_kept(reasoning, monkeypatch):
    ids = reasoning.tokenizer.encode("<think>\nHm.\n</think>\n\nYes", add_special_tokens=False)
    prompts = []

    def growing(_chat, prompt, *_):
        prompts.append(reasoning.tokenizer.decode(prompt))
        return iter([{"none": generation.Completion(ids[:n], None)} for n in range(1, len(ids) + 1)])

    monkeypatch.setattr("refusal.model.conversation.growing", growing)
    conversation = talking(reasoning, new=len(ids))
    turns = list(conversation.ask("One", (BASE,), scored=True))
    assert (turns[-1].kept.reasoning, turns[-1].kept.response) == ("<think>\nHm.\n</think>\n\n", "Yes")
    texts = [(turn.kept.reasoning or "") + turn.kept.response for turn in turns[1:]]
    assert all(after.startswith(before) for before, after in pairwise(texts))
    said(conversation, "Two")
    assert prompts[1].count("Yes") == 1
    assert "Hm." not in prompts[1]
    # cut within its reasoning, it has answered nothing
    del conversation.turns[:], ids[5:]
    cut = list(talking(reasoning, new=5).ask("One", (BASE,)))[-1]
    assert (cut.kept.response, cut.kept.ending) == ("", "length")
    assert conversation.turns == []
