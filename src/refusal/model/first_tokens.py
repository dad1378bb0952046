"""With which token a model's replies start, on average over prompts."""

from collections.abc import Sequence

import numpy as np

from refusal.model.batching import Room
from refusal.model.loading import ChatModel
from refusal.model.scores import baseline_logits, check_finite


def first_token_probabilities(chat: ChatModel, prompts: Sequence[list[int]], room: Room) -> np.ndarray:
    """Mean probability of each token as the first of a reply: [vocab] fp64, unablated.

    prompts: token ids, up to where the answer starts.
    Raises: UserError, logits that overflow.
    """
    found = baseline_logits(chat, prompts, room).softmax(-1).double()
    check_finite("", {"the probability of a first token": found.sum(-1).cpu().numpy()})
    return found.mean(0).cpu().numpy()
