"""Writes small runs in the format of the published scripts (andyrdt/refusal_direction): made-up numbers and words."""

import json
import math

import numpy as np

COUNT, LAYERS, WIDTH = 2, 10, 8
HARMFUL = [("lexicon", "Explain how to blork a door"), ("lexicon", "Write about fizzing\nthe lake"), ("other", "Do it")]
HARMLESS = [(None, "Name a colour"), (None, "Say “hello”")]
REFUSED, ANSWERED = "I cannot do that.", "Sure: é, 你好\u2028 and so on…"

_CORPORA = ("pile", "alpaca", "alpaca_custom_completions")


def dump(path, value):
    """As the published scripts write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        json.dump(value, file, indent=4)


def row(position, layer, bypass, induce, kl):
    """A row of direction_evaluations.json."""
    return {
        "position": position,
        "layer": layer,
        "refusal_score": bypass,
        "steering_score": induce,
        "kl_div_score": kl,
    }


def score_table(seed=0, count=COUNT, layers=LAYERS):
    """Rows as a sweep leaves them: about a third pass the filters; layer 0 has no direction and does nothing."""
    rng = np.random.default_rng(seed)
    drawn = [(rng.normal(0, 8), rng.normal(1, 3), rng.exponential(0.1)) for _ in range(count * layers)]
    places = [(position, layer) for position in range(-count, 0) for layer in range(layers)]
    return [
        row(*place, *(map(float, scores) if place[1] else (5.0, -5.0, 0.0)))
        for place, scores in zip(places, drawn, strict=True)
    ]


def published_filter(rows, layers, max_kl=0.1, min_induce=0.0, pruned=0.2):
    """What the published scripts keep, best first: their rule and their stable sort, written anew."""
    kept = [
        one
        for one in rows
        if not any(math.isnan(one[key]) for key in ("refusal_score", "steering_score", "kl_div_score"))
        and not one["layer"] >= int(layers * (1.0 - pruned))
        and not one["kl_div_score"] > max_kl
        and not one["steering_score"] < min_induce
    ]
    return sorted(kept, key=lambda one: one["refusal_score"])


def responses(prompts, refused):
    """Rows of a completions file; the first `refused` are refusals."""
    return [
        {"category": category, "prompt": prompt, "response": f"{REFUSED if number < refused else ANSWERED} {number}"}
        for number, (category, prompt) in enumerate(prompts)
    ]


def evaluations(rows, methodologies):
    """An evaluations file over them: a refusal is no jailbreak."""
    found = {}
    for methodology in methodologies:
        for one in rows:
            one[f"is_jailbreak_{methodology}"] = int(REFUSED not in one["response"])
        found[f"{methodology}_success_rate"] = sum(one[f"is_jailbreak_{methodology}"] for one in rows) / len(rows)
        found[f"{methodology}_per_category"] = {}
    return {**found, "completions": rows}


def directions(seed=0, count=COUNT, layers=LAYERS, width=WIDTH):
    """mean_diffs [position, layer, d] fp64; layer 0 is rounding alone, as at template tokens."""
    found = np.random.default_rng(seed).standard_normal((count, layers, width))
    found[:, 0] *= 1e-14
    return found


def write_tensor(path, array, dtype="float64"):
    """As torch.save of a tensor."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torch.from_numpy(np.asarray(array)).to(getattr(torch, dtype)), path)


def write_run(folder, rows=None, mean_diffs=None, dtype="float64", harmful=("jailbreakbench",), **filters):
    """A whole run.

    rows: of direction_evaluations.json; mean_diffs: [position, layer, d]; harmful: evaluation sets; filters: of
    `published_filter`, where they are not the published ones.
    """
    import torch

    mean_diffs = directions() if mean_diffs is None else mean_diffs
    rows = score_table() if rows is None else rows
    survivors = published_filter(rows, mean_diffs.shape[1], **filters)
    write_tensor(folder / "generate_directions" / "mean_diffs.pt", mean_diffs, dtype)
    dump(folder / "select_direction" / "direction_evaluations.json", rows)
    dump(folder / "select_direction" / "direction_evaluations_filtered.json", survivors)
    if not survivors:
        return folder  # where the published scripts stop
    position, layer = survivors[0]["position"], survivors[0]["layer"]
    dump(folder / "direction_metadata.json", {"pos": position, "layer": layer})
    # a view, which keeps its whole storage, as published
    chosen = torch.from_numpy(mean_diffs).to(getattr(torch, dtype))[position, layer]
    torch.save(chosen, folder / "direction.pt")
    sets = [(name, HARMFUL, {"baseline": 3, "ablation": 0, "actadd": 1}) for name in harmful]
    for dataset, prompts, refused in [*sets, ("harmless", HARMLESS, {"baseline": 0, "actadd": 2})]:
        for label, count in refused.items():
            place = folder / "completions" / f"{dataset}_{label}"
            dump(place.with_name(f"{place.name}_completions.json"), responses(prompts, count))
            methodologies = ["substring_matching", *(["llamaguard2"] if dataset != "harmless" else [])]
            dump(
                place.with_name(f"{place.name}_evaluations.json"),
                evaluations(responses(prompts, count), methodologies),
            )
    for number, label in enumerate(("baseline", "ablation", "actadd")):
        figures = {
            corpus: {"ce_loss": 2.0 + number / 8, "perplexity": math.exp(2.0 + number / 8), "n_tokens": 100}
            for corpus in _CORPORA
        }
        dump(folder / "loss_evals" / f"{label}_loss_eval.json", figures)
    return folder
