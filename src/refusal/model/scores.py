"""Refusal score, KL, and the sweep over candidate directions."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from refusal.cli import progress
from refusal.directions import span_basis
from refusal.errors import UserError
from refusal.model.batching import in_batches, left_pad
from refusal.model.interventions import Intervention, Rows, ablation, addition, intervene, none
from refusal.model.loading import ChatModel

Row = tuple[list[int], Intervention]
"""Token ids of a prompt, and what is done to it."""


def refusal_score(logits: torch.Tensor, refusal_tokens: Sequence[int]) -> torch.Tensor:
    """Log-odds that the next token starts a refusal: log p_R - log(1 - p_R).

    As logsumexp(R) - logsumexp(not R), so it is finite for finite logits, however sure the model is.

    Args:
        logits: [row, vocab], last position, any float dtype.
        refusal_tokens: ids R; not none, not the whole vocabulary.
    Returns: [row] fp32, nats.
    Raises: UserError, an id outside the vocabulary, none, or all of it.
    Source: arXiv:2406.11717, appendix B (refusal metric).
    """
    vocabulary = logits.shape[-1]
    chosen = sorted(set(refusal_tokens))
    if not 0 < len(chosen) < vocabulary or chosen[0] < 0 or chosen[-1] >= vocabulary:
        raise UserError(f"refusal tokens {chosen}: need one id or more, not all, of the vocabulary of {vocabulary}")
    logits = logits.float()
    starts = torch.zeros(vocabulary, dtype=torch.bool, device=logits.device)
    starts[chosen] = True
    inside = logits.masked_fill(~starts, -torch.inf).logsumexp(-1)
    outside = logits.masked_fill(starts, -torch.inf).logsumexp(-1)
    return inside - outside


def kl(baseline: torch.Tensor, ablated: torch.Tensor) -> torch.Tensor:
    """KL(baseline || ablated) of next-token distributions, in nats.

    Args: logits [row, vocab] each. Returns: [row] fp32, >= 0 up to rounding.
    """
    first, second = baseline.float().log_softmax(-1), ablated.float().log_softmax(-1)
    return (first.exp() * (first - second)).sum(-1)


@torch.no_grad()
def last_logits(chat: ChatModel, rows: Sequence[Row]) -> torch.Tensor:
    """Logits [row, vocab] fp32 after each row's last token, under its intervention, in one forward pass."""
    ids, interventions = zip(*rows, strict=True)
    with intervene(chat.stream, Rows(interventions)):
        out = chat.model(**left_pad(ids, chat.pad, chat.device), logits_to_keep=1, use_cache=False)
    return out.logits[:, -1].float()


def refusal_scores(chat: ChatModel, prompts: Sequence[list[int]], batch_rows: int) -> np.ndarray:
    """Refusal score of each prompt, unablated: [prompt] fp32, nats."""
    clean = none(chat.width)
    return score_groups(chat, {"": [(ids, clean) for ids in prompts]}, batch_rows, None)[""]["refusal_score"]


def score_groups(
    chat: ChatModel,
    groups: Mapping[str, Sequence[Row]],
    batch_rows: int,
    baseline: torch.Tensor | None,
    done: Callable[[str, dict[str, np.ndarray]], None] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Scores of groups of rows; many groups share a forward pass.

    Args:
        groups: name -> rows; all groups have the same prompts in the same order where `baseline` is given.
        baseline: unablated logits [prompt, vocab] of those prompts, for KL; None for no KL.
        done: called with a group's name and scores as soon as it is finished.
    Returns: name -> `refusal_score` and, with a baseline, `kl`, each [prompt] fp32, in the order of its rows.
    Raises: UserError, a score that is not finite.
    """
    flat = [(name, number, row) for name, rows in groups.items() for number, row in enumerate(rows)]
    scores = {name: {"refusal_score": np.full(len(rows), np.nan, np.float32)} for name, rows in groups.items()}
    if baseline is not None:
        for name, rows in groups.items():
            scores[name]["kl"] = np.full(len(rows), np.nan, np.float32)
    left = {name: len(rows) for name, rows in groups.items()}

    def batch_scores(batch):
        logits = last_logits(chat, [row for _, _, row in batch])
        found = {"refusal_score": refusal_score(logits, chat.refusal_tokens).cpu().numpy()}
        if baseline is not None:
            numbers = torch.tensor([number for _, number, _ in batch], device=logits.device)
            found["kl"] = kl(baseline.to(logits.device)[numbers], logits).cpu().numpy()
        return found

    for batch, found in in_batches(flat, batch_rows, batch_scores):
        for place, (name, number, _) in enumerate(batch):
            for kind, values in found.items():
                scores[name][kind][number] = values[place]
            left[name] -= 1
            if left[name] == 0:
                _check_finite(name, scores[name])
                if done is not None:
                    done(name, scores[name])
    return scores


def sweep(
    chat: ChatModel,
    candidates: Mapping[str, tuple[np.ndarray, int]],
    harmful: Sequence[list[int]],
    harmless: Sequence[list[int]],
    batch_rows: int,
    done: Callable[[str, dict[str, float]], None],
    taken: np.ndarray | None = None,
) -> None:
    """Score every candidate direction: bypass, and (where none are taken) induce and kl, means over prompts in nats.

    Args:
        candidates: name -> (raw direction [d], layer).
        harmful, harmless: token ids of the val prompts.
        done: called with a candidate's name and scores as soon as it is finished.
        taken: orthonormal rows [k, d] that are ablated beside each candidate (mode `conditional`): bypass alone then.
    Source: arXiv:2406.11717, section 2.3 and appendix C (selecting a direction).
    """
    baseline = None if taken is not None else baseline_logits(chat, harmless, batch_rows)
    per_pass = max(1, batch_rows // max(len(harmful), len(harmless)))
    names = list(candidates)
    chunks = [names[start : start + per_pass] for start in range(0, len(names), per_pass)]
    for chunk in progress(chunks, "candidates", unit="passes"):
        bypass, ablated, induce = {}, {}, {}
        for name in chunk:
            direction, layer = candidates[name]
            stacked = direction[None] if taken is None else np.concatenate([taken, direction[None]])
            off = ablation(span_basis(stacked)[0])
            bypass[name] = [(ids, off) for ids in harmful]
            ablated[name] = [(ids, off) for ids in harmless]
            induce[name] = [(ids, addition(direction, layer)) for ids in harmless]
        found = {
            name: {"bypass": _mean(scores["refusal_score"])}
            for name, scores in score_groups(chat, bypass, batch_rows, None).items()
        }
        if taken is None:
            for name, scores in score_groups(chat, ablated, batch_rows, baseline).items():
                found[name]["kl"] = _mean(scores["kl"])
            for name, scores in score_groups(chat, induce, batch_rows, None).items():
                found[name]["induce"] = _mean(scores["refusal_score"])
        for name in chunk:
            done(name, found[name])


def baseline_logits(chat: ChatModel, prompts: Sequence[list[int]], batch_rows: int) -> torch.Tensor:
    """Unablated logits [prompt, vocab] fp32 after each prompt, kept on the model's device."""
    clean = none(chat.width)
    batches = in_batches([(ids, clean) for ids in prompts], batch_rows, lambda rows: last_logits(chat, rows))
    return torch.cat([logits for _, logits in batches])


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64))


def _check_finite(name: str, scores: Mapping[str, np.ndarray]) -> None:
    for kind, values in scores.items():
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise UserError(
                f"{name or 'unablated'}: {kind} of prompt {row} is {values[row]}:"
                " the model's logits overflow; use dtype float32 or bfloat16"
            )
