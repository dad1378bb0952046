"""What the benchmarks compute: random Llamas of real shapes, prompts of random tokens, candidates, combinations."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from refusal.directions import random_directions, span_basis
from refusal.model.families import find_stream
from refusal.model.interventions import Intervention, ablation
from refusal.model.loading import ChatModel
from refusal.model.loss import Span
from refusal.model.sweep import Candidate

# Name -> hidden, intermediate, layers, heads, key-value heads, vocabulary, tied, dtype.
SIZES = {
    "tiny": (128, 384, 8, 4, 2, 1024, True, "float32"),
    "135M": (576, 1536, 30, 9, 3, 49152, True, "float32"),
    "1B": (2048, 8192, 16, 32, 8, 128256, True, "float32"),
    "8B": (4096, 14336, 32, 32, 8, 128256, False, "bfloat16"),
}
SPREAD = 0.05
"""Standard deviation of the weights: with the default 0.02 the logits hardly depend on the prompt."""
END = 5
"""Tokens that close every prompt."""
REFUSAL = (3, 4, 5)


@dataclass(frozen=True)
class Work:
    """What is computed: token ids of prompts, candidates of the sweep, combinations, sequences for the loss."""

    prompts: list[list[int]]
    harmful: list[list[int]]
    harmless: list[list[int]]
    candidates: dict[tuple[int, int], Candidate]
    interventions: dict[str, Intervention]
    sequences: list[Span]
    new_tokens: int
    passing: float


def build(size: str, args: argparse.Namespace, device: torch.device) -> ChatModel:
    """A random Llama, created where and as it is used, with what the engine asks of a chat model."""
    hidden, inner, layers, heads, kv_heads, vocabulary, tied, dtype = SIZES[size]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        initializer_range=SPREAD,
        max_position_embeddings=8192,
        pad_token_id=0,
        # neither side stops before the length does
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(args.seed)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, args.dtype or dtype))
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(usual)
    model.eval().requires_grad_(False)
    return ChatModel(
        model=model,
        tokenizer=SimpleNamespace(pad_token_id=0),
        stream=find_stream(model, range(8)),
        system_prompt=None,
        suffix=tuple(range(6, 6 + END)),
        refusal_tokens=REFUSAL,
        stop_tokens=(-1,),
    )


def build_work(chat: ChatModel, args: argparse.Namespace) -> Work:
    rng = np.random.default_rng(args.seed)
    layers = spread_out(list(range(len(chat.stream.layers))), args.layers_swept)
    cells = [(position, layer) for position in range(args.positions) for layer in layers]
    raw = SPREAD * random_directions(len(cells), chat.width, (args.seed, 0))
    template = tokens(chat, rng, args.template_tokens)
    prompts, harmful, harmless = (
        build_prompts(chat, rng, template, count) for count in (args.prompts, args.val, args.val)
    )
    return Work(
        prompts=prompts,
        harmful=harmful,
        harmless=harmless,
        candidates={cell: (direction, cell[1]) for cell, direction in zip(cells, raw, strict=True)},
        interventions=combinations(chat, args.combinations, args.seed),
        sequences=[Span(tokens(chat, rng, args.sequence_tokens), 1) for _ in range(args.sequences)],
        new_tokens=args.new_tokens,
        passing=args.passing,
    )


def build_prompts(chat: ChatModel, rng: np.random.Generator, template: list[int], count: int) -> list[list[int]]:
    """What all prompts share, 8 to 24 tokens of their own, and the tokens that close every prompt."""
    return [template + tokens(chat, rng, int(rng.integers(8, 25))) + list(chat.suffix) for _ in range(count)]


def tokens(chat: ChatModel, rng: np.random.Generator, count: int) -> list[int]:
    return rng.integers(6 + END, chat.model.config.vocab_size, count).tolist()


def combinations(chat: ChatModel, count: int, seed: int, sizes: Sequence[int] = (1, 2, 3)) -> dict[str, Intervention]:
    """Ablations of random directions, of these sizes in turn."""
    return {
        str(number): ablation(
            span_basis(random_directions(sizes[number % len(sizes)], chat.width, (seed, 1, number)))[0]
        )
        for number in range(count)
    }


def spread_out(items: list, count: int) -> list:
    """So many of the items, evenly spread; all for 0."""
    if not 0 < count < len(items):
        return items
    return [items[place] for place in np.linspace(0, len(items) - 1, count).round().astype(int)]


def small(work: Work) -> Work:
    """A row or two of everything."""
    return replace(
        work,
        prompts=work.prompts[:2],
        harmful=work.harmful[:2],
        harmless=work.harmless[:2],
        candidates=dict(list(work.candidates.items())[:1]),
        interventions=dict(list(work.interventions.items())[:1]),
        sequences=work.sequences[:2],
        new_tokens=2,
    )


def flags() -> argparse.ArgumentParser:
    """A parser of what all benchmarks of the engine share."""
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--dtype", choices=["float32", "bfloat16"], help="float32; of 8B bfloat16")
    made.add_argument("--processor", action="store_true", help="on the processor, also where there is a GPU")
    made.add_argument("--threads", type=int, help="processor threads; all of them when left out")
    made.add_argument("--memory-mib", type=int, default=0, help="memory of batches; 0: a share of what is free")
    made.add_argument("--repeats", type=int, default=1, help="runs of each measured item; the least time counts")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--combinations", type=int, default=15, help="of 1, 2 and 3 directions in turn")
    made.add_argument("--prompts", type=int, default=8, help="that are completed")
    made.add_argument("--new-tokens", type=int, default=32, help="of each completion, at least 3")
    made.add_argument("--template-tokens", type=int, default=24, help="that all prompts start with")
    made.add_argument("--val", type=int, default=8, help="harmful prompts of the sweep, and as many harmless ones")
    made.add_argument("--positions", type=int, default=5, help="of candidates")
    made.add_argument("--layers-swept", type=int, default=0, help="so many layers, evenly spread; 0: all")
    made.add_argument("--passing", type=float, default=0.15, help="share that the screened sweep leaves after induce")
    made.add_argument("--sequences", type=int, default=16, help="of the loss")
    made.add_argument("--sequence-tokens", type=int, default=64)
    return made


def device_of(args: argparse.Namespace) -> torch.device:
    """The GPU, if there is one and it is wanted; sets the threads, too."""
    if args.threads:
        torch.set_num_threads(args.threads)
    return torch.device("cuda" if torch.cuda.is_available() and not args.processor else "cpu")
