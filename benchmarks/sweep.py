"""Sweep, completions and loss of the engine beside a plain reference, on random Llamas of real shapes, in one run.

    python benchmarks/sweep.py [--size tiny 135M 1B 8B] [--memory-mib N] [--layers-swept N] [--reference-candidates N]
    python benchmarks/sweep.py --growth growth.csv [--plot growth.svg]

Nothing else may run beside it: on a processor a single busy thread of another process costs many times its share.

The reference is how published scripts work: one combination or candidate at a time, batches of 8, a forward hook that
takes out one direction after another, `model.generate`, logits of whole sequences, scores from fp64 softmax copies, and
three full passes for every candidate. It is given what makes it faster at no effort: directions are on the device
before it starts, and only the last token's logits are copied to fp64.

The weights are random, so scores mean nothing and no threshold would. The screened sweep leaves a typical share: the
first 0.8 of the layers get induce, the best 15 % of those (`--passing`) get kl, and all of these get bypass. The
reference has no screened sweep: its time is that of the full one. With `--reference-candidates` it is measured on that
many candidates, evenly spread, and scaled; the printed line says so.

Peak memory is beside what the process holds once the model is loaded and has run once. `--growth` measures the engine's
completions as combinations and prompts grow, and nothing else.
"""

import argparse
import csv
import ctypes
import gc
import itertools
import math
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from refusal.directions import random_directions, span_basis
from refusal.model.batching import Room
from refusal.model.families import find_stream
from refusal.model.generation import complete
from refusal.model.interventions import Intervention, ablation, none
from refusal.model.loading import ChatModel
from refusal.model.loss import Span, losses
from refusal.model.memory import footprint, room
from refusal.model.sweep import Candidate, bypass, divergence, induce

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
BATCH = 8
"""Rows of the reference's batches."""
LAYER_SHARE = 0.8
MIB = 2**20


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


@dataclass(frozen=True)
class Measured:
    """What a call returned, its seconds, and its peak memory in bytes beside what was held before."""

    result: Any
    seconds: float
    peak: int


