"""Cost of the engine's completions as combinations and prompts grow.

    python benchmarks/growth.py growth.csv [--plot growth.svg] [--size tiny 135M]

Writes rows, seconds and the number of model loads; near linear in rows, one load. Nothing else may run beside it.
"""

import argparse
import csv
from pathlib import Path
from unittest import mock

import engine
import torch
from gauges import machine, measured
from transformers import LlamaForCausalLM
from workload import SIZES, build, build_work, device_of, flags

from refusal.model.memory import room


def growth(args: argparse.Namespace, device: torch.device) -> None:
    """Write, and with --plot draw, the engine's time for completions as combinations and as prompts grow."""
    table = []
    for size in args.size:
        original = LlamaForCausalLM.__init__
        with mock.patch.object(LlamaForCausalLM, "__init__", autospec=True, side_effect=original) as loaded:
            chat = build(size, args, device)
            space = room(chat, rows=512, mib=args.memory_mib)
            engine.warm_up(chat, build_work(chat, args))
            points = [("combinations", count, args.prompts) for count in (1, 4, 16, 64)]
            points += [("prompts", 1, count) for count in (8, 64, 512)]
            for grown, count, prompts in points:
                work = build_work(chat, argparse.Namespace(**vars(args) | {"combinations": count, "prompts": prompts}))
                seconds = measured(engine.completions, (chat, work, space), device, 0, args.repeats).seconds
                rows = count * prompts
                print(f"{size}: {count} combinations x {prompts} prompts: {seconds:.2f} s", flush=True)
                table.append(
                    {"size": size, "grown": grown, "combinations": count, "prompts": prompts, "rows": rows}
                    | {"seconds": f"{seconds:.4f}", "seconds_per_row": f"{seconds / rows:.6f}"}
                )
        for row in table:
            row.setdefault("model_loads", loaded.call_count)
    with args.table.open("w", newline="") as file:
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


if __name__ == "__main__":
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[flags()]
    )
    made.add_argument("table", type=Path, help="CSV to write")
    made.add_argument("--plot", type=Path, help="SVG to draw")
    made.add_argument("--size", nargs="+", choices=SIZES, default=["tiny"])
    chosen = made.parse_args()
    growth(chosen, device_of(chosen))
    print(machine(device_of(chosen)))
