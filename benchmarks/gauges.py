"""Time, memory, and what the machine could do at best."""

import ctypes
import gc
import itertools
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from refusal.model.gauge import clock
from refusal.model.loading import ChatModel

MIB = 2**20


@dataclass(frozen=True)
class Measured:
    """What a call returned, its seconds, and its peak memory in bytes beside what was held before."""

    result: Any
    seconds: float
    peak: int


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


def operations(function: Callable, count: int = 6) -> list[tuple[str, float]]:
    """The operations that take most of a call on a processor, with their share of its time."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        function()
    rows = sorted(seen.key_averages(), key=lambda row: row.self_cpu_time_total, reverse=True)
    whole = sum(row.self_cpu_time_total for row in rows)
    return [(row.key.removeprefix("aten::"), row.self_cpu_time_total / whole) for row in rows[:count]]


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


def step_weights(chat: ChatModel) -> int:
    """Weights that one step reads and multiplies by: those of linear layers, the head among them."""
    return sum(module.weight.numel() for module in chat.model.modules() if isinstance(module, torch.nn.Linear))


def machine(device: torch.device) -> str:
    """Where and with what this ran."""
    info = Path("/proc/cpuinfo")
    names = [part.split(":")[1].strip() for part in info.read_text().splitlines() if part.startswith("model name")]
    processor = names[0] if info.exists() and names else platform.processor() or platform.machine()
    where = f"{processor}, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}; {where}"
    return f"\n{where}; torch {torch.__version__}"