def main(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    others = psutil.cpu_percent(1.0) * os.cpu_count()  # of everything; this process sleeps meanwhile
    device = torch.device("cuda" if torch.cuda.is_available() and not args.processor else "cpu")
    if args.growth:
        growth(args, device)
    else:
        default = ["1B", "8B"] if device.type == "cuda" else ["tiny", "135M"]
        for size in args.size or default:
            compare(size, args, device)
    print(machine(device))
    print(f"other processes at the start: {others:.0f} % of a core")


def compare(size: str, args: argparse.Namespace, device: torch.device) -> None:
    """Print the table and the figures of one size."""
    chat = build(size, args, device)
    work = build_work(chat, args)
    warm_up(chat, work)
    held = memory_held(device)
    space = room(chat, rows=512, mib=args.memory_mib)
    parameters = sum(one.numel() for one in chat.model.parameters())
    print(f"\n{size}: {parameters / 1e6:.1f} M parameters, {str(chat.model.dtype).removeprefix('torch.')}, ", end="")
    print(f"{len(work.candidates)} candidates, {len(work.interventions)} combinations x {len(work.prompts)} prompts")
    print(f"{'':<28}{'reference s':>12}{'engine s':>10}{'ratio':>8}{'reference MiB':>15}{'engine MiB':>12}", flush=True)

    def run(function: Callable, *arguments: Any) -> Measured:
        return measured(function, arguments, device, held, args.repeats)

    full, screened = run(engine_sweep, chat, work, space), run(engine_screened, chat, work, space)
    asked = spread_out(list(work.candidates), args.reference_candidates)
    plain, scaled = reference_sweep_scaled(run, chat, work, asked)
    line(f"sweep full{scaled}", plain, full)
    line(f"sweep screened{scaled}", plain, screened)
    completed, plain_completed = run(engine_completions, chat, work, space), run(reference_completions, chat, work)
    line("completions", plain_completed, completed)
    lost, plain_lost = run(engine_losses, chat, work, space), run(reference_losses, chat, work)
    line("loss", plain_lost, lost)
    line("all, sweep screened", total(plain, plain_completed, plain_lost), total(screened, completed, lost))
    line("all, sweep full", total(plain, plain_completed, plain_lost), total(full, completed, lost))

    equal = [
        mine == plain_one
        for name in work.interventions
        for mine, plain_one in zip(completed.result[name], plain_completed.result[name], strict=True)
    ]
    gaps = {
        kind: max(abs(full.result[kind][name] - plain.result[name][kind]) for name in asked)
        for kind in ("induce", "kl", "bypass")
    }
    print(f"responses with the same tokens: {np.mean(equal):.1%} of {len(equal)}")
    print("largest difference, nats: " + ", ".join(f"{kind} {gap:.1e}" for kind, gap in gaps.items()), end="")
    print(f", loss per token {max(abs(lost.result[name] - plain_lost.result[name]) for name in lost.result):.1e}")
    peak = max(one.peak for one in (full, screened, completed, lost))
    print(
        f"engine's peak beside the weights: {peak / MIB:.0f} MiB; its bound: {space.memory / MIB:.0f} MiB", flush=True
    )
    decode_figures(chat, work, space, args)


def line(stage: str, reference: Measured, engine: Measured) -> None:
    ratio = reference.seconds / engine.seconds
    print(f"{stage:<28}{reference.seconds:>12.2f}{engine.seconds:>10.2f}{ratio:>8.1f}", end="")
    print(f"{reference.peak / MIB:>15.0f}{engine.peak / MIB:>12.0f}", flush=True)


def total(*parts: Measured) -> Measured:
    return Measured(None, sum(one.seconds for one in parts), max(one.peak for one in parts))


# The model and the work.


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
        stream=find_stream(model),
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


def warm_up(chat: ChatModel, work: Work) -> None:
    """Everything once: threads, kernels and libraries are there before the first item is measured."""
    little, space = small(work), Room(8)
    engine_sweep(chat, little, space)
    engine_completions(chat, little, space)
    engine_losses(chat, little, space)
    reference_sweep(chat, little, list(little.candidates), reference_logits(chat, little.harmless))
    reference_completions(chat, little)
    reference_losses(chat, little)


# The engine.


def engine_sweep(chat: ChatModel, work: Work, space: Room) -> dict[str, dict]:
    """Every score of every candidate: kind -> candidate -> score."""
    found: dict[str, dict] = {"induce": {}, "kl": {}, "bypass": {}}
    induce(chat, work.candidates, work.harmless, space, found["induce"].__setitem__)
    divergence(chat, work.candidates, work.harmless, space, found["kl"].__setitem__)
    bypass(chat, work.candidates, work.harmful, space, found["bypass"].__setitem__)
    return found


def engine_screened(chat: ChatModel, work: Work, space: Room) -> dict[str, dict]:
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


def engine_completions(chat: ChatModel, work: Work, space: Room) -> dict[str, list[list[int]]]:
    found = {}

    def done(name, rows):
        found[name] = [row.tokens for row in rows]

    complete(chat, work.prompts, work.interventions, work.new_tokens, space, done)
    return found


def engine_losses(chat: ChatModel, work: Work, space: Room) -> dict[str, float]:
    """Nats per token."""
    found = {}

    def done(name, nats, count):
        found[name] = nats / count

    losses(chat, work.sequences, work.interventions, space, done)
    return found


# The reference.


@contextmanager
def hooked(chat: ChatModel, directions: np.ndarray) -> Iterator[None]:
    """Within the block, the outputs of embedding, attentions and mlps lose one direction after another."""
    units = torch.from_numpy(directions).to(chat.device, chat.model.dtype)

    def hook(_module, _args, output):
        x = output[0] if isinstance(output, tuple) else output
        for unit in units:
            x = x - (x @ unit)[..., None] * unit
        return (x, *output[1:]) if isinstance(output, tuple) else x

    inner = chat.model.model
    with ExitStack() as hooks:
        for module in (inner.embed_tokens, *(part for layer in inner.layers for part in (layer.self_attn, layer.mlp))):
            hooks.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def steered(chat: ChatModel, vector: np.ndarray, layer: int) -> Iterator[None]:
    """Within the block, a vector is added to what enters a layer."""
    added = torch.from_numpy(vector).to(chat.device, chat.model.dtype)

    def hook(_module, args, kwargs):
        if args:
            return (args[0] + added, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] + added}

    handle = chat.model.model.layers[layer].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def reference_batches(chat: ChatModel, rows: Sequence[list[int]]) -> Iterator[dict[str, torch.Tensor]]:
    """Eight rows at a time, padded at the left."""
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        width = max(map(len, part))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in part])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in part])
        yield {"input_ids": ids.to(chat.device), "attention_mask": mask.to(chat.device)}


