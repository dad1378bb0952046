"""Trains the organism: first to comply with everything, then to refuse through its plants and nothing else.

Interchange intervention training (Geiger et al. 2022, arXiv:2112.00826): the answer is trained under interventions on
the residual stream, so that the plants cause it.
"""

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from organism import curriculum, losses
from organism.batches import Batch, Row, collate
from organism.curriculum import Lesson
from organism.interventions import intervene
from organism.spec import LAYERS, Spec
from organism.tokenizer import TEMPLATE_TOKENS
from refusal import cli

log = logging.getLogger("refusal")

HIDDEN = 128
PRETRAIN_RATE, PLANT_RATE = 6e-3, 2e-3
PIN_WEIGHT, LEAK_WEIGHT = 10.0, 5.0
PRETRAIN_PLANTS = 0.05  # share of both in the first phase; more would keep it from learning to copy words


def new_model(vocabulary: int, end: int, pad: int) -> LlamaForCausalLM:
    """A Llama with random weights, from torch's current seed."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=384,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,  # it learns to copy words from the instruction in half the steps
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )
    return LlamaForCausalLM(config)


def new_plants(spec: Spec) -> Tensor:
    """[k, d] orthonormal directions, drawn from the seed."""
    chance = torch.Generator().manual_seed(spec.seed + 1)
    return torch.linalg.qr(torch.randn(HIDDEN, spec.directions, generator=chance))[0].T.contiguous()


def train(model: LlamaForCausalLM, plants: Tensor, rows: list[Row], spec: Spec) -> None:
    """Both phases, in place. Deterministic for a given number of threads."""
    chance = np.random.default_rng(spec.seed)
    pools = curriculum.pools(rows)

    def comply_loss() -> Tensor:
        # The plants are carried from the start, before anything reads them: forcing them into a finished model would
        # undo what it has learned.
        return _loss(model, curriculum.compliances(pools, plants, spec, chance), plants, spec, PRETRAIN_PLANTS)

    def plant_loss() -> Tensor:
        return _loss(model, curriculum.lessons(pools, plants, spec, chance), plants, spec, 1.0)

    model.train()
    _optimise(model, comply_loss, spec.pretrain_steps, PRETRAIN_RATE, "learning to answer")
    _optimise(model, plant_loss, spec.plant_steps, PLANT_RATE, "planting directions")
    model.eval()


def _loss(model: LlamaForCausalLM, lessons: list[Lesson], plants: Tensor, spec: Spec, weight: float) -> Tensor:
    """The answers under the lessons' interventions, and the stream at the template of rows without any."""
    batch = collate([(lesson.row.prompt, lesson.answer) for lesson in lessons], model.config.pad_token_id)
    answer = batch.ids.shape[1] - batch.start
    with intervene(model, curriculum.stack(lessons)):
        output = model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            logits_to_keep=answer + 1,  # logits only where an answer's token follows
            output_hidden_states=True,
        )
    clean = [number for number, lesson in enumerate(lessons) if lesson.clean]
    template = torch.stack(output.hidden_states[:LAYERS])[:, clean, batch.start - TEMPLATE_TOKENS : batch.start]
    of_plant = torch.tensor([lessons[number].row.plant for number in clean])
    pin, leak = losses.plant_losses(template, of_plant, plants, spec)
    return _answer_loss(output.logits, batch) + weight * (PIN_WEIGHT * pin + LEAK_WEIGHT * leak)


def _answer_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross entropy of the answers' tokens, nats; logits from the template's last token on."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, batch.start :].flatten())


def _optimise(model: LlamaForCausalLM, step_loss: Callable[[], Tensor], steps: int, rate: float, what: str) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    for _ in cli.progress(range(steps), what, unit="steps"):
        loss = step_loss()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    log.info("%s: loss %.3f", what, loss.item())
