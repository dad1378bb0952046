"""workflow/published.smk on a made-up run, as a person starts it: from its folder to its findings, without a model."""

import json
import math

import pandas as pd
import pytest
from published_run import LAYERS, published_filter, score_table, write_run

pytestmark = pytest.mark.workflow


def snakemake(project, *flags, ok=True, **config):
    """Run it; returns what it printed."""
    keys = [f"{key}={value}" for key, value in config.items()]
    return project.run(
        "snakemake", "--snakefile", "workflow/published.smk", "--cores", "1", *flags, "--config", *keys, ok=ok
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("published") / "a run")  # a space in its path


@pytest.fixture(scope="module")
def summed(project, run):
    snakemake(project, run=run, name="whole")
    return project.folder / "results/published/whole"


def test_rank_0_and_the_survivors_are_the_published_ones(summed, run):
    table = pd.read_csv(summed / "ranking.csv")
    kept = table[table["rank"].notna()].sort_values("rank")
    expected = published_filter(score_table(), LAYERS)
    assert [*zip(kept.position, kept.layer, kept.bypass, strict=True)] == [
        (one["position"], one["layer"], one["refusal_score"]) for one in expected
    ]
    chosen = json.loads((run / "direction_metadata.json").read_text())
    assert (chosen["pos"], chosen["layer"]) == (kept.position.iloc[0], kept.layer.iloc[0])


def test_summary(summed, run):
    rows = pd.read_csv(summed / "summary.csv", dtype={"combination": str}).set_index("combination")
    assert list(rows.kind) == ["none", "ablation", "addition", "subtraction"]
    assert rows.ablation["0"] == "sequential"
    for label, name in (("baseline", "none"), ("ablation", "0"), ("actadd", "sub-0")):
        found = json.loads((run / f"completions/jailbreakbench_{label}_evaluations.json").read_text())
        compliance = found["substring_matching_success_rate"]
        assert rows.harmful_published_compliance_rate[name] == compliance
        assert rows.harmful_substring_matching_published_compliance_rate[name] == compliance
        assert rows.harmful_llamaguard2_published_compliance_rate[name] == found["llamaguard2_success_rate"]
        loss = json.loads((run / f"loss_evals/{label}_loss_eval.json").read_text())["alpaca_custom_completions"]
        assert rows.ce_on_distribution[name] == loss["ce_loss"]
    assert rows.harmless_published_refusal_rate.dropna().to_dict() == {"none": 0.0, "add-0": 1.0}
    words = (summed / "summary.md").read_text()
    assert "- The best single on val, 0, leaves 0.0% (95% 0.0%-56.1%, n = 3) refused." in words
    assert "nan" not in words.lower()


def test_claims_of_what_the_run_measured(summed):
    made = json.loads((summed / "claims.json").read_text())
    assert (made["judge"], made["set"]) == ("published", "harmful")
    answers = {one["claim"]: one["answer"] for one in made["claims"]}
    # three prompts tell nothing; of pairs, controls and single texts a run holds nothing
    assert {name for name, answer in answers.items() if answer == "undecided"} == {"refuses", "one_direction"}
    assert set(answers.values()) == {"undecided", "not measurable"}
    words = (summed / "claims.md").read_text()
    assert words.startswith("# whole: claims\n\nJudge: published, on harmful test prompts.")
    assert "- Is a pair better than the best single? **Not measurable.** No pair of two distinct directions" in words


def test_agreement_of_our_judges_with_the_run_s_own(summed):
    table = pd.read_csv(summed / "agreement.csv")
    whole = table[table["set"] == "all"].set_index(["first", "second"])
    assert whole.agreement["published", "substring_matching_published"] == 1.0
    assert whole.n["published", "substring_matching_published"] == 3 * 3 + 2 * 2
    assert whole.n["published", "llamaguard2_published"] == 3 * 3
    assert (summed / "agreement.md").read_text().startswith("# whole: agreement\n\nJudges: published, substring, ")


def test_page_says_what_the_run_did_not_measure(summed):
    page = (summed / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert '<h1 id="title">whole</h1>' in page
    assert "What judging cost was not measured." in page
    assert "Times were not measured here" in page


def test_nothing_runs_again(project, run, summed):
    assert "Nothing to be done" in snakemake(project, run=run, name="whole")


def test_a_run_of_scores_and_directions_alone_made_with_other_filters(project, tmp_path):
    run = write_run(tmp_path / "run", max_kl=0.3, min_induce=-1.0)
    for path in (*run.glob("completions/*"), *run.glob("loss_evals/*"), run / "direction_metadata.json"):
        path.unlink()
    snakemake(project, run=run, name="bare")
    folder = project.folder / "results/published/bare"
    rows = pd.read_csv(folder / "summary.csv", dtype={"combination": str})
    assert list(rows.combination) == ["none", "0", "add-0"]
    assert rows.bypass.notna().tolist() == [False, True, False]
    assert "a share that was not measured" in (folder / "summary.md").read_text()
    assert {one["answer"] for one in json.loads((folder / "claims.json").read_text())["claims"]} == {"not measurable"}
    assert not (folder / "agreement.csv").exists()
    assert "could not be measured" in (folder / "report.html").read_text()
    captions = json.loads((folder / "plots/captions.json").read_text())
    assert captions["refusals"]["caption"] == "published has judged no responses."
    assert captions["scores"]["caption"].startswith("Each cell is a candidate: ")
    table = pd.read_csv(folder / "ranking.csv")
    kept = table[table["rank"].notna()].sort_values("rank")
    expected = published_filter(score_table(), LAYERS, max_kl=0.3, min_induce=-1.0)
    assert [*zip(kept.position, kept.layer, strict=True)] == [(one["position"], one["layer"]) for one in expected]
    assert len(expected) > len(published_filter(score_table(), LAYERS))


def test_a_run_that_kept_no_candidate_stops_with_the_reason(project, tmp_path):
    run = write_run(tmp_path / "run", [one | {"refusal_score": math.nan} for one in score_table()])
    said = snakemake(project, run=run, name="none-left", ok=False)
    assert "error: ranking: no candidate of 20 is left; removed by filter: zero direction 2" in said
    assert "not a number 18" in said
    assert (project.folder / "results/published/none-left/candidate_scores.csv").exists()


def test_bad_keys_are_a_line_each_all_at_once(project):
    said = snakemake(project, "--dry-run", name="../x", ok=False).splitlines()
    assert said.count("published.smk: no run: add --config run=DIR name=NAME") == 1
    assert said.count("published.smk: name: '../x': use letters, digits, and _ . - after the first") == 1
    assert not any("Traceback" in line for line in said)
