"""What a batch needs beside the weights: keys and values, logits, activations; and what the device has left for it."""

import logging
import math
from argparse import Namespace
from dataclasses import dataclass

import psutil
import torch

from refusal import gpus
from refusal.model.batching import Room, Size
from refusal.model.keyvalues import ROOM
from refusal.model.loading import ChatModel, load

log = logging.getLogger("refusal")

_SHARE = {"cuda": 0.9, "cpu": 0.5}
"""Share of the free memory that batches may use where no bound is set; a processor's is others' too."""

_HELD = {"cuda": 1, "cpu": 2}
"""Bytes that the allocator holds for one that is used: the processor's keeps what is freed (benchmarks/sweep.py)."""

_PASS_TOKENS = {"cuda": math.inf, "cpu": 1024}
"""Tokens of a pass beyond which it gets slower: on a processor, what layers hand on no longer fits its caches."""

_MIB = 2**20


@dataclass(frozen=True)
class Footprint:
    """Bytes per row of a batch.

    per_token: keys and values of a token, all layers; per_pass: activations of a token in one layer, of which one layer
    at a time is alive; per_residual: the stream at one layer's input; per_logits: logits of a token, with the fp32
    copies that scores and losses are computed on; held: bytes that the allocator holds for each of these.
    """

    per_token: int
    per_pass: int
    per_residual: int
    per_logits: int
    held: int = 1

    def row(self, tokens: int, shared: int = 0, logits: int = 1, residuals: int = 0) -> Size:
        """A row of `tokens` in one pass, the first `shared` of them computed once for all.

        residuals: layers whose inputs are kept. The attention mask has a byte for each pair of tokens.
        """
        own = tokens - shared
        cached = self.per_token * tokens if shared else 0
        memory = cached + (self.per_pass + tokens + residuals * self.per_residual) * own + self.per_logits * logits
        return Size(memory * self.held, own)

    def decoded(self, tokens: int, new: int) -> Size:
        """A row of `tokens` and up to `new` after them, one by one, with keys and values in buffers that have room."""
        memory = self.per_token * (tokens + new + ROOM) + (self.per_pass + tokens) * tokens + self.per_logits
        return Size(memory * self.held, 1)


def footprint(chat: ChatModel) -> Footprint:
    """The figures of a model, by its config and one token's pass: an estimate, on the safe side."""
    config, size = chat.model.config.get_text_config(), chat.model.dtype.itemsize
    # of a mixture, as many experts as a token goes to; of whichever width its experts have, the larger one counts
    experts = getattr(config, "num_experts_per_tok", None) or 1
    inner = max(experts * (getattr(config, "intermediate_size", None) or 4 * chat.width), chat.width)
    # the stream and its norm, queries, keys, values and their sum; gate, up, their product; what ablation widens
    activations = (6 * chat.width + 3 * inner) * size + 2 * chat.width * 4
    # as they come, and what KL needs in fp32: both distributions, their divergence, and a copy of each
    logits = config.vocab_size * (size + 5 * 4)
    held = _HELD.get(chat.device.type, 1)
    return Footprint(chat.key_value_bytes, activations, chat.width * size, logits, held)


def free(device: torch.device) -> int:
    """Bytes that are free on a device now, counting what torch holds and does not use."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available


def opened(args: Namespace) -> tuple[ChatModel, Room]:
    """A stage's model, and the room for its batches, as its flags say (`refusal.cli.stage_parser`)."""
    gpus.claim(args.gpus)
    chat = load(args.model, args.device_map)
    return chat, room(chat, args.batch_rows, args.memory_mib)


def room(chat: ChatModel, rows: int, mib: int = 0) -> Room:
    """Room for batches: at most `rows`, within `mib` of memory, or (0) a share of what is free.

    Says what was chosen.
    """
    bound = mib * _MIB if mib else free(chat.device) * _SHARE.get(chat.device.type, 0.5)
    log.info("batches: at most %d rows within %.1f GiB on %s", rows, bound / 2**30, chat.device)
    return Room(rows, bound, _PASS_TOKENS.get(chat.device.type, math.inf))
