"""The parity overlay through the real workflow: published draws, hooks, epsilons and judge, named so in the results."""

import json
import random

import pandas as pd
import pytest
import yaml

from refusal.artifacts import read_jsonl, read_tensors
from refusal.prompts import IN_TURN, read_prompts

pytestmark = pytest.mark.workflow

COUNTS = {"train": 64, "val": 16, "test": 12}


@pytest.fixture
def parity(checkout):
    small = {
        "prompts": {"counts": COUNTS},
        "combinations": ["0", "0-1", "0-4"],
        "controls": {"sizes": [1], "draws": 1, "shuffled_draws": 0},
    }
    (checkout.folder / "small.yaml").write_text(yaml.safe_dump(small))
    model = "config/models/tiny.yaml"  # its judges would win over those of the overlay
    study = yaml.safe_load((checkout.folder / model).read_text())["study"]
    checkout.change(model, study={key: value for key, value in study.items() if key != "judges"})
    checkout.snakemake("results/tiny/summary.csv", "--configfile", "config/parity.yaml", "small.yaml")
    return checkout


def test_parity(parity):
    results, config = parity.folder / "results/tiny", parity.folder / "data/organism"
    pools = {name: read_prompts(config / f"{name}.jsonl") for name in (*IN_TURN, "harmless_test", "harmful_test")}

    # the published draws: one seeded stream, harmless test after train and val; harmful test whole and in order
    random.seed(42)
    drawn = {name: random.sample(pools[name], COUNTS[name.split("_")[1]]) for name in (*IN_TURN, "harmless_test")}
    for name, expected in {**drawn, "harmful_test": pools["harmful_test"]}.items():
        found = read_jsonl(results / "prompts" / f"{name}.jsonl")
        if name in IN_TURN:  # then filtered by refusal score, as published
            assert {row["id"] for row in found} <= {row["id"] for row in expected}
            assert len(found) > 0.9 * len(expected)
        else:
            assert [row["id"] for row in found] == [row["id"] for row in expected]

    # every candidate has every score, with the published epsilons and hooks
    scores = pd.read_csv(results / "candidate_scores.csv")
    assert scores[scores.note.isna()][["bypass", "induce", "kl"]].notna().all().all()
    assert scores.bypass.abs().max() <= 18.5  # log(1e-8) bounds them
    parameters = json.loads((results / "candidate_scores.csv.spec.json").read_text())["parameters"]
    assert (parameters["ablation"], parameters["epsilon"]) == ("sequential", {"refusal": 1e-8, "kl": 1e-6})

    # combinations are sequential, and say so; the plants are found by them too
    basis, facts = read_tensors(results / "combinations/0-4/basis.safetensors")
    assert (facts["ablation"], basis["basis"].shape[0]) == ("sequential", 2)
    rows = pd.read_csv(results / "summary.csv", dtype={"combination": str}).set_index("combination")
    assert list(rows.index) == ["none", "0", "0-1", "0-4", "random-k1-s0", "add-0", "sub-0"]
    assert set(rows.ablation[["0", "0-1", "0-4", "random-k1-s0"]]) == {"sequential"}
    refused = rows.harmful_published_refusal_rate
    assert refused["none"] >= 0.95
    assert 0.3 <= refused["0"] <= 0.7
    assert refused["0-4"] <= 0.05
    assert rows.harmless_published_refusal_rate["add-0"] >= 0.9