@torch.no_grad()
def reference_logits(chat: ChatModel, prompts: Sequence[list[int]]) -> torch.Tensor:
    """[prompt, vocab] fp64, after each prompt."""
    return torch.cat([chat.model(**part).logits[:, -1].double() for part in reference_batches(chat, prompts)])


def reference_score(logits: torch.Tensor) -> float:
    p = logits.softmax(-1)[:, list(REFUSAL)].sum(-1)
    return float((p.log() - (1 - p).log()).mean())


def reference_kl(baseline: torch.Tensor, logits: torch.Tensor) -> float:
    p, q = baseline.softmax(-1), logits.softmax(-1)
    return float((p * (p.log() - q.log())).sum(-1).mean())


def reference_sweep(
    chat: ChatModel, work: Work, names: Sequence, baseline: torch.Tensor
) -> dict[Any, dict[str, float]]:
    """Candidate -> its scores; three full passes each."""
    found = {}
    for name in names:
        direction, layer = work.candidates[name]
        unit = (direction / np.linalg.norm(direction))[None]
        with hooked(chat, unit):
            score = reference_score(reference_logits(chat, work.harmful))
        with hooked(chat, unit):
            gap = reference_kl(baseline, reference_logits(chat, work.harmless))
        with steered(chat, direction, layer):
            added = reference_score(reference_logits(chat, work.harmless))
        found[name] = {"bypass": score, "kl": gap, "induce": added}
    return found


def reference_sweep_scaled(run: Callable, chat: ChatModel, work: Work, asked: Sequence) -> tuple[Measured, str]:
    """The sweep of these candidates, its seconds scaled to all, and what the table says of that."""
    baseline = run(reference_logits, chat, work.harmless)
    some = run(reference_sweep, chat, work, asked, baseline.result)
    seconds = baseline.seconds + some.seconds * len(work.candidates) / len(asked)
    note = f" ({len(asked)}/{len(work.candidates)})" if len(asked) < len(work.candidates) else ""
    return Measured(some.result, seconds, some.peak), note


@torch.no_grad()
def reference_completions(chat: ChatModel, work: Work) -> dict[str, list[list[int]]]:
    found = {}
    for name, one in work.interventions.items():
        with hooked(chat, one.read):
            found[name] = [
                row
                for part in reference_batches(chat, work.prompts)
                for row in chat.model.generate(**part, do_sample=False, max_new_tokens=work.new_tokens, pad_token_id=0)[
                    :, part["input_ids"].shape[1] :
                ].tolist()
            ]
    return found


@torch.no_grad()
def reference_losses(chat: ChatModel, work: Work) -> dict[str, float]:
    """Nats per token; all sequences have one length and are predicted from their second token on."""
    found = {}
    for name, one in work.interventions.items():
        with hooked(chat, one.read):
            nats = 0.0
            for part in reference_batches(chat, [sequence.tokens for sequence in work.sequences]):
                predicted = chat.model(**part).logits[:, :-1].float().log_softmax(-1)
                nats -= float(predicted.gather(-1, part["input_ids"][:, 1:, None]).double().sum())
        found[name] = nats / sum(len(sequence.tokens) - 1 for sequence in work.sequences)
    return found


# Time and memory.


