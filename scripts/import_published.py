"""Read a run of the published scripts (andyrdt/refusal_direction, pipeline/runs/MODEL) into files of this project.

Ranking, bases, judgements and summary then run on it without the model; workflow/published.smk does all of that. Of
`actadd`, what was done to harmless prompts is `add-0`, what was done to harmful ones and for the loss is `sub-0`.
Nothing in the .pt files is run. What the run lacks is said, and left empty.
"""

import math
from pathlib import Path

from refusal import cli
from refusal.artifacts import read_json, sha256, write_json, write_jsonl, write_table, write_tensors
from refusal.directions import ZERO
from refusal.filters import NAN
from refusal.provenance import sidecar, spec, stamp
from refusal.published import runs as published
from refusal.published.files import read_run

LABELS = {1: "compliance", 0: "refusal"}
"""What a published verdict is here: 1 is a jailbreak."""

_ZERO_SHARE = 1e-6


def main(args):
    run = read_run(args.run)
    harmful = published.harmful_set(run, args.harmful)
    directions, chosen = _tensors(run)
    published.check_directions(run, directions, chosen)
    filters, zero = published.thresholds(run), _zero(directions)
    # all of it was checked: from here on only the disk can fail
    made = spec("import_published", {"harmful": harmful}, run.files)
    written = []
    for path, write in _outputs(run, harmful, directions, zero, args.output_dir):
        write(path)
        stamp(path, made, run.files)
        written.append(path)
    _withdraw(args.output_dir, written)
    for line in published.missing(run, harmful):
        cli.log.info("%s", line)
    for place in (place for place in run.survivors or () if zero[place]):
        cli.log.info("left out: %s, which the run kept: its direction is zero", place)
    if filters != published.FILTERS:
        flags = " ".join(f"--{name.replace('_', '-')}={value}" for name, value in filters.items())
        cli.log.info("kept by other filters than the published ones: scripts/ranking.py needs %s", flags)
    cli.log.info("%s: %d candidates, chosen: %s; %d files", args.run, len(run.scores), run.choice, len(written))


def _tensors(run):
    from refusal.model.pickled import read_tensor

    chosen = read_tensor(run.files[published.DIRECTION], 1) if published.DIRECTION in run.files else None
    return read_tensor(run.folder / published.MEAN_DIFFS, 3), chosen


def _outputs(run, harmful, directions, zero, output):
    """(path, function that writes it), of all that a run gives."""
    count, layers, width = directions.shape
    positions = [{"position": row - count, "id": None, "token": None} for row in range(count)]
    identity = {"published": {name: sha256(path) for name, path in run.files.items()}}
    model = {
        "load": {"published": str(run.folder)},
        "identity": identity,
        "architecture": None,
        "layers": layers,
        "width": width,
        "positions": positions,
        "refusal_tokens": [],
    }
    facts = {"positions": positions, "identity": identity, "counts": None, "source": published.SOURCE}
    yield output / "model.json", lambda path: write_json(path, model)
    yield (
        output / "directions.safetensors",
        lambda path: write_tensors(path, {"directions": directions}, facts | {"zero": zero.tolist()}),
    )
    yield output / "candidate_scores.csv", lambda path: write_table(path, _table(run, zero))
    measured = published.by_combination(run, harmful)
    datasets = {"harmful": harmful, "harmless": published.HARMLESS}
    responses = {prompts: rows for one in reversed(measured.values()) for prompts, rows in one.responses.items()}
    for prompts, rows in responses.items():
        asked = [
            {"id": name, "category": row["category"], "instruction": row["prompt"]}
            for name, row in _named(datasets[prompts], rows)
        ]
        yield output / "prompts" / f"{prompts}_test.jsonl", lambda path, asked=asked: write_jsonl(path, asked)
    for name, one in measured.items():
        folder = output / "combinations" / name
        scores = _scores(run, name)
        yield folder / "scores.json", lambda path, scores=scores: write_json(path, scores)
        if one.losses:
            yield folder / "loss.json", lambda path, losses=one.losses: write_json(path, losses)
        for prompts, rows in one.responses.items():
            answered = [_completion(identifier, row) for identifier, row in _named(datasets[prompts], rows)]
            place = folder / "completions" / f"{prompts}.jsonl"
            yield place, lambda path, answered=answered: write_jsonl(path, answered)
            for methodology, values in one.verdicts[prompts].items():
                verdicts = [
                    _verdict(identifier, methodology, value)
                    for (identifier, _), value in zip(_named(datasets[prompts], rows), values, strict=True)
                ]
                place = folder / "judgements" / published.judge_of(methodology) / f"{prompts}.jsonl"
                yield place, lambda path, verdicts=verdicts: write_jsonl(path, verdicts)


