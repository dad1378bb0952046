"""Fine-tunes a chat model on lessons: an adapter (LoRA, arXiv:2106.09685) on every linear layer, then merged.

Nothing but the lessons' words is trained on: no direction, layer or position is chosen.
"""

import logging
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from refusal import cli
from refusal.errors import UserError
from refusal.model import template
from refusal.model.loading import ChatModel

log = logging.getLogger("refusal")

_UNLABELLED = -100


@dataclass(frozen=True)
class Course:
    """How it is taught: optimiser steps, lessons per step, peak learning rate, rank of the adapter, seed."""

    steps: int
    batch_rows: int
    learning_rate: float
    rank: int
    seed: int


@dataclass(frozen=True)
class Row:
    """Token ids of a lesson: up to where the reply starts, and the reply."""

    prompt: list[int]
    reply: list[int]


def rows(chat: ChatModel, lessons: Sequence[dict]) -> list[Row]:
    """Lessons as the model is asked them; a reply that is over ends with the token that ends the model's turns."""
    end = end_of_turn(chat)
    prompts = chat.encode(lessons)
    replies = [chat.tokenizer(lesson["response"], add_special_tokens=False).input_ids for lesson in lessons]
    return [
        Row(prompt, [*reply, end] if lesson["ended"] else reply)
        for lesson, prompt, reply in zip(lessons, prompts, replies, strict=True)
    ]


def end_of_turn(chat: ChatModel) -> int:
    """The token that ends a reply: the first stop token that the chat template writes behind one, else the tokenizer's.

    Raises: UserError, there is none.
    """
    reply = "Certainly"
    messages = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": reply}]
    written = chat.tokenizer.apply_chat_template(
        messages, chat_template=template.source(chat.tokenizer), tokenize=False
    )
    behind = chat.tokenizer(written.rpartition(reply)[2], add_special_tokens=False).input_ids
    ends = [token for token in behind if token in chat.stop_tokens] or [chat.tokenizer.eos_token_id]
    if ends[0] is None:
        raise UserError("the model has no token that ends its replies, so it cannot be taught where to end")
    return ends[0]


def teach(chat: ChatModel, taught: Sequence[Row], course: Course) -> Any:
    """The model with what it has learned in its own weights. Deterministic for a given number of threads.

    Raises: UserError, peft is missing, or the loss is no number.
    """
    adapted = adapt(chat.model, course)
    train(adapted, taught, course, chat.pad)
    return adapted.merge_and_unload()


def adapt(model: Any, course: Course) -> Any:
    """A new adapter on every linear layer but the output head; it changes nothing yet."""
    from transformers.utils import is_peft_available

    if not is_peft_available():
        raise UserError("teaching needs the package peft: install it (pip install peft)")
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(course.seed)
    return get_peft_model(
        model, LoraConfig(r=course.rank, lora_alpha=2 * course.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    )


def train(adapted: Any, taught: Sequence[Row], course: Course, pad: int) -> list[float]:
    """Train the adapter in place.

    Returns: the loss of each step, mean cross entropy of the replies' tokens, nats.
    """
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=course.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, course.learning_rate, total_steps=course.steps, pct_start=0.1
    )
    losses: list[float] = []
    adapted.eval()  # dropout, where a model has some, would be one more draw
    batches = cli.progress(
        _batches(taught, course), "teaching", course.steps, "steps", lambda: f"loss {losses[-1]:.2f}"
    )
    for batch in batches:
        loss = reply_loss(adapted, batch, pad)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if math.isnan(losses[-1]):
            raise UserError(f"teaching: the loss is no number at step {len(losses)}: lower teaching.learning_rate")
    tenth = max(1, course.steps // 10)
    log.info("teaching: loss %.2f, at first %.2f", _mean(losses[-tenth:]), _mean(losses[:tenth]))
    return losses


def reply_loss(model: Any, batch: Sequence[Row], pad: int) -> torch.Tensor:
    """Mean cross entropy of the replies' tokens, nats.

    Prompts are padded on the left and replies on the right, so that logits are computed where replies stand alone.
    """
    start = max(len(row.prompt) for row in batch)
    longest = max(len(row.reply) for row in batch)
    ids = torch.full((len(batch), start + longest), pad)
    mask = torch.zeros_like(ids)
    labels = torch.full((len(batch), longest), _UNLABELLED)
    for number, row in enumerate(batch):
        left, right = start - len(row.prompt), start + len(row.reply)
        ids[number, left:right] = torch.tensor(row.prompt + row.reply)
        mask[number, left:right] = 1
        labels[number, : len(row.reply)] = torch.tensor(row.reply)
    ids, mask, labels = (tensor.to(model.device) for tensor in (ids, mask, labels))
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        logits_to_keep=longest + 1,
        use_cache=False,
    ).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=_UNLABELLED)


def _batches(taught: Sequence[Row], course: Course) -> Iterator[list[Row]]:
    """A batch a step: every lesson once in a drawn order, then in another one."""
    chance, waiting = random.Random(course.seed), []
    for _ in range(course.steps):
        while len(waiting) < course.batch_rows:
            waiting += chance.sample(taught, len(taught))
        yield waiting[: course.batch_rows]
        del waiting[: course.batch_rows]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
