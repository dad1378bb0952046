"""What a device does at best: products of the sizes that a model has, and reading of memory."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from refusal.estimate import Gauge, Shapes

_MIB = 2**20
_PASS_ROWS = {"cuda": 8192, "cpu": 1024}
"""Tokens of a wide pass, about as many as batches have (refusal.model.memory)."""


def gauged(shapes: Shapes, dtype: str, rows: int) -> Gauge:
    """The rates of the device that a study would run on, in some seconds.

    rows: of a batch that decodes.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    kind = {"dtype": getattr(torch, dtype), "device": device}
    return Gauge(
        device=f"{device.type} ({name}, {dtype})",
        wide=product_rate(shapes.width, shapes.inner, _PASS_ROWS[device.type], **kind),
        narrow=product_rate(shapes.width, shapes.inner, rows, **kind),
        bandwidth=read_bandwidth(device),
    )


def product_rate(width: int, inner: int, rows: int, dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of products of so many rows with weights [inner, width].

    One after another of as many weights as no cache holds: a decoding step finds none of its own there either.
    """
    kind = {"dtype": dtype, "device": device}
    count = max(1, int(64 * _MIB / (inner * width * dtype.itemsize)))
    x, weights = torch.ones(rows, width, **kind), torch.ones(count, inner, width, **kind)
    seconds = best_seconds(lambda: [torch.nn.functional.linear(x, weight) for weight in weights], device)
    return 2 * rows * width * inner * count / seconds


def read_bandwidth(device: torch.device) -> float:
    """Bytes a second of a sum over 1 GiB."""
    large = torch.ones(2**28, dtype=torch.float32, device=device)
    return large.nbytes / best_seconds(large.sum, device)


def best_seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a call, the least of a few means over many; of a call that takes a second, of two."""
    function()
    started = clock(device)
    function()
    count = max(1, math.ceil(0.1 / (clock(device) - started)))
    means: list[float] = []
    while len(means) < 5 and count * sum(means) < 1:
        started = clock(device)
        for _ in range(count):
            function()
        means.append((clock(device) - started) / count)
    return min(means)


def clock(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
