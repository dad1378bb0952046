"""The model of memory against what passes really hold, and the bound that follows from it."""

from dataclasses import replace

import pytest
import torch
from conftest import build_tokenizer
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from refusal.model.batching import Room
from refusal.model.families import find_stream
from refusal.model.generation import complete
from refusal.model.interventions import none
from refusal.model.loading import ChatModel
from refusal.model.memory import footprint, free, room
from refusal.model.passes import forward
from refusal.model.specimens import FAMILIES, specimen


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_are_counted_to_the_byte(family, chat_model):
    chat, ids = chat_model(family), [[1, 40, 41, 42, 6]] * 3
    held = forward(chat, ids, [none(32)] * 3, use_cache=True).cache.nbytes
    assert held == footprint(chat).per_token * 5 * 3


def test_a_row_counts_what_it_holds(chat):
    needs = replace(footprint(chat), held=1)
    assert needs.decoded(5, 3).memory - needs.decoded(5, 2).memory == needs.per_token
    assert needs.row(5, logits=4).memory - needs.row(5).memory == 3 * needs.per_logits == 3 * 264 * (4 + 20)
    assert needs.row(5, residuals=3).memory - needs.row(5).memory == 3 * 5 * 32 * 4
    assert (needs.row(5).tokens, needs.row(5, shared=3).tokens, needs.decoded(5, 3).tokens) == (5, 2, 1)
    assert needs.row(6).memory > needs.row(5).memory
    assert footprint(chat).row(5).memory == 2 * needs.row(5).memory  # the processor's allocator


def test_half_the_precision_half_the_cache():
    full, half = (specimen("Llama", torch_dtype=dtype) for dtype in ("float32", "bfloat16"))
    chats = [
        ChatModel(model, build_tokenizer(), find_stream(model, [3, 4]), None, (6,), (10,), (2,))
        for model in (full, half)
    ]
    chats[1].model.to(torch.bfloat16)
    assert footprint(chats[0]).per_token == 2 * footprint(chats[1]).per_token


def test_room_is_the_bound_or_a_share_of_what_is_free(chat, caplog):
    caplog.set_level("INFO")
    bounded = room(chat, 7, 3)
    assert (bounded.rows, bounded.memory, bounded.tokens) == (7, 3 * 2**20, 1024)
    assert caplog.messages == ["batches: at most 7 rows within 0.0 GiB on cpu"]
    chosen = room(chat, 7)
    assert 0 < chosen.memory < free(torch.device("cpu"))


@pytest.mark.parametrize("new", [0, 8])
def test_the_estimate_is_on_the_safe_side_and_not_far_off(new):
    """Against all storages that are alive at once in a pass, and in the tokens after it."""
    model = specimen("Llama", hidden_size=256, intermediate_size=1024, vocab_size=2000, num_hidden_layers=4)
    chat = ChatModel(model, build_tokenizer(), find_stream(model, [3, 4]), None, (6,), (10,), (-1,))
    rows, tokens = 16, 40
    ids = [[1, *range(40 + row, 40 + row + tokens - 1)] for row in range(rows)]  # nothing shared
    alive = Alive({parameter.untyped_storage().data_ptr() for parameter in model.parameters()})
    with alive:
        if new:
            complete(chat, ids, {"none": none(256)}, new, Room(rows), lambda *_: None)
        else:
            forward(chat, ids, [none(256)] * rows, use_cache=True)
    needs = replace(footprint(chat), held=1)
    estimate = rows * (needs.decoded(tokens, new) if new else needs.row(tokens)).memory
    assert alive.peak < estimate < 4 * alive.peak


class Alive(TorchDispatchMode):
    """Bytes of the storages that operations made and something still refers to, and their peak."""

    def __init__(self, besides):
        super().__init__()
        self.storages, self.peak, self.besides = {}, 0, besides

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in self.besides:
                storage = one.untyped_storage()
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.storages = {key: held for key, held in self.storages.items() if not held[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.storages.values()))
        return out