def _zero(directions):
    """[position, layer] bool: where a direction has no length beside the others of its position.

    Elsewhere 1e-6 is of the mean activation, which a run does not hold; the position's longest direction stands in.
    Layer 0 at a template token is told by it all the same: rounding alone gives 1e-14, a real difference 0.1 or more.
    """
    import numpy as np

    lengths = np.linalg.norm(directions, axis=-1)
    # a position without any length has no direction at all
    return (lengths < _ZERO_SHARE * lengths.max(axis=1, keepdims=True)) | (lengths == 0)


def _table(run, zero):
    import pandas as pd

    rows = []
    for place, scores in run.scores.items():
        unknown = [name for name, value in scores.items() if math.isnan(value)]
        note = f"{NAN}: {', '.join(unknown)}" if unknown else ""
        if zero[place]:
            # whatever the run says of it is the score of rounding errors
            scores, note = dict.fromkeys(scores), ZERO
        rows.append({"source": published.SOURCE, **place._asdict(), **scores, "note": note})
    return pd.DataFrame(rows, columns=["source", "position", "layer", "bypass", "induce", "kl", "note"])


def _scores(run, name):
    """What a run says of a combination on val prompts; the candidate, since here its rank could be another's."""
    found = {"bypass": None, "harmless_refusal_score": None, "kl": None, "by_prompt": None}
    if name == published.BASELINE:
        return found | {"kl": 0.0}
    scores = run.scores[run.choice]
    if name == "0":
        found |= {"bypass": scores["bypass"], "kl": scores["kl"]}
    elif name == "add-0":
        found |= {"harmless_refusal_score": scores["induce"]}
    known = {key: None if value is None or not math.isfinite(value) else value for key, value in found.items()}
    return known | {"candidate": {"source": published.SOURCE, **run.choice._asdict()}}


def _named(dataset, rows):
    """(id, row): an id is the set's name and the row's number, as of a prompt file without ids."""
    return [(f"{dataset}-{number}", row) for number, row in enumerate(rows, 1)]


def _completion(identifier, row):
    reasoning, response = published.answer_of(row["response"])
    unknown = dict.fromkeys(("n_tokens", "finish_reason", "stop_token", "token_ids"))
    return {"id": identifier, **row, "reasoning": reasoning, "response": response, **unknown}


def _verdict(identifier, methodology, value):
    raw = f"is_jailbreak_{methodology}: {value}"
    return {"id": identifier, "verdict": LABELS[value], "raw": raw, "reason": "verdict of the published run"}


def _withdraw(output, written):
    """Delete what an earlier import left and this run does not hold: it would pass for a part of this one."""
    kept = {sidecar(path) for path in written}
    # of this folder's own layout alone: other runs may stand in folders below it
    for record in {*output.glob("prompts/*.spec.json"), *output.glob("combinations/**/*.spec.json")} - kept:
        if read_json(record)["stage"] == "import_published":
            record.with_name(record.name.removesuffix(".spec.json")).unlink(missing_ok=True)
            record.unlink()


def parser():
    made = cli.parser(__doc__)
    made.add_argument("run", type=Path, metavar="DIR", help="the run, with select_direction/ and generate_directions/")
    made.add_argument("--harmful", help="the harmful evaluation set, where completions/ holds several (jailbreakbench)")
    made.add_argument("--output-dir", type=Path, required=True, help="results/published/NAME")
    return made


if __name__ == "__main__":
    cli.run(main, parser())
