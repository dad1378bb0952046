"""Time until snakemake knows what to do: a dry run of studies that were never run, 31 combinations each.

    python benchmarks/dag.py [--models 1 10 100] [--repeats 3] [--profile FILE]

The combinations are all non-empty subsets of 5 ranks, the models copies of one file. Nothing else may run beside it.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path

import yaml
from stages import copy_tracked

RANKS = 5


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_tracked(folder)
        lay_out(folder, max(args.models))
        print(f"{'models':>8}{'jobs':>8}{'seconds':>10}")
        for count in args.models:
            targets = [f"results/m{number}/summary.csv" for number in range(count)]
            jobs = number_of_jobs(dry_run(folder, targets, "host", "rules", "reason"))
            seconds = min(timed(folder, targets) for _ in range(args.repeats))
            print(f"{count:>8}{jobs:>8}{seconds:>10.1f}", flush=True)
        if args.profile:
            dry_run(folder, targets, "all", profiler=["-m", "cProfile", "-o", str(args.profile.resolve())])
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")


def lay_out(folder: Path, models: int) -> None:
    """The study with all subsets of the ranks, and copies of the planted model."""
    path = folder / "config" / "config.yaml"
    study = yaml.safe_load(path.read_text())
    study["combinations"] = [
        "-".join(map(str, ranks)) for size in range(1, RANKS + 1) for ranks in combinations(range(RANKS), size)
    ]
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    model = (folder / "config" / "models" / "tiny.yaml").read_text()
    for number in range(models):
        (folder / "config" / "models" / f"m{number}.yaml").write_text(model)


def dry_run(folder: Path, targets: list[str], *quiet: str, profiler: list[str] | None = None) -> str:
    """What snakemake -n says."""
    snakemake = str(Path(sys.executable).parent / "snakemake")
    command = [sys.executable, *(profiler or []), snakemake, "-n", "--quiet", *quiet, "--", *targets]
    return subprocess.run(
        command, cwd=folder, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ).stdout


def timed(folder: Path, targets: list[str]) -> float:
    started = time.perf_counter()
    dry_run(folder, targets, "all")
    return time.perf_counter() - started


def number_of_jobs(said: str) -> int:
    return next(int(line.split()[1]) for line in said.splitlines() if line.startswith("total "))


if __name__ == "__main__":
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--models", type=int, nargs="+", default=[1, 10, 100])
    made.add_argument("--repeats", type=int, default=3, help="the best of so many counts")
    made.add_argument("--profile", type=Path, help="write a profile of the last one here, for pstats")
    main(made.parse_args())
