"""A run of the published scripts (andyrdt/refusal_direction, pipeline/runs/MODEL), and what it is called here.

What a run calls `baseline`, `ablation` and `actadd` are combinations here. `actadd` is two: the chosen direction is
added on harmless prompts (`add-0`), and subtracted on harmful ones and for the loss (`sub-0`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from refusal.combinations import BASELINE, CONTROLS, parse
from refusal.errors import UserError

if TYPE_CHECKING:
    import numpy as np

SOURCE = "mean_difference"
"""Of all candidates of a published run."""

MEAN_DIFFS = "generate_directions/mean_diffs.pt"
DIRECTION = "direction.pt"
EVALUATIONS = "select_direction/direction_evaluations.json"
FILTERED = "select_direction/direction_evaluations_filtered.json"
METADATA = "direction_metadata.json"

FILTERS = {"max_kl": 0.1, "min_induce": 0.0, "max_layer_share": 0.8}
"""The published ones, which are the defaults of scripts/ranking.py."""

LABELS = ("baseline", "ablation", "actadd")
LOSSES = {label: f"loss_evals/{label}_loss_eval.json" for label in LABELS}
HARMLESS = "harmless"
FIELDS = ("category", "prompt", "response")

_OPENING, _CLOSING = "<think>", "</think>"
"""Around what a model reasons; with these a run keeps it in its responses."""

Row = Mapping[str, Any]


class Place(NamedTuple):
    """What a candidate is called by."""

    position: int
    layer: int

    def __str__(self) -> str:
        return f"position {self.position}, layer {self.layer}"


@dataclass(frozen=True)
class Run:
    """What a run folder holds, checked (`refusal.published.files.read_run`).

    scores: place -> bypass, induce, kl in nats, not-a-number where the run says so.
    survivors: places, best first; None where the run does not say.
    choice: the direction that was ablated and added; None where there is none.
    responses: (dataset, label) -> rows of category, prompt, response.
    verdicts: (dataset, label) -> methodology -> 1 (jailbreak) or 0, a row each.
    losses: label -> corpus -> figures.
    files: path below the folder -> path, of all that the folder holds of a run.
    remarks: what was passed over.
    """

    folder: Path
    scores: Mapping[Place, Mapping[str, float]]
    survivors: Sequence[Place] | None
    choice: Place | None
    responses: Mapping[tuple[str, str], Sequence[Row]]
    verdicts: Mapping[tuple[str, str], Mapping[str, Sequence[int]]]
    losses: Mapping[str, Mapping[str, Mapping[str, Any]]]
    files: Mapping[str, Path]
    remarks: Sequence[str]


@dataclass(frozen=True)
class Measured:
    """What a run measured of one combination.

    responses: prompt set -> rows; verdicts: prompt set -> methodology -> 1 or 0 a row; losses: corpus -> figures.
    """

    responses: Mapping[str, Sequence[Row]]
    verdicts: Mapping[str, Mapping[str, Sequence[int]]]
    losses: Mapping[str, Mapping[str, Any]]


def harmful_set(run: Run, wanted: str | None = None) -> str | None:
    """The run's harmful evaluation set: the one named, or the only one; None for a run without responses to any.

    Raises: UserError, several and none named, or no such set.
    """
    found = sorted({dataset for dataset, _ in run.responses} - {HARMLESS})
    listed = f"{run.folder / 'completions'}: its harmful sets are {', '.join(found) or '(none)'}"
    if wanted is not None and wanted not in found:
        raise UserError(f"{listed}, and not {wanted}: choose one as `harmful`")
    if wanted is None and len(found) > 1:
        raise UserError(f"{listed}: choose one as `harmful`")
    return wanted or next(iter(found), None)


def by_combination(run: Run, harmful: str | None) -> dict[str, Measured]:
    """Combination id -> what the run measured of it; without a choice the baseline alone, which is always there."""
    datasets = {"harmful": harmful, "harmless": HARMLESS}

    def of(name: str) -> Measured:
        places = {
            prompts: (dataset, label)
            for prompts, dataset in datasets.items()
            for label in LABELS
            if (dataset, label) in run.responses and _combination(label, prompts) == name
        }
        return Measured(
            {prompts: run.responses[place] for prompts, place in places.items()},
            {prompts: run.verdicts.get(place, {}) for prompts, place in places.items()},
            next((losses for label, losses in run.losses.items() if _combination(label, None) == name), {}),
        )

    found = {name: of(name) for name in (BASELINE, *(("0", "add-0", "sub-0") if run.choice else ()))}
    # of the others the run has scores at least
    return {name: one for name, one in found.items() if name != "sub-0" or one.responses or one.losses}


def missing(run: Run, harmful: str | None) -> list[str]:
    """One line for each thing that a whole run holds and this one lacks, or that has no place here."""
    lines = list(run.remarks)
    named = [(harmful or "HARMFUL", label) for label in LABELS] + [(HARMLESS, "baseline"), (HARMLESS, "actadd")]
    for dataset, label in named:
        if (dataset, label) not in run.responses:
            lines.append(f"missing: completions/{dataset}_{label}_completions.json")
        elif (dataset, label) not in run.verdicts:
            lines.append(f"missing: completions/{dataset}_{label}_evaluations.json")
    lines += [f"missing: {path}" for path in (METADATA, DIRECTION, FILTERED, *LOSSES.values()) if path not in run.files]
    answers = [answer_of(row["response"]) for rows in run.responses.values() for row in rows]
    if any(reasoning for reasoning, _ in answers):
        whole = sum(reasoning is None for reasoning, _ in answers)
        lines.append(
            f"{len(answers) - whole} of {len(answers)} responses hold reasoning, up to {_CLOSING}, which is not judged;"
            f" the other {whole} are judged whole: of one that was cut within its reasoning a run does not tell"
        )
    others = sorted({dataset for dataset, _ in run.responses} - {harmful, HARMLESS})
    lines += [f"left out: completions of {dataset}, another harmful set" for dataset in others]
    if run.choice is None and {*run.losses, *(label for _, label in run.responses)} - {"baseline"}:
        lines.append("left out: all of ablation and actadd: the run does not say with which direction")
    return lines


def thresholds(run: Run) -> dict[str, float]:
    """The filters by which a run kept what it kept: max_kl, min_induce (nats), max_layer_share.

    The published ones where they do; some runs were made with others, which they do not record. Then the tightest that
    keep all survivors: they keep no other candidate, since the run's own, at least as loose, would have kept it too.
    Raises: UserError, no such filters keep these candidates alone, or the run does not say what it kept.
    """
    kept, by_published = set(run.survivors or ()), _kept(run, **FILTERS)
    if run.survivors is None and run.choice is not None:
        best = min((run.scores[place]["bypass"] for place in by_published), default=None)
        if run.choice not in by_published or run.scores[run.choice]["bypass"] != best:
            raise UserError(
                f"{run.folder / METADATA}: names {run.choice}, which is not the best that the published filters keep:"
                f" fetch {FILTERED}, which says what the run kept"
            )
    if run.survivors is not None and not kept and by_published:
        raise UserError(
            f"{run.folder / FILTERED}: is empty, though the published filters keep {min(by_published)}: the run was"
            " made with others, which it does not record: remove the file to rank by the published ones"
        )
    if not kept or by_published == kept:
        return dict(FILTERS)
    layers = 1 + max(place.layer for place in run.scores)
    limit = 1 + max(place.layer for place in kept)
    found = {
        "max_kl": max(run.scores[place]["kl"] for place in kept),
        "min_induce": min(run.scores[place]["induce"] for place in kept),
        # between the layers, so that no rounding of share x layers moves the limit
        "max_layer_share": min(1.0, (limit + 0.5) / layers),
    }
    if more := sorted(_kept(run, **found) - kept):
        raise UserError(
            f"{run.folder / FILTERED}: lacks {more[0]}, whose scores are within those of the rows there: fetch it again"
        )
    return found


def check_directions(run: Run, directions: "np.ndarray", chosen: "np.ndarray | None") -> None:
    """Check that the tensors and the JSON of a run are of one piece.

    Args:
        directions: of mean_diffs.pt [position, layer, d]; chosen: of direction.pt [d].
    Raises: UserError that names the file and the place: no numbers, a place without a row of scores or the other way
        round, a chosen direction that is not the one of its place.
    """
    import numpy as np

    path, table = run.folder / MEAN_DIFFS, run.folder / EVALUATIONS
    count, layers, _ = directions.shape
    places = [Place(row - count, layer) for row in range(count) for layer in range(layers)]
    if bad := [place for place in places if not np.isfinite(directions[place]).all()]:
        raise UserError(f"{path}: {bad[0]}: the direction holds NaN or infinity: compute it again")
    if lacking := [place for place in places if place not in run.scores]:
        raise UserError(f"{table}: no row for {lacking[0]}, which {MEAN_DIFFS} holds: fetch the run again")
    if extra := sorted(set(run.scores) - set(places)):
        shape = "x".join(map(str, directions.shape))
        raise UserError(f"{table}: {extra[0]} is outside {MEAN_DIFFS} ({shape}): fetch the run again")
    if chosen is not None and run.choice is not None and not np.array_equal(chosen, directions[run.choice]):
        raise UserError(
            f"{run.folder / DIRECTION}: is not the direction that {MEAN_DIFFS} holds at {run.choice}, which was chosen:"
            " fetch the run again"
        )


def answer_of(response: str) -> tuple[str | None, str]:
    """What a response of a run reasons (None where no marker says so) and its answer; together they are the response.

    A response that never closes the block that it opened has no answer. One that begins within a block which the
    template opened, and was cut there, cannot be told from an answer.
    """
    if _CLOSING in response:
        reasoning, _, after = response.partition(_CLOSING)
        answer = after.lstrip()
        return reasoning + _CLOSING + after[: len(after) - len(answer)], answer
    return (response, "") if response.lstrip().startswith(_OPENING) else (None, response)


def judge_of(methodology: str) -> str:
    """What the verdicts that a run holds are called beside those of our judges."""
    return f"{methodology}_published"


def place_of(combination: str, prompts: str, harmful: str) -> Path:
    """Where a run folder keeps a combination's responses to a set; `harmful` is what the harmful set is called there.

    Baseline, ablation of rank 0 and its additions stand where the published scripts put them, any other combination in
    a folder of its own. An addition on harmful prompts, or a subtraction on harmless ones, which the published scripts
    do not have, is never called `actadd`.
    """
    kind = parse(combination).kind
    label = {"none": "baseline", **dict.fromkeys(("ablation", *CONTROLS), "ablation")}.get(kind, kind)
    if kind == ("subtraction" if prompts == "harmful" else "addition"):
        label = "actadd"
    file = Path("completions", f"{harmful if prompts == 'harmful' else prompts}_{label}_completions.json")
    published = label in LABELS and combination in (BASELINE, "0", "add-0", "sub-0")
    return file if published else Path(combination, file)


def completions_json(rows: Sequence[Row]) -> str:
    """Completions as the published scripts write them, byte for byte: reasoning and answer in one, no space around."""
    kept = [
        {**{field: row[field] for field in FIELDS}, "response": ((row["reasoning"] or "") + row["response"]).strip()}
        for row in rows
    ]
    return json.dumps(kept, indent=4)


def _kept(run: Run, max_kl: float, min_induce: float, max_layer_share: float) -> set[Place]:
    """What filters leave; no comparison holds for not-a-number."""
    limit = int(max_layer_share * (1 + max(place.layer for place in run.scores)))
    return {
        place
        for place, scores in run.scores.items()
        if scores["kl"] <= max_kl
        and scores["induce"] >= min_induce
        and place.layer < limit
        and not math.isnan(scores["bypass"])
    }


def _combination(label: str, prompts: str | None) -> str:
    """The combination that a label means on a prompt set; None is the loss."""
    return {"baseline": BASELINE, "ablation": "0", "actadd": "add-0" if prompts == "harmless" else "sub-0"}[label]
