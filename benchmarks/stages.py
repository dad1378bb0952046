"""Time and peak memory of each stage of the demo, from nothing: a fresh copy of this checkout, organism included.

    python benchmarks/stages.py [--cores N] [--keep FOLDER]

Prints a table in the order in which stages ran, then a second run, which has nothing to do.
"""

import argparse
import csv
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = "results/tiny/summary.csv"


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        copy_tracked(folder)
        first, second = (timed(folder, args.cores) for _ in range(2))
        print(f"{platform.processor() or platform.machine()}, {args.cores} of {os.cpu_count()} cores")
        print(f"{'stage':<24}{'seconds':>9}{'peak MB':>9}{'mean load %':>13}")
        for stage, row in stages(folder):
            print(f"{stage:<24}{float(row['s']):>9.1f}{number(row['max_rss']):>9.0f}{number(row['mean_load']):>13.0f}")
        print(f"{'all, snakemake included':<24}{first:>9.1f}")
        print(f"{'second run':<24}{second:>9.1f}")


def copy_tracked(folder: Path) -> None:
    """The tracked files as they are in the work tree, with nothing built."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())


def timed(folder: Path, cores: int) -> float:
    """Seconds that snakemake takes to make the demo's table."""
    command = [Path(sys.executable).parent / "snakemake", "--cores", str(cores), TARGET]
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def stages(folder: Path) -> list[tuple[str, dict[str, str]]]:
    """(stage, snakemake's benchmark row), in the order in which they ended."""
    files = sorted((folder / "logs" / "tiny").glob("*.tsv"), key=lambda path: path.stat().st_mtime)
    return [(path.stem, next(csv.DictReader(path.open(), delimiter="\t"))) for path in files]


def number(text: str) -> float:
    """Snakemake writes `-` or `NA` for a job too short to be sampled."""
    return float(text) if text not in ("-", "NA") else float("nan")


if __name__ == "__main__":
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--cores", type=int, default=os.cpu_count(), help="processor cores for snakemake")
    made.add_argument("--keep", type=Path, help="work in this folder and leave it")
    main(made.parse_args())
