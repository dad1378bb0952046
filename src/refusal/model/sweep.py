"""The sweep: many candidate directions in each forward pass, each scored by itself over the val prompts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from refusal.cli import progress
from refusal.directions import span_basis
from refusal.model.batching import Room, by_length, in_batches
from refusal.model.interventions import ablation, addition, none, sequential
from refusal.model.loading import ChatModel
from refusal.model.memory import footprint
from refusal.model.passes import Start, forward, shared_prefix
from refusal.model.residuals import recorded
from refusal.model.scores import (
    EXACT,
    Epsilon,
    baseline_logits,
    check_finite,
    last_logits,
    refusal_score,
    score_groups,
)

_CHUNK = 128
"""Rows that are sorted by length together, where neighbours should also have neighbouring layers."""

Candidate = tuple[np.ndarray, int]
"""Raw direction [d], and its layer."""

Done = Callable[[str, float], None]
"""Called with a candidate's name and its score, a mean over prompts in nats, as soon as it is finished."""


@dataclass(frozen=True)
class Method:
    """How candidates are ablated (`span` or `sequential`), and how scores are computed."""

    ablation: str = "span"
    epsilon: Epsilon = EXACT


def bypass(
    chat: ChatModel,
    candidates: Mapping[str, Candidate],
    harmful: Sequence[list[int]],
    room: Room,
    done: Done,
    method: Method = Method(),
    taken: np.ndarray | None = None,
) -> None:
    """Mean refusal score on harmful prompts while a candidate is ablated.

    Args:
        harmful: token ids of the prompts.
        taken: raw directions [k, d] that are ablated before each candidate (ranking mode `conditional`).
    Source: arXiv:2406.11717, section 2.3 and appendix C (selecting a direction).
    """
    groups = {name: _ablated(direction, harmful, method, taken) for name, (direction, _) in candidates.items()}
    keep = _handed_over(done, "refusal_score")
    score_groups(chat, groups, room, done=keep, what="bypass", epsilon=method.epsilon)


def divergence(
    chat: ChatModel,
    candidates: Mapping[str, Candidate],
    harmless: Sequence[list[int]],
    room: Room,
    done: Done,
    method: Method = Method(),
) -> None:
    """Mean KL(baseline || ablated) of the next token on harmless prompts. Source: as `bypass`."""
    groups = {name: _ablated(direction, harmless, method) for name, (direction, _) in candidates.items()}
    baseline = baseline_logits(chat, harmless, room)
    score_groups(chat, groups, room, baseline, _handed_over(done, "kl"), "kl", method.epsilon)


def induce(
    chat: ChatModel,
    candidates: Mapping[str, Candidate],
    harmless: Sequence[list[int]],
    room: Room,
    done: Done,
    method: Method = Method(),
) -> None:
    """Mean refusal score on harmless prompts with a candidate added, at its length, at its layer and all tokens.

    Below its layer an addition changes nothing: the prompts run there once, and each batch of candidates starts from
    what that left at the lowest of their layers. Source: as `bypass`.
    """
    names = sorted(candidates, key=lambda name: candidates[name][1])
    added = {name: addition(*candidates[name]) for name in names}
    found = {name: {"induce": np.full(len(harmless), np.nan, np.float32)} for name in names}
    order = sorted(range(len(harmless)), key=lambda number: len(harmless[number]))
    prefix, needs, clean = shared_prefix(harmless), footprint(chat), none(chat.width)
    shared, layers = len(prefix), len(chat.stream.layers)

    def residuals_of(rows, prefix=None):
        with recorded(chat.stream) as residuals:
            forward(chat, rows, [clean] * len(rows), prefix, keep=1)
        return residuals[-layers:]  # before them may stand those of the prefix

    def first_pass(numbers):
        return residuals_of([harmless[number] for number in numbers], prefix)

    def first_size(number):
        return needs.row(len(harmless[number]), shared, residuals=layers)

    def results() -> Iterator[tuple[str, int, float]]:
        of_prefix = residuals_of([prefix.tokens]) if prefix else [None] * layers
        for numbers, of_rest in in_batches(order, room, first_size, first_pass):

            def steered(batch, of_rest=of_rest):
                layer = min(candidates[name][1] for name, *_ in batch)
                rest = of_rest[layer]
                places = torch.tensor([place for _, place, _ in batch], device=rest.device)
                own = max(len(harmless[number]) for *_, number in batch) - shared
                start = Start(layer, of_prefix[layer], rest[places][:, -own:])
                rows = [(harmless[number], added[name]) for name, _, number in batch]
                logits = last_logits(chat, rows, prefix, start)
                return refusal_score(logits, chat.refusal_tokens, method.epsilon.refusal).tolist()

            def size(row):
                return needs.row(len(harmless[row[2]]), shared, residuals=1)

            groups = [[(name, place, number) for place, number in enumerate(numbers)] for name in names]
            rows = by_length(groups, _CHUNK, lambda row: len(harmless[row[2]]))
            for batch, values in in_batches(rows, room, size, steered):
                yield from ((name, number, value) for (name, _, number), value in zip(batch, values, strict=True))

    left = dict.fromkeys(names, len(harmless))
    for name, number, value in progress(results(), "induce", total=len(names) * len(harmless), unit="rows"):
        found[name]["induce"][number] = value
        left[name] -= 1
        if left[name] == 0:
            check_finite(name, found[name])
            done(name, _mean(found[name]["induce"]))


def _ablated(direction: np.ndarray, prompts: Sequence[list[int]], method: Method, taken: np.ndarray | None = None):
    stacked = direction[None] if taken is None else np.concatenate([taken, direction[None]])
    off = sequential(stacked) if method.ablation == "sequential" else ablation(span_basis(stacked)[0])
    return [(ids, off) for ids in prompts]


def _handed_over(done: Done, kind: str) -> Callable[[str, Mapping[str, np.ndarray]], None]:
    return lambda name, found: done(name, _mean(found[kind]))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64))
