"""Ways to take each row's own basis out of a batch, at one token a row as in decoding: microseconds a call.

    python benchmarks/projection.py [--threads N]

Two batched products are what the engine does. Elementwise products need no library; the masked product multiplies with
the bases of all rows and keeps each row's own; beside them a linear layer of the same width, for scale.
"""

import argparse

import torch
from gauges import machine

from refusal.model.gauge import best_seconds

SHAPES = [(120, 128, 2), (120, 576, 2), (120, 2048, 2), (512, 576, 3)]
"""Rows, width, directions a row."""
BASES = 16
"""Different ones in the batch."""


def main(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device("cpu")
    print(f"{'rows, width, k':<20}{'two products':>14}{'elementwise':>14}{'masked':>14}{'linear':>14}")
    for rows, width, k in SHAPES:
        calls = ways(rows, width, k)
        first, *others = (call() for call in calls[:3])
        for other in others:
            torch.testing.assert_close(first, other, rtol=0, atol=1e-4)
        times = "".join(f"{best_seconds(call, device) * 1e6:>14.0f}" for call in calls)
        print(f"{rows}, {width}, {k}".ljust(20) + times, flush=True)
    print(machine(device))


def ways(rows: int, width: int, k: int) -> list:
    """The calls in the order of the table's columns."""
    torch.manual_seed(0)
    x, weight = torch.randn(rows, 1, width), torch.randn(width, width)
    distinct = torch.linalg.qr(torch.randn(BASES, width, k))[0].transpose(1, 2).contiguous()
    which = torch.arange(rows) * BASES // rows
    own, every = distinct[which].contiguous(), distinct.reshape(BASES * k, width)
    mask = (torch.arange(BASES * k)[None] // k == which[:, None]).float()[:, None]

    def products():
        return torch.baddbmm(x, torch.bmm(x, own.transpose(1, 2)), own, alpha=-1)

    def elementwise():
        return x - ((x * own).sum(-1, keepdim=True) * own).sum(1, keepdim=True)

    def masked():
        return x - (x @ every.T * mask) @ every

    return [products, elementwise, masked, lambda: torch.nn.functional.linear(x, weight)]


if __name__ == "__main__":
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--threads", type=int, help="processor threads; all of them when left out")
    main(made.parse_args())