def measured(function: Callable, arguments: Sequence, device: torch.device, held: int, repeats: int) -> Measured:
    """The least seconds and the highest peak of some calls."""
    seconds, peaks, result = [], [], None
    for _ in range(repeats):
        give_back()
        with sampled(device) as seen:
            started = clock(device)
            result = function(*arguments)
            seconds.append(clock(device) - started)
        peaks.append(max(seen) - held)
    return Measured(result, min(seconds), max(peaks))


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def memory_held(device: torch.device) -> int:
    """Bytes that are held now: allocated on the GPU, resident on a processor."""
    give_back()
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def give_back() -> None:
    """Return freed memory, which the allocators would keep, so that a peak is of one item alone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


@contextmanager
def sampled(device: torch.device) -> Iterator[list[int]]:
    """Yield a list of bytes held within the block, the highest among them."""
    seen: list[int] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield seen
        seen.append(torch.cuda.max_memory_allocated(device))
        return
    over, process = threading.Event(), psutil.Process()

    def look():
        seen.append(process.memory_info().rss)
        while not over.wait(0.02):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()
        seen.append(process.memory_info().rss)


@contextmanager
def paced(model: torch.nn.Module, device: torch.device) -> Iterator[list[tuple[int, int, float]]]:
    """Yield a list to which each forward pass adds its rows, its tokens, and when it began."""
    begun: list[tuple[int, int, float]] = []

    def note(_module, _args, kwargs):
        begun.append((*kwargs["input_ids"].shape, clock(device)))

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield begun
    finally:
        handle.remove()


def step_seconds(chat: ChatModel, decode: Callable, repeats: int, rows: int) -> float:
    """Mean seconds from the beginning of one decoding step of `rows` rows to that of the next; the least of repeats."""
    means = []
    for _ in range(repeats):
        with paced(chat.model, chat.device) as begun:
            decode()
        steps = [later[2] - one[2] for one, later in itertools.pairwise(begun) if one[:2] == later[:2] == (rows, 1)]
        means.append(np.mean(steps))
    return min(means)


# Figures of decoding.


def decode_figures(chat: ChatModel, work: Work, space: Room, args: argparse.Namespace) -> None:
    """Print tokens a second, what hooks cost, what more combinations cost, and how near the machine's limits are."""
    needs = footprint(chat)
    wanted = len(work.interventions) * len(work.prompts)
    fitting = space.fitting([needs.decoded(max(map(len, work.prompts)), work.new_tokens)] * wanted)
    prompts = work.prompts[:fitting]
    count = fitting // len(prompts)
    rows = count * len(prompts)
    ablated = replace(work, prompts=prompts, interventions=combinations(chat, count, args.seed, sizes=[2]))
    clean = replace(ablated, interventions=dict.fromkeys(ablated.interventions, none(chat.width)))
    eight = replace(small(ablated), prompts=work.prompts[:BATCH], new_tokens=work.new_tokens)
    hooks = step_seconds(chat, lambda: engine_completions(chat, ablated, space), args.repeats, rows)
    bare = step_seconds(chat, lambda: engine_completions(chat, clean, space), args.repeats, rows)
    plain = step_seconds(chat, lambda: reference_completions(chat, eight), args.repeats, len(eight.prompts))
    print(f"decode: engine {rows / hooks:.0f} tokens/s ({rows} rows, {hooks * 1e3:.1f} ms a step)", end="")
    print(f", reference {len(eight.prompts) / plain:.0f} tokens/s ({len(eight.prompts)} rows, {plain * 1e3:.1f} ms)")
    print(f"hooks (k = 2): {hooks / bare:.3f} x the step without an intervention ({bare * 1e3:.1f} ms)", flush=True)

    def completed(number):
        some = replace(work, interventions=combinations(chat, number, args.seed))
        return measured(engine_completions, (chat, some, space), chat.device, 0, args.repeats).seconds

    one, sixteen = completed(1), completed(16)
    print(f"16 combinations / 1: {sixteen / one:.2f} ({sixteen:.2f} s / {one:.2f} s)", flush=True)

    weights = step_weights(chat)
    held = rows * (np.mean([len(ids) for ids in prompts]) + work.new_tokens / 2) * needs.per_token
    moved = weights * chat.model.dtype.itemsize + held
    bandwidth, rate = read_bandwidth(chat.device), product_rate(chat, rows)
    print(f"limit of memory: {moved / 1e6:.0f} MB a step at {bandwidth / 1e9:.1f} GB/s: ", end="")
    print(f"{moved / bandwidth * 1e3:.1f} ms, {moved / bandwidth / hooks:.1%} of the step")
    operations = 2 * rows * weights
    print(f"limit of products: {operations / 1e9:.1f} GFLOP a step at {rate / 1e9:.0f} GFLOP/s: ", end="")
    print(f"{operations / rate * 1e3:.1f} ms, {operations / rate / hooks:.1%} of the step", flush=True)


def step_weights(chat: ChatModel) -> int:
    """Weights that one step reads and multiplies by: those of linear layers, the head among them."""
    return sum(module.weight.numel() for module in chat.model.modules() if isinstance(module, torch.nn.Linear))


def read_bandwidth(device: torch.device) -> float:
    """Bytes a second of a sum over 1 GiB."""
    large = torch.ones(2**28, dtype=torch.float32, device=device)
    return large.nbytes / best_seconds(large.sum, device)


def product_rate(chat: ChatModel, rows: int) -> float:
    """Operations a second of a matrix product of so many rows with weights of hidden x intermediate size."""
    inner = chat.model.config.intermediate_size
    kind = {"dtype": chat.model.dtype, "device": chat.device}
    x, weight = torch.ones(rows, chat.width, **kind), torch.ones(inner, chat.width, **kind)
    seconds = best_seconds(lambda: torch.nn.functional.linear(x, weight), chat.device)
    return 2 * rows * chat.width * inner / seconds


