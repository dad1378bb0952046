"""Expected times of a study beside what its stages took, in seconds of one processor core.

    python benchmarks/expected.py NAME

Run where the study was finished (results/NAME, logs/NAME). Both sides are processor time, so that a machine that others
use too spoils neither: of the stages, what Snakemake noted (logs/NAME/STAGE.tsv); of the gauge, this process's own.
"""

import argparse
import csv
import time
from pathlib import Path

import torch

from refusal import estimate
from refusal.artifacts import read_json
from refusal.checking import read_yaml
from refusal.doctor import TRAINED_HERE, folder_of
from refusal.model import gauge
from refusal.study import combination_ids, read_study


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    gauge.clock = lambda device: time.process_time()
    config = read_yaml(Path("config/config.yaml"))
    study, names = read_study(config, args.name, Path()), combination_ids(config)
    folder, positions = folder_of(study), len(read_json(Path("results", args.name, "model.json"))["positions"])
    sizes = estimate.shapes(read_json(folder / "config.json"), str(folder), estimate.counted_parameters(folder))
    dtype = study.model["dtype"]
    rates = gauge.gauged(sizes, dtype, study.settings["run"]["batch_rows"])
    whole, sum_taken = [], 0.0
    print(f"{'stage':<24}{'at least':>10}{'about':>10}{'at most':>10}{'took':>10}")
    for work in estimate.works(study, names, sizes, positions, study.model["source"] in TRAINED_HERE):
        span, took = estimate.seconds(work, sizes, dtype, rates), taken(args.name, work.stage)
        whole, sum_taken = [*whole, span], sum_taken + took
        row(work.stage, estimate.together([span]), took)
    row("all", estimate.together(whole), sum_taken)
    print(f"{rates.device}: {rates.wide / 1e9:.0f} and {rates.narrow / 1e9:.0f} GFLOP/s")


def row(stage: str, expected: tuple[float, float, float], took: float) -> None:
    print(f"{stage:<24}" + "".join(f"{part:>10.1f}" for part in (*expected, took)))


def taken(name: str, stage: str) -> float:
    """Seconds of processor time of a stage, as Snakemake noted."""
    with Path("logs", name, f"{stage}.tsv").open() as opened:
        return float(next(csv.DictReader(opened, delimiter="\t"))["cpu_time"])


if __name__ == "__main__":
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("name", help="of a finished study in results/")
    main(made.parse_args())
