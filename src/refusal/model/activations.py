"""Means and other sums of the residual stream at the end-of-instruction positions."""

from collections.abc import Sequence

import numpy as np
import torch

from refusal.cli import progress
from refusal.model.batching import Room, in_batches
from refusal.model.interventions import none
from refusal.model.loading import ChatModel
from refusal.model.memory import footprint
from refusal.model.passes import forward, shared_prefix
from refusal.model.residuals import recorded


def weighted_activations(chat: ChatModel, rows: Sequence[list[int]], weights: np.ndarray, room: Room) -> np.ndarray:
    """Sums of resid_pre over prompts, each times a weight, in fp64.

    Args:
        rows: token ids of each prompt, ending with the n end-of-instruction tokens.
        weights: [sum, row]; 1 / rows everywhere gives a mean.
    Returns: [sum, position, layer, d] fp64, positions -n..-1.
    """
    n, layers, clean = len(chat.suffix), len(chat.stream.layers), none(chat.width)
    prefix, needs = shared_prefix(rows, own=n), footprint(chat)
    total: np.ndarray | float = 0.0

    def batch_sum(numbers: Sequence[int]) -> np.ndarray:
        with recorded(chat.stream, n) as residuals:
            forward(chat, [rows[number] for number in numbers], [clean] * len(numbers), prefix)
        chosen = torch.from_numpy(weights[:, list(numbers)])
        # the last ones: before them may stand those of the shared tokens
        sums = [
            torch.einsum("sr,rpd->spd", chosen.to(residual.device), residual.double()).cpu().numpy()
            for residual in residuals[-layers:]
        ]
        return np.stack(sums, axis=2)

    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    batches = in_batches(order, room, lambda number: needs.row(len(rows[number]), len(prefix), residuals=1), batch_sum)
    for _, sums in progress(batches, "activations", unit="batches"):
        total = total + sums
    return total
