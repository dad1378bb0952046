"""What a study needs and what of it is here, and the time and cost of the study before it starts.

Every line is ok, warn (it runs, but look) or missing; the exit code is 1 if something is missing. Times are estimates:
from the study's counts, the model's sizes, and a gauge of this device that takes some seconds. docs/performance.md says
how far off they were. Values of secrets are never shown.
"""

import argparse
import os
import sys
from pathlib import Path

from refusal import cli, doctor, estimate, hub
from refusal.artifacts import read_json
from refusal.checking import read_yaml
from refusal.errors import UserError
from refusal.judges.base import Item
from refusal.judges.kinds import load_judge
from refusal.provenance import ROOT
from refusal.report.origins import times
from refusal.study import combination_ids, read_study

# This file's folder stands first on the path, and scripts there would hide packages of the same name.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

POSITIONS = 5
"""End-of-instruction tokens of most templates, where model.json does not say."""


def main(args):
    config = _config([file.resolve() for file in args.configfile], args.config)
    os.chdir(ROOT)  # what a study names, it names from here
    names = combination_ids(config)
    studies = [read_study(config, name) for name in args.model or config["models"]]
    cards = doctor.cards()
    usable = _usable(cards)
    found = [
        doctor.python(),
        doctor.packages(ROOT / "requirements.lock"),
        doctor.gpu(cards, usable, max(study.ask["gpus"] for study in studies)),
        doctor.slurm(ROOT / "profiles" / "slurm" / "partitions.yaml"),
    ]
    print(doctor.table(_lines(found)))
    cards = cards[:usable]
    for study in studies:
        listed, sizes, place = _model(config, study, args.network)
        rows = [doctor.prompts(study), place, *doctor.secrets(study, listed.gated if listed else None)]
        rows += _room(study, names, sizes, cards)
        rows += doctor.reachable(doctor.addresses(study)) if args.network else []
        print(f"\n{study.name}\n{doctor.table(_lines(rows))}")
        found += rows
        responses = f"{len(names)} combinations, {estimate.responses(study, names):,} responses"
        expected = _expected(study, names, sizes, cards) if sizes and args.times else []
        print("\n" + "\n".join([f"{responses}; from nothing:", *expected] if expected else [responses]))
        for line in _costs(study, names):
            print(line)
    if any(one.state == "missing" for one in found):
        sys.exit(1)


def _config(overlays, values):
    """config.yaml with overlays and single values, read and merged as Snakemake does."""
    config = read_yaml(ROOT / "config" / "config.yaml")
    if overlays or values:
        from snakemake.cli import parse_config  # a second to import
        from snakemake.utils import update_config

        try:
            over = parse_config(values)
        except ValueError as error:
            raise UserError(f"--config {' '.join(values)}: {error}") from None
        for changes in (*map(read_yaml, overlays), over):
            update_config(config, changes)
    return config


def _lines(found):
    return [(one.state, one.what, one.said) for one in found]


def _usable(cards):
    if not cards:
        return 0
    import torch

    return torch.cuda.device_count()


def _model(config, study, network):
    """What the hub lists, the model's sizes as far as they are known, and the line about its weights."""
    listed = None
    try:
        if network and study.model["source"] == "hub":
            listed = hub.listed(study.model["id"], study.model["revision"])
    except UserError as error:  # no such model, or revision
        return None, None, doctor.Found("weights", "missing", str(error))
    sizes, place = doctor.weights(study, listed, network)
    if _untrained(study):
        taught = study.model["source"] == "taught"
        sizes = _model(config, read_study(config, study.model["base"]), network)[1] if taught else _of_organism()
    return listed, sizes, place


def _untrained(study):
    trained = study.model["source"] in doctor.TRAINED_HERE
    return trained and not (doctor.folder_of(study) / "config.json").is_file()


def _of_organism():
    from organism.training import new_model

    return estimate.shapes(new_model(844, 0, 0).config.to_dict(), "organism")


def _room(study, names, sizes, cards):
    """Memory and disks."""
    if sizes:
        weights = sizes.weights(study.model["dtype"])
        yield doctor.memory(weights, sum(card.free for card in cards), _free_memory())
        if doctor.downloads(study.model):
            home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
            yield doctor.disk("disk of HF_HOME", home, weights)
    yield doctor.disk("disk", Path("results"), estimate.written_bytes(study, names))


def _free_memory():
    import psutil

    return psutil.virtual_memory().available


def _expected(study, names, sizes, cards):
    """Lines of the table of expected times."""
    described = Path("results", study.name, "model.json")
    positions = len(read_json(described)["positions"]) if described.is_file() else POSITIONS
    works = estimate.works(study, names, sizes, positions, _untrained(study))
    from refusal.model.gauge import gauged

    dtype = study.model["dtype"]
    memory = 0.9 * sum(card.free for card in cards) if cards else 0.25 * _free_memory()
    gauge = gauged(sizes, dtype, estimate.decoding_rows(study, names, sizes, dtype, memory))
    spans = {work.stage: estimate.seconds(work, sizes, dtype, gauge) for work in works} | {"the rest": estimate.AROUND}
    took = {one["job"]: doctor.duration(one["seconds"]) for one in times(Path("logs", study.name))}
    rows = [
        (stage, *map(doctor.duration, estimate.together([span])), took.get(stage, "")) for stage, span in spans.items()
    ]
    whole = [doctor.duration(part) for part in estimate.together(spans.values())]
    rows = [("expected", "at least", "about", "at most", "took last"), *rows, ("all", *whole, "")]
    rates = f"{gauge.wide / 1e9:,.0f} and {gauge.narrow / 1e9:,.0f} GFLOP/s, {gauge.bandwidth / 1e9:,.0f} GB/s"
    said = [doctor.table(rows), f"On {gauge.device}, at {rates} measured now."]
    return [*said, "Took last: with the settings that it had then."] if any(stage in took for stage in spans) else said


def _costs(study, names):
    """What asking judges costs, a line each."""
    count, most = estimate.responses(study, names), study.settings["completions"]["max_new_tokens"]
    for name, settings in study.judges.items():
        if settings["kind"] == "rubric":
            longest = "x" * (most * estimate.CHARACTERS_A_TOKEN)
            item = Item("x" * estimate.PUBLISHED_CHARACTERS, longest)
            yield f"judge {name}: {load_judge(settings).estimate([item] * count)}"
        elif settings["kind"] == "classifier":
            yield f"judge {name}: {count:,} responses to a model of its own ({settings['model']}); time not estimated"


def parser():
    made = cli.parser(__doc__)
    made.add_argument(
        "--model", nargs="+", default=[], help="names in config/models/; those of config.yaml when left out"
    )
    made.add_argument(
        "--configfile", type=Path, nargs="+", default=[], help="overlays of config.yaml, as for snakemake"
    )
    made.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="single values, as for snakemake")
    yes_or_no = {"action": argparse.BooleanOptionalAction, "default": True}
    made.add_argument("--network", **yes_or_no, help="ask the hub and other hosts, some seconds at most")
    made.add_argument("--times", **yes_or_no, help="gauge this device, and estimate times by it")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
