"""The plain reference: how published scripts work.

One combination or candidate at a time, batches of 8, a forward hook that takes out one direction after another,
`model.generate`, logits of whole sequences, scores from fp64 softmax copies, and three full passes for every candidate.
It is given what makes it faster at no effort: directions are on the device before it starts, and only the last token's
logits are copied to fp64.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from workload import REFUSAL, Work

from refusal.model.loading import ChatModel

BATCH = 8
"""Rows of a batch."""


@contextmanager
def hooked(chat: ChatModel, directions: np.ndarray) -> Iterator[None]:
    """Within the block, the outputs of embedding, attentions and mlps lose one direction after another."""
    units = torch.from_numpy(directions).to(chat.device, chat.model.dtype)

    def hook(_module, _args, output):
        x = output[0] if isinstance(output, tuple) else output
        for unit in units:
            x = x - (x @ unit)[..., None] * unit
        return (x, *output[1:]) if isinstance(output, tuple) else x

    inner = chat.model.model
    with ExitStack() as hooks:
        for module in (inner.embed_tokens, *(part for layer in inner.layers for part in (layer.self_attn, layer.mlp))):
            hooks.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def steered(chat: ChatModel, vector: np.ndarray, layer: int) -> Iterator[None]:
    """Within the block, a vector is added to what enters a layer."""
    added = torch.from_numpy(vector).to(chat.device, chat.model.dtype)

    def hook(_module, args, kwargs):
        if args:
            return (args[0] + added, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] + added}

    handle = chat.model.model.layers[layer].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def batches(chat: ChatModel, rows: Sequence[list[int]]) -> Iterator[dict[str, torch.Tensor]]:
    """Eight rows at a time, padded at the left."""
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        width = max(map(len, part))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in part])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in part])
        yield {"input_ids": ids.to(chat.device), "attention_mask": mask.to(chat.device)}


@torch.no_grad()
def logits(chat: ChatModel, prompts: Sequence[list[int]]) -> torch.Tensor:
    """[prompt, vocab] fp64, after each prompt."""
    return torch.cat([chat.model(**part).logits[:, -1].double() for part in batches(chat, prompts)])


def score(logits: torch.Tensor) -> float:
    p = logits.softmax(-1)[:, list(REFUSAL)].sum(-1)
    return float((p.log() - (1 - p).log()).mean())


def kl(baseline: torch.Tensor, logits: torch.Tensor) -> float:
    p, q = baseline.softmax(-1), logits.softmax(-1)
    return float((p * (p.log() - q.log())).sum(-1).mean())


def sweep(chat: ChatModel, work: Work, names: Sequence, baseline: torch.Tensor) -> dict[Any, dict[str, float]]:
    """Candidate -> its scores; three full passes each."""
    found = {}
    for name in names:
        direction, layer = work.candidates[name]
        unit = (direction / np.linalg.norm(direction))[None]
        with hooked(chat, unit):
            bypass = score(logits(chat, work.harmful))
        with hooked(chat, unit):
            gap = kl(baseline, logits(chat, work.harmless))
        with steered(chat, direction, layer):
            added = score(logits(chat, work.harmless))
        found[name] = {"bypass": bypass, "kl": gap, "induce": added}
    return found


@torch.no_grad()
def completions(chat: ChatModel, work: Work) -> dict[str, list[list[int]]]:
    found = {}
    for name, one in work.interventions.items():
        with hooked(chat, one.read):
            found[name] = [
                row
                for part in batches(chat, work.prompts)
                for row in chat.model.generate(**part, do_sample=False, max_new_tokens=work.new_tokens, pad_token_id=0)[
                    :, part["input_ids"].shape[1] :
                ].tolist()
            ]
    return found


@torch.no_grad()
def losses(chat: ChatModel, work: Work) -> dict[str, float]:
    """Nats per token; all sequences have one length and are predicted from their second token on."""
    found = {}
    for name, one in work.interventions.items():
        with hooked(chat, one.read):
            nats = 0.0
            for part in batches(chat, [sequence.tokens for sequence in work.sequences]):
                predicted = chat.model(**part).logits[:, :-1].float().log_softmax(-1)
                nats -= float(predicted.gather(-1, part["input_ids"][:, 1:, None]).double().sum())
        found[name] = nats / sum(len(sequence.tokens) - 1 for sequence in work.sequences)
    return found
