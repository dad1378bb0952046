"""Refusal score and KL of rows: prompts with what is done to them, many interventions in a pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from refusal.cli import progress
from refusal.errors import UserError
from refusal.model.batching import Room, by_length, in_batches
from refusal.model.interventions import Intervention, none
from refusal.model.loading import ChatModel
from refusal.model.memory import footprint
from refusal.model.passes import Prefix, Start, exact_head, forward, shared_prefix

_CHUNK = 512
"""Rows that are sorted by length together: more save padding, fewer finish a group sooner."""

Row = tuple[list[int], Intervention]
"""Token ids of a prompt, and what is done to it."""


@dataclass(frozen=True)
class Epsilon:
    """What is added to probabilities before their logarithm, in refusal scores and in KL; 0 is exact."""

    refusal: float = 0.0
    kl: float = 0.0


EXACT = Epsilon()


def refusal_score(logits: torch.Tensor, refusal_tokens: Sequence[int], epsilon: float = 0.0) -> torch.Tensor:
    """Log-odds that the next token starts a refusal: log p_R - log(1 - p_R).

    As logsumexp(R) - logsumexp(not R), so it is finite for finite logits, however sure the model is.

    Args:
        logits: [row, vocab], last position, any float dtype.
        refusal_tokens: ids R; not none, not the whole vocabulary.
        epsilon: above 0, log(p_R + epsilon) - log(1 - p_R + epsilon) in fp64, which it bounds: the published scripts.
    Returns: [row] fp32, nats.
    Raises: UserError, an id outside the vocabulary, none, or all of it.
    Source: arXiv:2406.11717, appendix B (refusal metric).
    """
    vocabulary = logits.shape[-1]
    chosen = sorted(set(refusal_tokens))
    if not 0 < len(chosen) < vocabulary or chosen[0] < 0 or chosen[-1] >= vocabulary:
        raise UserError(f"refusal tokens {chosen}: need one id or more, not all, of the vocabulary of {vocabulary}")
    if epsilon:
        p = logits.double().softmax(-1)[:, chosen].sum(-1)
        return ((p + epsilon).log() - (1 - p + epsilon).log()).float()
    logits = logits.float()
    inside = logits[:, chosen].logsumexp(-1)
    outside = logits.index_fill(-1, torch.tensor(chosen, device=logits.device), -torch.inf).logsumexp(-1)
    return inside - outside


def kl(baseline: torch.Tensor, ablated: torch.Tensor, epsilon: float = 0.0) -> torch.Tensor:
    """KL(baseline || ablated) of next-token distributions, in nats.

    Args:
        baseline, ablated: logits [row, vocab].
        epsilon: above 0, added to the probabilities in both logarithms, in fp64: the published scripts.
    Returns: [row] fp32, >= 0 up to rounding where exact.
    """
    if epsilon:
        p, q = baseline.double().softmax(-1), ablated.double().softmax(-1)
        return (p * ((p + epsilon).log() - (q + epsilon).log())).sum(-1).float()
    first, second = baseline.float().log_softmax(-1), ablated.float().log_softmax(-1)
    return torch.nn.functional.kl_div(second, first, reduction="none", log_target=True).sum(-1)


def last_logits(
    chat: ChatModel, rows: Sequence[Row], prefix: Prefix | None = None, start: Start | None = None
) -> torch.Tensor:
    """Logits [row, vocab] fp32 after each row's last token, under its intervention, in one forward pass.

    prefix, start: see `passes.forward`.
    """
    ids, interventions = zip(*rows, strict=True)
    with exact_head(chat.model):
        return forward(chat, ids, interventions, prefix, start=start).logits[:, -1].float()


def refusal_scores(chat: ChatModel, prompts: Sequence[list[int]], room: Room) -> np.ndarray:
    """Refusal score of each prompt, unablated: [prompt] fp32, nats."""
    clean = none(chat.width)
    return score_groups(chat, {"": [(ids, clean) for ids in prompts]}, room)[""]["refusal_score"]


def score_groups(
    chat: ChatModel,
    groups: Mapping[str, Sequence[Row]],
    room: Room,
    baseline: torch.Tensor | None = None,
    done: Callable[[str, dict[str, np.ndarray]], None] | None = None,
    what: str = "scores",
    epsilon: Epsilon = EXACT,
) -> dict[str, dict[str, np.ndarray]]:
    """Scores of groups of rows; many groups share a forward pass.

    Args:
        groups: name -> rows; all groups have the same prompts in the same order where `baseline` is given.
        baseline: unablated logits [prompt, vocab] of those prompts, for KL; None for no KL.
        done: called with a group's name and scores as soon as it is finished.
        what: for the progress bar.
    Returns: name -> `refusal_score` and, with a baseline, `kl`, each [prompt] fp32, in the order of its rows.
    Raises: UserError, a score that is not finite.
    """
    numbered = [[(name, number, row) for number, row in enumerate(rows)] for name, rows in groups.items()]
    flat = by_length(numbered, _CHUNK, lambda entry: len(entry[2][0]))
    prefix, needs = shared_prefix([row[0] for _, _, row in flat]), footprint(chat)
    kinds = ["refusal_score"] + ["kl"] * (baseline is not None)
    scores = {name: {kind: np.full(len(rows), np.nan, np.float32) for kind in kinds} for name, rows in groups.items()}
    left = {name: len(rows) for name, rows in groups.items()}

    def size(entry):
        return needs.row(len(entry[2][0]), len(prefix))

    def batch_scores(batch):
        logits = last_logits(chat, [row for _, _, row in batch], prefix)
        found = {"refusal_score": refusal_score(logits, chat.refusal_tokens, epsilon.refusal).cpu().numpy()}
        if baseline is not None:
            numbers = torch.tensor([number for _, number, _ in batch], device=baseline.device)
            found["kl"] = kl(baseline[numbers].to(logits.device), logits, epsilon.kl).cpu().numpy()
        return found

    batches = in_batches(flat, room, size, batch_scores)
    each = ((place, entry, found) for batch, found in batches for place, entry in enumerate(batch))
    for place, (name, number, _), found in progress(each, what, total=len(flat), unit="rows"):
        for kind, values in found.items():
            scores[name][kind][number] = values[place]
        left[name] -= 1
        if left[name] == 0:
            check_finite(name, scores[name])
            if done is not None:
                done(name, scores[name])
    return scores


def baseline_logits(chat: ChatModel, prompts: Sequence[list[int]], room: Room) -> torch.Tensor:
    """Unablated logits [prompt, vocab] fp32 after each prompt."""
    clean, prefix, needs = none(chat.width), shared_prefix(prompts), footprint(chat)
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    batches = in_batches(
        order,
        room,
        lambda number: needs.row(len(prompts[number]), len(prefix)),
        lambda numbers: last_logits(chat, [(prompts[number], clean) for number in numbers], prefix),
    )
    return torch.cat([logits for _, logits in batches])[torch.tensor(order).argsort()]


def check_finite(name: str, scores: Mapping[str, np.ndarray]) -> None:
    """Raises: UserError that names the first score that is not finite."""
    for kind, values in scores.items():
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise UserError(
                f"{name or 'unablated'}: {kind} of prompt {row} is {values[row]}:"
                " the model's logits overflow; use dtype float32 or bfloat16"
            )
