"""A model that is taught: a model of its own, whose lessons are apart from all that its study draws."""

import json

import pytest
import yaml

pytestmark = pytest.mark.workflow

TEACHING = {
    "prompts": {kind: f"data/organism/{kind}_train.jsonl" for kind in ("harmful", "harmless", "borderline")},
    "counts": {"harmful": 40, "harmless": 40, "borderline": 4},
    "max_overlap": 1,  # of a language of few words
    "reply_tokens": 8,
    "steps": 2,
    "batch_rows": 4,
    "learning_rate": 1e-4,
    "rank": 2,
    "seed": 0,
}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lessons_are_apart_and_the_base_stays(checkout):
    models = checkout.folder / "config" / "models"
    model = yaml.safe_load((models / "tiny.yaml").read_text())
    del model["organism"]
    model |= {"source": "taught", "base": "tiny", "teaching": TEACHING}
    (models / "mine.yaml").write_text(yaml.safe_dump(model))
    before, base = checkout.items(), checkout.contents("tiny")
    checkout.snakemake("results/mine/prompts/report.json")
    assert checkout.computed(before) == {"lessons": 1, "prompts": 4}
    assert set(checkout.contents("tiny").items()) - set(base.items()) == {
        ("description.json", checkout.contents("tiny")["description.json"])
    }
    folder = checkout.folder / "results/mine"
    taught = {row["instruction"] for row in rows(folder / "lessons.jsonl")}
    assert len(taught) == 84
    for kind in ("harmful", "harmless"):
        tested = rows(checkout.folder / f"data/organism/{kind}_test.jsonl")
        drawn = [row for split in ("train", "val") for row in rows(folder / f"prompts/{kind}_{split}.jsonl")]
        assert not taught & {row["instruction"] for row in [*tested, *drawn]}
    identity = json.loads((folder / "model.json").read_text())["identity"]
    assert identity["weights"] != json.loads((folder.parent / "tiny/model.json").read_text())["identity"]["weights"]
    # another course teaches the same lessons
    checkout.change("config/models/mine.yaml", teaching=TEACHING | {"steps": 3})
    said = checkout.snakemake("-n", "results/mine/prompts/report.json")
    assert "rule teach:" in said
    assert "rule lessons:" not in said
