"""With which token a model's replies start, on average over prompts."""

from collections.abc import Sequence

import numpy as np

from refusal.model.batching import Room
from refusal.model.loading import ChatModel
from refusal.model.scores import baseline_logits


def first_token_probabilities(chat: ChatModel, prompts: Sequence[list[int]], room: Room) -> np.ndarray:
    """Mean probability of each token as the first of a reply: [vocab] fp64, unablated.

    prompts: token ids, up to where the answer starts.
    """
    return baseline_logits(chat, prompts, room).softmax(-1).double().mean(0).cpu().numpy()
