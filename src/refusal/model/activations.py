"""Mean residual stream at the end-of-instruction positions."""

from collections.abc import Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from refusal.cli import progress
from refusal.model.batching import in_batches, left_pad
from refusal.model.loading import ChatModel


@torch.no_grad()
def mean_activations(chat: ChatModel, rows: Sequence[list[int]], batch_rows: int) -> np.ndarray:
    """Mean resid_pre over prompts, summed in fp64.

    Args:
        rows: token ids of each prompt, ending with the n end-of-instruction tokens.
    Returns: [position, layer, d] fp64, positions -n..-1.
    """
    n = len(chat.suffix)
    total: np.ndarray | float = 0.0

    def batch_sum(batch: Sequence[list[int]]) -> np.ndarray:
        with recorded(chat, n) as residuals:
            chat.model(**left_pad(batch, chat.pad, chat.device), logits_to_keep=1, use_cache=False)
        return np.stack([residual.double().sum(0).cpu().numpy() for residual in residuals], axis=1)

    batches = in_batches(sorted(rows, key=len), batch_rows, batch_sum)
    for _, sum_ in progress(batches, "activations", unit="batches"):
        total = total + sum_
    return total / len(rows)


@contextmanager
def recorded(chat: ChatModel, n: int):
    """Yield a list that a forward pass fills: per layer, resid_pre [row, n, d] of the last n tokens."""
    kept: list[torch.Tensor] = []

    def keep(_module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        kept.append(hidden[:, -n:].detach())

    with ExitStack() as hooks:
        for layer in chat.stream.layers:
            hooks.callback(layer.register_forward_pre_hook(keep, with_kwargs=True).remove)
        yield kept
