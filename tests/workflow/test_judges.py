"""A judge behind a real HTTP service, and the oracle, through the real workflow: asked once, agreement, answers."""

import json

import pandas as pd
import pytest
import yaml
from chat_server import ChatServer, said

from refusal.artifacts import read_jsonl

pytestmark = pytest.mark.workflow

KEY = "sk-made-up-for-the-test"
WANTED = [f"results/tiny/{name}" for name in ("summary.csv", "claims.json", "agreement.csv")]


def judge_of_refusals(request):
    """Knows the organism's refusals by their words, and finds one response in ten unreadable."""
    response = request.text.split("<response ")[1]
    if "bread" in response:
        return said("I would rather not say.")
    return said(f"<verdict>{'refusal' if 'cannot' in response or 'sorry' in response else 'compliance'}</verdict>")


@pytest.fixture
def judged(checkout):
    """The study with a rubric judge at a service on the loopback, and what the service was asked."""
    with ChatServer(judge_of_refusals) as server:
        rubric = yaml.safe_load((checkout.folder / "config/judges/rubric.yaml").read_text())
        changed = rubric | {"base_url": server.url, "model": "any", "concurrency": 4}
        (checkout.folder / "config/judges/rubric.yaml").write_text(yaml.safe_dump(changed))
        model = "config/models/tiny.yaml"
        study = yaml.safe_load((checkout.folder / model).read_text())["study"]
        checkout.change(model, study=study | {"judges": ["substring", "oracle", "rubric"]})
        yield checkout, server


def test_a_missing_key_is_said_before_other_work(judged):
    checkout, server = judged
    (checkout.folder / "results/tiny/model.json").unlink()
    said_ = checkout.snakemake("results/tiny/summary.csv", "--forcerun", "model", ok=False)
    assert "error: rubric judge: TOGETHER_API_KEY is not set: export the service's key" in said_
    assert "rule completions" not in said_
    assert not server.requests


def test_answers_are_asked_for_once(judged):
    checkout, server = judged
    before = checkout.items()
    printed = checkout.snakemake(*WANTED, TOGETHER_API_KEY=KEY)
    results = checkout.folder / "results/tiny"
    asked = {
        (row["prompt"], row["response"])
        for path in results.glob("combinations/*/completions/*.jsonl")
        for row in read_jsonl(path)
        if row["response"].strip()
    }
    assert len(server.chats) == len(asked) < 0.5 * 23 * 3 * 36
    assert {request.headers["Authorization"] for request in server.chats} == {f"Bearer {KEY}"}

    # nothing but the judgements was computed, and no file or message holds the key
    computed = checkout.computed(before)
    assert set(computed) == {"judgements", "answers"}
    assert KEY not in printed
    for path in checkout.folder.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".jsonl", ".csv", ".md", ".log"):
            assert KEY not in path.read_text()

    rows = pd.read_csv(results / "summary.csv", dtype={"combination": str}).set_index("combination")
    assert rows.harmful_rubric_refusal_rate["none"] >= 0.9
    verdicts = read_jsonl(results / "combinations/none/judgements/rubric/harmless.jsonl")
    unread = [row for row in verdicts if row["verdict"] == "invalid"]
    assert unread
    assert {row["raw"] for row in unread} == {"I would rather not say."}

    agreement = pd.read_csv(results / "agreement.csv")
    whole = agreement[agreement["set"] == "all"].set_index(["first", "second"])
    assert whole.agreement[("substring", "oracle")] > 0.99
    assert whole.kappa[("rubric", "oracle")] > 0.9
    assert whole.invalid_compliance[("rubric", "oracle")] > 0
    claims = json.loads((results / "claims.json").read_text())
    assert claims

    # a new wording asks again, another limit does not; without anything to ask the key is not needed
    count = len(server.chats)
    checkout.change("config/judges/rubric.yaml", spend_limit_usd=7)
    checkout.snakemake(*WANTED, TOGETHER_API_KEY=KEY)
    assert len(server.chats) == count
    assert "Nothing to be done" in checkout.snakemake(*WANTED)
