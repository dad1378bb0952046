"""Refusal tokens that are proposed: shown, recorded, and no reason to compute again what the same tokens gave."""

import json

import pytest

pytestmark = pytest.mark.workflow

SUMMARY = "results/tiny/summary.csv"


def test_the_organisms_are_found(checkout):
    before, files = checkout.items(), checkout.contents("tiny")
    checkout.change("config/models/tiny.yaml", refusal_tokens="auto")
    said = checkout.snakemake(SUMMARY)
    assert 'refusal token "i" ' in said
    now = checkout.contents("tiny")
    proposed, named = json.loads(now["refusal_tokens.json"]), json.loads(files["model.json"])
    assert [one["string"] for one in proposed["refusal_tokens"]] == ["i"]
    strongest = proposed["contrasts"][0]
    assert strongest["harmful"] > 0.9
    assert strongest["harmless"] < 0.05
    assert json.loads(now["model.json"]) == {
        **named,
        "refusal_tokens": proposed["refusal_tokens"],
        "refusal_tokens_from": "refusal_tokens.json",
    }
    # the same tokens as those that were named: what was scored with them stands
    assert proposed["refusal_tokens"] == named["refusal_tokens"]
    assert checkout.computed(before) == {"refusal_tokens": 1}
    assert {path for path in files if now[path] != files[path]} == {"model.json"}
    assert set(now) - set(files) == {"description.json", "refusal_tokens.json"}
    assert "Nothing to be done" in checkout.snakemake(SUMMARY)


def test_named_ones_cost_no_job(finished):
    assert not (finished.folder / "results/tiny/description.json").exists()
    assert "refusal_tokens" not in finished.items()