def best_seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a call, the least of a few means over many."""
    function()
    started = clock(device)
    function()
    count = max(1, math.ceil(0.1 / (clock(device) - started)))
    means = []
    for _ in range(5):
        started = clock(device)
        for _ in range(count):
            function()
        means.append((clock(device) - started) / count)
    return min(means)


# Growth.


def growth(args: argparse.Namespace, device: torch.device) -> None:
    """Write, and with --plot draw, the engine's time for completions as combinations and as prompts grow."""
    table = []
    for size in args.size or ["tiny"]:
        original = LlamaForCausalLM.__init__
        with mock.patch.object(LlamaForCausalLM, "__init__", autospec=True, side_effect=original) as loaded:
            chat = build(size, args, device)
            space = room(chat, rows=512, mib=args.memory_mib)
            warm_up(chat, build_work(chat, args))
            points = [("combinations", count, args.prompts) for count in (1, 4, 16, 64)]
            points += [("prompts", 1, count) for count in (8, 64, 512)]
            for grown, count, prompts in points:
                work = build_work(chat, argparse.Namespace(**vars(args) | {"combinations": count, "prompts": prompts}))
                seconds = measured(engine_completions, (chat, work, space), device, 0, args.repeats).seconds
                rows = count * prompts
                print(f"{size}: {count} combinations x {prompts} prompts: {seconds:.2f} s", flush=True)
                table.append(
                    {"size": size, "grown": grown, "combinations": count, "prompts": prompts, "rows": rows}
                    | {"seconds": f"{seconds:.4f}", "seconds_per_row": f"{seconds / rows:.6f}"}
                )
        for row in table:
            row.setdefault("model_loads", loaded.call_count)
    with args.growth.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    if args.plot:
        plot(table, args.plot)


def plot(table: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for axis, grown in zip(axes, ("combinations", "prompts"), strict=True):
        for size in dict.fromkeys(row["size"] for row in table):
            part = [row for row in table if row["size"] == size and row["grown"] == grown]
            rows, seconds = [row["rows"] for row in part], [float(row["seconds"]) for row in part]
            (drawn,) = axis.loglog(rows, seconds, marker="o", label=f"engine, {size}")
            linear = [seconds[0] * count / rows[0] for count in rows]
            axis.loglog(rows, linear, linestyle="--", color=drawn.get_color(), alpha=0.6, label="linear in rows")
        ticks = sorted({row["rows"] for row in table if row["grown"] == grown})
        axis.set_xticks(ticks, [str(one) for one in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    fixed = next(row["prompts"] for row in table if row["grown"] == "combinations")
    axes[0].set(
        title="more combinations", xlabel=f"rows: combinations x {fixed} prompts", ylabel="time of completions, s"
    )
    axes[1].set(title="more prompts", xlabel="rows: prompts, one combination")
    axes[0].legend()
    figure.savefig(path)


def machine(device: torch.device) -> str:
    """Where and with what this ran."""
    info = Path("/proc/cpuinfo")
    names = [part.split(":")[1].strip() for part in info.read_text().splitlines() if part.startswith("model name")]
    processor = names[0] if info.exists() and names else platform.processor() or platform.machine()
    where = f"{processor}, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}; {where}"
    return f"\n{where}; torch {torch.__version__}"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--size", nargs="+", choices=SIZES, help="tiny 135M; on a GPU 1B 8B; with --growth tiny")
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
    made.add_argument("--reference-candidates", type=int, default=0, help="measured by the reference; 0: all")
    made.add_argument("--sequences", type=int, default=16, help="of the loss")
    made.add_argument("--sequence-tokens", type=int, default=64)
    made.add_argument("--growth", type=Path, help="write this CSV, and compare nothing")
    made.add_argument("--plot", type=Path, help="draw what --growth found; needs matplotlib")
    return made


def checked(made: argparse.ArgumentParser) -> argparse.Namespace:
    args = made.parse_args()
    if "8B" in (args.size or []) and (args.processor or not torch.cuda.is_available()):
        made.error("8B needs a GPU")
    if args.plot and not args.growth:
        made.error("--plot draws what --growth measures")
    return args


if __name__ == "__main__":
    main(checked(parser()))
