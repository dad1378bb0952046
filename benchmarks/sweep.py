"""Sweep, completions and loss of the engine beside a plain reference, on random Llamas of real shapes, in one run.

    python benchmarks/sweep.py [--size tiny 135M 1B 8B] [--memory-mib N] [--layers-swept N] [--reference-candidates N]

Nothing else may run beside it: on a processor a single busy thread of another process costs many times its share.

The weights are random, so scores mean nothing and no threshold would. The screened sweep leaves a typical share: the
first 0.8 of the layers get induce, the best 15 % of those (`--passing`) get kl, and all of these get bypass. The
reference has no screened sweep: its time is that of the full one. With `--reference-candidates` it is measured on that
many candidates, evenly spread, and scaled; the printed line says so.

Peak memory is beside what the process holds once the model is loaded and has run once.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import engine
import numpy as np
import psutil
import reference
import torch
from gauges import (
    MIB,
    Measured,
    machine,
    measured,
    memory_held,
    operations,
    step_seconds,
    step_weights,
)
from workload import SIZES, Work, build, build_work, combinations, device_of, flags, small, spread_out

from refusal.model.batching import Room
from refusal.model.gauge import product_rate, read_bandwidth
from refusal.model.interventions import none
from refusal.model.loading import ChatModel
from refusal.model.memory import footprint, room


def main(args: argparse.Namespace) -> None:
    device = device_of(args)
    others = psutil.cpu_percent(1.0) * os.cpu_count()  # of everything; this process sleeps meanwhile
    for size in args.size or (["1B", "8B"] if device.type == "cuda" else ["tiny", "135M"]):
        compare(size, args, device)
    print(machine(device))
    print(f"other processes at the start: {others:.0f} % of a core")


def compare(size: str, args: argparse.Namespace, device: torch.device) -> None:
    """Print the table and the figures of one size."""
    chat = build(size, args, device)
    work = build_work(chat, args)
    engine.warm_up(chat, work)
    held = memory_held(device)
    space = room(chat, rows=512, mib=args.memory_mib)
    parameters = sum(one.numel() for one in chat.model.parameters())
    print(f"\n{size}: {parameters / 1e6:.1f} M parameters, {str(chat.model.dtype).removeprefix('torch.')}, ", end="")
    print(f"{len(work.candidates)} candidates, {len(work.interventions)} combinations x {len(work.prompts)} prompts")
    print(f"{'':<28}{'reference s':>12}{'engine s':>10}{'ratio':>8}{'reference MiB':>15}{'engine MiB':>12}", flush=True)

    def run(function: Callable, *arguments: Any) -> Measured:
        return measured(function, arguments, device, held, args.repeats)

    full, screened = run(engine.sweep, chat, work, space), run(engine.screened, chat, work, space)
    asked = spread_out(list(work.candidates), args.reference_candidates)
    plain, scaled = reference_sweep(run, chat, work, asked)
    line(f"sweep full{scaled}", plain, full)
    line(f"sweep screened{scaled}", plain, screened)
    completed, plain_completed = run(engine.completions, chat, work, space), run(reference.completions, chat, work)
    line("completions", plain_completed, completed)
    lost, plain_lost = run(engine.losses, chat, work, space), run(reference.losses, chat, work)
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
    if args.profile:
        for stage, function in {"sweep screened": engine.screened, "completions": engine.completions}.items():
            shares = operations(lambda function=function: function(chat, work, space))
            print(f"{stage}: " + ", ".join(f"{name} {share:.0%}" for name, share in shares), flush=True)


def line(stage: str, reference: Measured, engine: Measured) -> None:
    ratio = reference.seconds / engine.seconds
    print(f"{stage:<28}{reference.seconds:>12.2f}{engine.seconds:>10.2f}{ratio:>8.1f}", end="")
    print(f"{reference.peak / MIB:>15.0f}{engine.peak / MIB:>12.0f}", flush=True)


def total(*parts: Measured) -> Measured:
    return Measured(None, sum(one.seconds for one in parts), max(one.peak for one in parts))


def reference_sweep(run: Callable, chat: ChatModel, work: Work, asked: Sequence) -> tuple[Measured, str]:
    """The sweep of these candidates, its seconds scaled to all, and what the table says of that."""
    baseline = run(reference.logits, chat, work.harmless)
    some = run(reference.sweep, chat, work, asked, baseline.result)
    seconds = baseline.seconds + some.seconds * len(work.candidates) / len(asked)
    note = f" ({len(asked)}/{len(work.candidates)})" if len(asked) < len(work.candidates) else ""
    return Measured(some.result, seconds, some.peak), note


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
    eight = replace(small(ablated), prompts=work.prompts[: reference.BATCH], new_tokens=work.new_tokens)
    hooks = step_seconds(chat, lambda: engine.completions(chat, ablated, space), args.repeats, rows)
    bare = step_seconds(chat, lambda: engine.completions(chat, clean, space), args.repeats, rows)
    plain = step_seconds(chat, lambda: reference.completions(chat, eight), args.repeats, len(eight.prompts))
    print(f"decode: engine {rows / hooks:.0f} tokens/s ({rows} rows, {hooks * 1e3:.1f} ms a step)", end="")
    print(f", reference {len(eight.prompts) / plain:.0f} tokens/s ({len(eight.prompts)} rows, {plain * 1e3:.1f} ms)")
    print(f"hooks (k = 2): {hooks / bare:.3f} x the step without an intervention ({bare * 1e3:.1f} ms)", flush=True)

    def completed(number):
        some = replace(work, interventions=combinations(chat, number, args.seed))
        return measured(engine.completions, (chat, some, space), chat.device, 0, args.repeats).seconds

    one, sixteen = completed(1), completed(16)
    print(f"16 combinations / 1: {sixteen / one:.2f} ({sixteen:.2f} s / {one:.2f} s)", flush=True)

    weights = step_weights(chat)
    held = rows * (np.mean([len(ids) for ids in prompts]) + work.new_tokens / 2) * needs.per_token
    moved = weights * chat.model.dtype.itemsize + held
    inner = chat.model.config.intermediate_size
    bandwidth = read_bandwidth(chat.device)
    rate = product_rate(chat.width, inner, rows, chat.model.dtype, chat.device)
    print(f"limit of memory: {moved / 1e6:.0f} MB a step at {bandwidth / 1e9:.1f} GB/s: ", end="")
    print(f"{moved / bandwidth * 1e3:.1f} ms, {moved / bandwidth / hooks:.1%} of the step")
    operations = 2 * rows * weights
    print(f"limit of products: {operations / 1e9:.1f} GFLOP a step at {rate / 1e9:.0f} GFLOP/s: ", end="")
    print(f"{operations / rate * 1e3:.1f} ms, {operations / rate / hooks:.1%} of the step", flush=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[flags()]
    )
    made.add_argument("--size", nargs="+", choices=SIZES, help="tiny 135M; on a GPU 1B 8B")
    made.add_argument("--profile", action="store_true", help="also say which operations take the engine's time")
    made.add_argument("--reference-candidates", type=int, default=0, help="measured by the reference; 0: all")
    return made


if __name__ == "__main__":
    made = parser()
    args = made.parse_args()
    if "8B" in (args.size or []) and device_of(args).type != "cuda":
        made.error("8B needs a GPU")
    main(args)
