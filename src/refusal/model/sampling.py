"""How the next token is chosen: the likeliest, or drawn with a seed of the row's own."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Sampling:
    """Draw from softmax(logits / temperature), cut to the likeliest tokens that hold `top_p` of it."""

    temperature: float
    top_p: float
    seed: int

    def draws(self, row: str, count: int) -> np.ndarray:
        """Uniform numbers [count] of a row, one a token: its own whatever shares the batch.

        row: what tells it apart, such as the content of prompt and basis.
        """
        digest = hashlib.sha256(f"{self.seed}\n{row}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest, "big")).random(count)


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """Greedy: [row, vocab] -> ids [row]; the lowest id of equals."""
    return logits.argmax(-1)


def drawn(logits: torch.Tensor, sampling: Sampling, uniform: torch.Tensor) -> torch.Tensor:
    """The token at which the cumulative probability passes a uniform number.

    Args: logits [row, vocab]; uniform [row] in [0, 1). Returns: ids [row].
    """
    probabilities, ids = (logits.float() / sampling.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= sampling.top_p, 0)
    cumulative = probabilities.cumsum(-1)
    place = torch.searchsorted(cumulative, uniform.to(cumulative)[:, None] * cumulative[:, -1:], right=True)
    # rounding may put the product at the total
    last = (probabilities > 0).sum(-1, keepdim=True) - 1
    return ids.gather(-1, place.minimum(last))[:, 0]
