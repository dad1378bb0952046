"""Cross-entropy per token on corpora and on the model's own responses, under interventions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from refusal.cli import progress
from refusal.model.batching import Room, in_batches
from refusal.model.interventions import Intervention
from refusal.model.loading import ChatModel
from refusal.model.memory import footprint
from refusal.model.passes import Prefix, forward, shared_prefix


@dataclass(frozen=True)
class Span:
    """Token ids, of which those from `start` on are predicted and counted; what is before is context."""

    tokens: list[int]
    start: int


def text_spans(tokenizer: Any, rows: Sequence[dict], max_tokens: int) -> list[Span]:
    """Plain text, with the special tokens the tokenizer adds, cut; all but the first token are predicted."""
    encoded = [tokenizer(row["text"]).input_ids[:max_tokens] for row in rows]
    return [Span(tokens, 1) for tokens in encoded if len(tokens) > 1]


def chat_spans(chat: ChatModel, rows: Sequence[dict]) -> list[Span]:
    """Instruction and response through the chat template; the response's tokens are predicted, the prompt is not."""
    prompts = [{"id": number, "instruction": row["instruction"]} for number, row in enumerate(rows)]
    encoded = chat.encode(prompts)
    responses = [chat.tokenizer(row["response"], add_special_tokens=False).input_ids for row in rows]
    return completion_spans(encoded, responses)


def completion_spans(prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> list[Span]:
    """Whole responses after their prompts, as token ids; empty ones are dropped."""
    return [
        Span(prompt + response, len(prompt)) for prompt, response in zip(prompts, responses, strict=True) if response
    ]


def losses(
    chat: ChatModel,
    sequences: Sequence[Span],
    interventions: Mapping[str, Intervention],
    room: Room,
    done: Callable[[str, list[float]], None],
) -> None:
    """Summed token losses of each sequence under each intervention.

    Token losses are fp32 and their sums fp64, also for a bf16 model: a bf16 sum rounds to multiples of 4 and hides
    differences between ablations.

    Args:
        done: called with the id and a sum in nats for each sequence, in their order, as soon as all are there.
    """
    ordered = sorted(range(len(sequences)), key=lambda number: len(sequences[number].tokens))
    rows = [(name, number) for name in interventions for number in ordered]
    sums = {name: [0.0] * len(sequences) for name in interventions}
    left = dict.fromkeys(interventions, len(sequences))
    # each row keeps the last token of its context, which predicts the first that is counted
    prefix, needs = shared_prefix([one.tokens[: one.start] for one in sequences]), footprint(chat)
    kept = max(len(one.tokens) - one.start for one in sequences) + 1

    def size(row):
        return needs.row(len(sequences[row[1]].tokens), len(prefix), logits=kept)

    def batch_losses(batch):
        spans = [sequences[number] for _, number in batch]
        return token_losses(chat, spans, [interventions[name] for name, _ in batch], prefix)

    batches = in_batches(rows, room, size, batch_losses)
    each = ((row, value) for batch, found in batches for row, value in zip(batch, found, strict=True))
    what = f"loss ({len(interventions)} combinations x {len(sequences)} sequences)"
    for (name, number), value in progress(each, what, total=len(rows), unit="rows"):
        sums[name][number] = value
        left[name] -= 1
        if left[name] == 0:
            done(name, sums[name])


def token_losses(
    chat: ChatModel, sequences: Sequence[Span], interventions: Sequence[Intervention], prefix: Prefix | None = None
) -> list[float]:
    """Sum of token losses of each sequence, in nats; padding and context are masked out.

    prefix: tokens that all sequences share before any that is counted, see `passes.shared_prefix`.
    """
    ids = [one.tokens for one in sequences]
    # logits are asked for only where some row predicts
    keep = max(len(one.tokens) - one.start for one in sequences) + 1
    logits = forward(chat, ids, interventions, prefix, keep).logits
    found = []
    for row, one in enumerate(sequences):
        target = torch.tensor(one.tokens[one.start :], device=logits.device)
        loss = torch.nn.functional.cross_entropy(logits[row, -len(target) - 1 : -1].float(), target, reduction="none")
        found.append(loss.double().sum())
    return torch.stack(found).tolist()
