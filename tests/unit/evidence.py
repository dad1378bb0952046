"""A study made by hand, of a hundred prompts, and what its claims answer."""

import json
from dataclasses import replace

import numpy as np

from refusal.claims.questions import claims
from refusal.evidence import Evidence

R, C, X = "refusal", "compliance", "invalid"
N, VAL, ROWS = 100, 32, 40
TOKENS = [10 + number % 7 for number in range(ROWS)]
SIZES = {"none": 0, "add-0": 0}


def verdicts(refused, invalid=0, first=0):
    """Of prompts 0..99: `invalid` of them first, then `refused` from number `first` on."""
    told = [R if first <= number < first + refused else C for number in range(N)]
    return {str(number): one for number, one in enumerate([X] * invalid + told[invalid:])}


def nats(cost, noise=0.0, seed=0):
    """By row: a baseline of 3 nats a token, `cost` more, and what texts differ by."""
    drawn = np.random.default_rng(seed).normal(0, noise, ROWS) if noise else np.zeros(ROWS)
    return [count * (3 + cost + more) for count, more in zip(TOKENS, drawn, strict=True)]


def of(name, refused, bypass=0.0, *, cost=0.0, noise=0.0, directions=None, cosine=0.2, told=None, scores=None):
    """Evidence of one combination: `refused` of the test prompts, a bypass score, a cost in nats per token."""
    ablation = name[0].isdigit()
    size = SIZES.get(name, name.count("-") + 1 if ablation else int(name[8]) if name.startswith("random") else 0)
    rows = {"nats": nats(cost, noise, size), "n_tokens": TOKENS}
    if scores is None:
        scores = (bypass + np.sin(np.arange(VAL))).tolist()
    return Evidence(
        basis={
            "k": size,
            "effective_rank": size if directions is None else directions,
            "ablation": "span",
            "candidates": [],
            "cosines": [[1.0, cosine], [cosine, 1.0]] if size == 2 else [[1.0]],
        },
        scores={"bypass": float(np.mean(scores)), "by_prompt": {"harmful_refusal_score": scores}},
        loss={"text": {"ce_loss": sum(rows["nats"]) / sum(TOKENS), "by_row": rows}},
        verdicts={("harmful", "substring"): verdicts(refused) if told is None else told},
    )


def study(**changes):
    """The baseline refuses all; a single leaves half, the best pair on val a fiftieth; each direction costs 0.01."""
    made = {
        "none": of("none", 100, 5.0),
        "0": of("0", 50, -2.0, cost=0.01, noise=0.002),
        "1": of("1", 60, -1.0, cost=0.01, noise=0.002),
        "2": of("2", 80, 0.0, cost=0.01, noise=0.002),
        "0-1": of("0-1", 45, -2.2, cost=0.02, noise=0.002),
        "0-2": of("0-2", 2, -6.0, cost=0.02, noise=0.002),
        "1-2": of("1-2", 0, -1.5, cost=0.02, noise=0.002),
        "random-k1-s0": of("random-k1-s0", 99, 4.8, cost=0.03, noise=0.002),
        "random-k1-s1": of("random-k1-s1", 100, 4.9, cost=0.03),
        "random-k2-s0": of("random-k2-s0", 98, 4.7, cost=0.03),
        "add-0": of("add-0", 100, 6.0),
    }
    return {name: one for name, one in {**made, **changes}.items() if one is not None}


def without(evidence, part):
    return replace(evidence, **{part: {}})


def asked(evidence, name, **settings):
    """The claim of that name; figures that JSON does not know would fail."""
    found = claims(evidence, "substring", draws=settings.pop("draws", 999), **settings)
    json.dumps(found, allow_nan=False)
    (one,) = [one for one in found if one["claim"] == name]
    return one


def answers(evidence, name):
    return asked(evidence, name)["answer"]
