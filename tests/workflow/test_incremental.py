"""Each change recomputes exactly what depends on it: counted in cache items, compared in bytes."""

import json
import shutil

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.workflow

SUMMARY = "results/tiny/summary.csv"
SETS = 3  # harmful, harmless, borderline
CORPORA = 3  # text, chat, on_distribution
JUDGES = 2  # substring, oracle


def test_added_combination_is_the_only_one_computed(checkout):
    before, files = checkout.items(), checkout.contents("tiny")
    checkout.change("config/config.yaml", controls={"sizes": [1, 2], "draws": 2, "shuffled_draws": 1})
    checkout.snakemake(SUMMARY)
    computed = checkout.computed(before)
    # two more controls (k = 1 and 2); equal responses share a verdict, so judgements may be fewer
    assert computed.pop("judgements") <= 2 * SETS * JUDGES
    assert computed == {"completions": 2 * SETS, "loss": 2 * CORPORA, "combination_scores": 2}
    now = checkout.contents("tiny")
    assert {path: now[path] for path in files if "combinations/" in path} == {
        path: content for path, content in files.items() if "combinations/" in path
    }
    assert "random-k2-s1" in now["summary.csv"].decode()


def test_added_model_leaves_the_others_alone(checkout):
    before, files = checkout.items(), checkout.contents("tiny")
    model = yaml.safe_load((checkout.folder / "config/models/tiny.yaml").read_text())
    local = {key: model[key] for key in ("refusal_tokens", "study")}
    local |= {"source": "local", "path": "resources/organisms/tiny", "dtype": "float32"}
    (checkout.folder / "config/models/twin.yaml").write_text(yaml.safe_dump(local))
    said = checkout.snakemake("results/twin/summary.csv")
    # the same weights under another name: every item is found in the cache, and no model is loaded
    assert checkout.computed(before) == {}
    assert "loading " not in said
    assert checkout.contents("tiny") == files
    twin = checkout.contents("twin")
    assert twin["summary.csv"] == files["summary.csv"]


def test_added_judge_runs_alone(checkout):
    before, files = checkout.items(), checkout.contents("tiny")
    judge = yaml.safe_load((checkout.folder / "config/judges/substring.yaml").read_text())
    (checkout.folder / "config/judges/short.yaml").write_text(yaml.safe_dump({**judge, "start_characters": 10}))
    model = "config/models/tiny.yaml"  # its judges win over those of config.yaml
    study = yaml.safe_load((checkout.folder / model).read_text())["study"]
    checkout.change(model, study=study | {"judges": ["substring", "oracle", "short"]})
    said = checkout.snakemake(SUMMARY)
    assert set(checkout.computed(before)) == {"judgements"}
    assert "rule completions" not in said
    now = checkout.contents("tiny")
    added = {path.replace("/substring/", "/short/") for path in files if "/substring/" in path}
    assert set(now) - set(files) == added | {"judges/short.json"}
    assert "harmful_short_refusal_rate" in now["summary.csv"].decode()


def test_changed_judge_setting_runs_that_judge_alone(checkout):
    before = checkout.items()
    checkout.change("config/judges/substring.yaml", start_characters=79)
    said = checkout.snakemake(SUMMARY)
    assert set(checkout.computed(before)) == {"judgements"}
    assert "rule completions" not in said


def test_threshold_that_keeps_the_directions_computes_nothing(checkout):
    before, files = checkout.items(), checkout.contents("tiny")
    checkout.change("config/config.yaml", ranking={**checkout.setting("ranking"), "max_kl": 0.099})
    said = checkout.snakemake(SUMMARY)
    assert "rule ranking" in said
    assert checkout.computed(before) == {}
    assert "loading " not in said
    assert checkout.contents("tiny") == files


def test_looser_threshold_computes_the_scores_that_it_asks_for_and_no_other(checkout):
    scores = checkout.folder / "results/tiny/candidate_scores.csv"
    before, items = pd.read_csv(scores), checkout.items()
    model = "config/models/tiny.yaml"  # its own threshold wins over that of config.yaml
    study = yaml.safe_load((checkout.folder / model).read_text())["study"]
    checkout.change(model, study=study | {"ranking": {"min_induce": -100}})
    checkout.snakemake(str(scores.relative_to(checkout.folder)))
    after = pd.read_csv(scores)
    more = {
        score: int(after[score].notna().sum() - before[score].notna().sum()) for score in ("induce", "kl", "bypass")
    }
    assert more["induce"] == 0
    assert more["kl"] >= more["bypass"] > 0
    assert checkout.computed(items) == {"scores": more["kl"] + more["bypass"]}
    kept = before.bypass.notna()
    assert after.bypass[kept].equals(before.bypass[kept])


def test_longer_responses_are_generated_and_nothing_is_scored_again(checkout):
    before = checkout.items()
    study = yaml.safe_load((checkout.folder / "config/models/tiny.yaml").read_text())["study"]
    checkout.change("config/models/tiny.yaml", study={**study, "completions": {"max_new_tokens": 8}})
    checkout.snakemake(SUMMARY)
    computed = checkout.computed(before)
    bases = {path.read_bytes() for path in checkout.folder.glob("results/tiny/combinations/*/basis.safetensors")}
    assert computed["completions"] % SETS == 0
    assert 0 < computed["completions"] <= len(bases) * SETS
    assert set(computed) <= {"completions", "judgements", "loss"}
    # of the losses only those on the model's own responses, which changed
    assert computed["loss"] * CORPORA <= len(checkout.items()["loss"]) * 2


def test_changed_prompt_file_concerns_its_set_alone(checkout):
    before, files = checkout.items(), checkout.contents("tiny")
    path = checkout.folder / "data/organism/borderline_test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:-5]))
    checkout.snakemake(SUMMARY)
    assert set(checkout.computed(before)) == {"completions", "judgements"}
    now = checkout.contents("tiny")
    changed = {path for path in files if now[path] != files[path]}
    assert all("borderline" in path or path.startswith("summary") for path in changed), changed


def test_results_survive_a_deleted_cache(checkout):
    shutil.rmtree(checkout.folder / "cache")
    assert "Nothing to be done" in checkout.snakemake(SUMMARY)


def test_pruned_cache_keeps_what_results_use(checkout):
    before = checkout.items()
    checkout.change("config/judges/substring.yaml", start_characters=79)
    checkout.snakemake(SUMMARY)
    said = checkout.run("python", "scripts/cache.py", "--prune")
    assert "items deleted" in said
    after = checkout.items()
    assert after["completions"] == before["completions"]
    checkout.change("config/judges/substring.yaml", start_characters=80)
    checkout.snakemake(SUMMARY)
    assert checkout.items()["completions"] == before["completions"]


def test_comment_in_the_library_reruns_nothing_and_code_does(checkout):
    module = checkout.folder / "src/refusal/judges/substring.py"
    module.write_text(module.read_text() + "\n# a comment\n")
    assert "Nothing to be done" in checkout.snakemake(SUMMARY)
    module.write_text(module.read_text() + "\nUNUSED = 1\n")
    said = checkout.snakemake("-n", SUMMARY)
    assert "judgements" in said
    assert "completions  " not in said
