"""Mean residual stream at the end-of-instruction positions."""

from collections.abc import Sequence

import numpy as np

from refusal.cli import progress
from refusal.model.batching import Room, in_batches
from refusal.model.interventions import none
from refusal.model.loading import ChatModel
from refusal.model.memory import footprint
from refusal.model.passes import forward, shared_prefix
from refusal.model.residuals import recorded


def mean_activations(chat: ChatModel, rows: Sequence[list[int]], room: Room) -> np.ndarray:
    """Mean resid_pre over prompts, summed in fp64.

    Args:
        rows: token ids of each prompt, ending with the n end-of-instruction tokens.
    Returns: [position, layer, d] fp64, positions -n..-1.
    """
    n, layers, clean = len(chat.suffix), len(chat.stream.layers), none(chat.width)
    prefix, needs = shared_prefix(rows, own=n), footprint(chat)
    total: np.ndarray | float = 0.0

    def batch_sum(batch: Sequence[list[int]]) -> np.ndarray:
        with recorded(chat.stream, n) as residuals:
            forward(chat, batch, [clean] * len(batch), prefix)
        # the last ones: before them may stand those of the shared tokens
        return np.stack([residual.double().sum(0).cpu().numpy() for residual in residuals[-layers:]], axis=1)

    batches = in_batches(
        sorted(rows, key=len), room, lambda ids: needs.row(len(ids), len(prefix), residuals=1), batch_sum
    )
    for _, sum_ in progress(batches, "activations", unit="batches"):
        total = total + sum_
    return total / len(rows)
