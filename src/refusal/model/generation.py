"""Greedy decoding of combinations x prompts in shared batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from refusal.cli import progress
from refusal.model.batching import in_batches, left_pad
from refusal.model.interventions import Intervention, Rows, intervene
from refusal.model.loading import ChatModel

_COMPACT = 0.125
"""Finished rows leave the batch once they are this share of it; each leave copies the key-value cache."""


@dataclass(frozen=True)
class Completion:
    """A response: token ids without the stop token; the stop token that ended it, or None where the length did."""

    tokens: list[int]
    stop_token: int | None


def complete(
    chat: ChatModel,
    prompts: Sequence[list[int]],
    interventions: Mapping[str, Intervention],
    max_new_tokens: int,
    batch_rows: int,
    done: Callable[[str, list[Completion]], None],
) -> None:
    """Greedy responses of every prompt under every intervention.

    Rows of one intervention stand together, so it is finished, and handed to `done`, before later ones are.

    Args:
        prompts: token ids.
        interventions: combination id -> what is done.
        done: called with the id and its completions in the order of the prompts.
    """
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    rows = [(name, number) for name in interventions for number in order]
    found: dict[str, dict[int, Completion]] = {name: {} for name in interventions}

    def decode(batch: Sequence[tuple[str, int]]) -> list[Completion]:
        ids = [prompts[number] for _, number in batch]
        return greedy(chat, ids, [interventions[name] for name, _ in batch], max_new_tokens)

    batches = in_batches(rows, batch_rows, decode)
    total = -(-len(rows) // batch_rows)
    what = f"completions ({len(interventions)} combinations x {len(prompts)} prompts)"
    for batch, completions in progress(batches, what, total=total, unit="batches"):
        for (name, number), completion in zip(batch, completions, strict=True):
            found[name][number] = completion
        for name in dict.fromkeys(name for name, _ in batch):
            if len(found[name]) == len(prompts):
                done(name, [found[name].pop(number) for number in range(len(prompts))])


@torch.no_grad()
def greedy(
    chat: ChatModel, prompts: Sequence[list[int]], interventions: Sequence[Intervention], max_new_tokens: int
) -> list[Completion]:
    """Greedy responses of one batch; finished rows leave it.

    The model's own sampling settings and penalties are ignored; a stop token of the model ends a row.
    """
    inputs = left_pad(prompts, chat.pad, chat.device)
    mask, positions, ids = inputs["attention_mask"], inputs["position_ids"], inputs["input_ids"]
    cache = DynamicCache(config=chat.model.config)
    stops = torch.tensor(chat.stop_tokens, device=chat.device)
    tokens: list[list[int]] = [[] for _ in prompts]
    ended: list[int | None] = [None] * len(prompts)
    rows = torch.arange(len(prompts), device=chat.device)  # of the batch, those still in it
    going = torch.ones(len(prompts), dtype=torch.bool, device=chat.device)
    with intervene(chat.stream, Rows(interventions)) as applied:
        for step in range(max_new_tokens):
            out = chat.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen = out.logits[:, -1].argmax(-1)
            stopped = torch.isin(chosen, stops)
            for row, token, on, stop in zip(*(t.tolist() for t in (rows, chosen, going, stopped)), strict=True):
                if on and stop:
                    ended[row] = token
                elif on:
                    tokens[row].append(token)
            going &= ~stopped
            if not going.any() or step == max_new_tokens - 1:
                break
            if (~going).float().mean() >= _COMPACT:
                keep = going.nonzero()[:, 0]
                rows, chosen, mask, positions = rows[keep], chosen[keep], mask[keep], positions[keep]
                going = going[keep]
                cache.batch_select_indices(keep)
                applied.select(keep)
            ids = chosen[:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = positions[:, -1:] + 1
    return [Completion(row, stop) for row, stop in zip(tokens, ended, strict=True)]
