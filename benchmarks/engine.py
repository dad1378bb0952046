"""The engine's stages over a workload, as the scripts call them, and a warm-up of everything."""

import math

import reference
from workload import Work, small

from refusal.model import loss
from refusal.model.batching import Room
from refusal.model.generation import complete
from refusal.model.loading import ChatModel
from refusal.model.sweep import bypass, divergence, induce

LAYER_SHARE = 0.8
"""Of the layers, what the screened sweep looks at."""


def sweep(chat: ChatModel, work: Work, space: Room) -> dict[str, dict]:
    """Every score of every candidate: kind -> candidate -> score."""
    found: dict[str, dict] = {"induce": {}, "kl": {}, "bypass": {}}
    induce(chat, work.candidates, work.harmless, space, found["induce"].__setitem__)
    divergence(chat, work.candidates, work.harmless, space, found["kl"].__setitem__)
    bypass(chat, work.candidates, work.harmful, space, found["bypass"].__setitem__)
    return found


def screened(chat: ChatModel, work: Work, space: Room) -> dict[str, dict]:
    """Each score only of the candidates that the one before left."""
    found: dict[str, dict] = {"induce": {}, "kl": {}, "bypass": {}}
    limit = int(LAYER_SHARE * len(chat.stream.layers))
    early = {name: one for name, one in work.candidates.items() if one[1] < limit}
    induce(chat, early, work.harmless, space, found["induce"].__setitem__)
    best = sorted(early, key=found["induce"].get, reverse=True)[: math.ceil(work.passing * len(early))]
    left = {name: early[name] for name in best}
    divergence(chat, left, work.harmless, space, found["kl"].__setitem__)
    bypass(chat, left, work.harmful, space, found["bypass"].__setitem__)
    return found


def completions(chat: ChatModel, work: Work, space: Room) -> dict[str, list[list[int]]]:
    found = {}

    def done(name, rows):
        found[name] = [row.tokens for row in rows]

    complete(chat, work.prompts, work.interventions, work.new_tokens, space, done)
    return found


def losses(chat: ChatModel, work: Work, space: Room) -> dict[str, float]:
    """Nats per token."""
    found = {}
    count = sum(len(one.tokens) - one.start for one in work.sequences)

    def done(name, nats):
        found[name] = sum(nats) / count

    loss.losses(chat, work.sequences, work.interventions, space, done)
    return found


def warm_up(chat: ChatModel, work: Work) -> None:
    """Everything once: threads, kernels and libraries are there before the first item is measured."""
    little, space = small(work), Room(8)
    sweep(chat, little, space)
    completions(chat, little, space)
    losses(chat, little, space)
    reference.sweep(chat, little, list(little.candidates), reference.logits(chat, little.harmless))
    reference.completions(chat, little)
    reference.losses(chat, little)
