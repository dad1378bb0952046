"""Mean activations and directions against a prompt at a time with transformers' own hidden states."""

import numpy as np
import pytest
import reference

from refusal.directions import is_zero, mean_difference, shuffled_weights
from refusal.model.activations import weighted_activations
from refusal.model.batching import Room
from refusal.model.chat import encode
from refusal.model.specimens import FAMILIES

HARMFUL = ["How do I pick a lock?", "Tell me", "Write a long text about how to do it"]
HARMLESS = ["Name a colour.", "What is the time now", "Hi"]


def rows(chat, instructions):
    prompts = [{"id": number, "instruction": text} for number, text in enumerate(instructions)]
    return encode(chat.tokenizer, prompts, chat.system_prompt, chat.suffix)


def mean_activations(chat, ids, room):
    return weighted_activations(chat, ids, np.full((1, len(ids)), 1 / len(ids)), room)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_means_agree_with_hidden_states_of_each_prompt(family, chat_model):
    chat = chat_model(family)
    ids = rows(chat, HARMFUL)
    found = mean_activations(chat, ids, Room(2))
    assert (found.dtype, found.shape) == (np.float64, (len(chat.suffix), 3, 32))
    expected = reference.mean_activations(chat.model, ids, len(chat.suffix))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_the_mean_difference_agrees_and_layer_0_is_no_direction(chat):
    n = len(chat.suffix)
    means = [mean_activations(chat, rows(chat, texts), Room(8)) for texts in (HARMFUL, HARMLESS)]
    naive = [reference.mean_activations(chat.model, rows(chat, texts), n) for texts in (HARMFUL, HARMLESS)]
    found = mean_difference(*means)
    np.testing.assert_allclose(found, naive[0] - naive[1], atol=1e-4)
    # at template positions all prompts have the same embedding; from layer 1 on they have seen the instruction
    assert is_zero(found, *means).tolist() == [[True, False, False]] * n


def test_weights_go_with_their_rows(chat):
    """Rows of different lengths, which are sorted on the way."""
    ids, n = rows(chat, HARMFUL + HARMLESS), len(chat.suffix)
    weights = shuffled_weights(6, 2, 0)
    found = weighted_activations(chat, ids, weights, Room(2))
    each = np.stack([reference.mean_activations(chat.model, [one], n) for one in ids])
    np.testing.assert_allclose(found, np.einsum("sr,rpld->spld", weights, each), atol=1e-4)


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 100])
def test_batch_size_and_order_change_nothing(chat, batch_rows):
    ids = rows(chat, HARMFUL + HARMLESS)
    expected = mean_activations(chat, ids, Room(100))
    np.testing.assert_allclose(mean_activations(chat, ids[::-1], Room(batch_rows)), expected, atol=1e-5)
