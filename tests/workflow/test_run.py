"""The main job: the planted truth is found again, and snakemake's own checks are clean."""

import json

import pandas as pd
import pytest

pytestmark = pytest.mark.workflow


def table(checkout, model, name="summary"):
    return pd.read_csv(checkout.folder / f"results/{model}/{name}.csv", dtype={"combination": str}).set_index(
        "combination" if name == "summary" else "rank"
    )


def errors(said):
    """The lines that say what is wrong, each once: they stand in the log and on the screen."""
    return {line for line in said.splitlines() if line.startswith("error: ")}


def test_two_plants_need_a_pair_that_is_not_the_top_two(finished):
    rows = table(finished, "tiny")
    ablations = rows[rows.kind == "ablation"]
    best = ablations.bypass.idxmin()
    assert rows.k[best] == 2
    assert best != "0-1"
    assert rows.harmful_substring_refusal_rate["none"] >= 0.95
    assert rows.harmful_substring_refusal_rate[best] <= 0.05
    # the top two are near-copies: together they leave what one leaves
    top = table(finished, "tiny", "ranking")
    assert abs(top.cosine_to_rank_0[1]) > 0.9
    assert 0.3 <= rows.harmful_substring_refusal_rate["0"] <= 0.7
    assert 0.3 <= rows.harmful_substring_refusal_rate["0-1"] <= 0.7
    assert rows["harmful_substring_p_holm_vs_best_single"][best] < 0.01
    assert rows.ce_text_delta[best] < 0.05


def test_the_best_pair_covers_both_plants(finished):
    from safetensors.numpy import load_file

    best = table(finished, "tiny").query("kind == 'ablation'").bypass.idxmin()
    basis = load_file(finished.folder / f"results/tiny/combinations/{best}/basis.safetensors")["basis"]
    plants = load_file(finished.folder / "resources/organisms/tiny/plants.safetensors")["directions"]
    assert basis.shape[0] == plants.shape[0] == 2
    # length of each plant's part inside the span
    inside = ((plants @ basis.T) ** 2).sum(1) ** 0.5
    assert (inside > 0.95).all()


def test_one_plant_needs_one_direction(finished):
    rows = table(finished, "tiny1")
    assert rows.harmful_substring_refusal_rate["none"] >= 0.95
    assert rows.harmful_substring_refusal_rate["0"] <= 0.05
    pairs = rows[(rows.kind == "ablation") & (rows.k == 2)]
    assert not (pairs["harmful_substring_p_holm_vs_best_single"] < 0.05).any()


@pytest.mark.parametrize("model", ["tiny", "tiny1"])
def test_random_directions_change_little_and_addition_induces(finished, model):
    rows = table(finished, model)
    controls = rows[rows.kind == "random"]
    assert (len(controls), sum(rows.kind == "shuffled")) == (2, 2)
    assert (controls.harmful_substring_refusal_rate > 0.9).all()
    assert rows.harmless_substring_refusal_rate["none"] <= 0.05
    assert rows.harmless_substring_refusal_rate["add-0"] >= 0.9


def test_pages_say_the_answers_and_are_not_made_again(checkout):
    models = "models=[tiny,tiny1]"
    checkout.snakemake("--config", models, "--", "results/compare.html")
    pages = {name: (checkout.folder / f"results/{name}/report.html").read_text() for name in ("tiny", "tiny1")}
    best = table(checkout, "tiny").query("kind == 'ablation'").bypass.idxmin()
    assert (
        f"One direction is not enough: the pair {best} leaves fewer refusals than the best single, 0." in pages["tiny"]
    )
    assert '<p class="conclusion">One direction is enough; ' in pages["tiny1"]
    for page in pages.values():
        assert "max_new_tokens: 24" in page
        assert "for all jobs, each as it last ran here." in page
        assert str(checkout.folder) not in page
    comparison = (checkout.folder / "results/compare.html").read_text()
    assert '<a href="tiny/report.html">tiny</a>' in comparison
    # times differ from run to run, and make no page anew
    (checkout.folder / "logs/tiny/loss.tsv").write_text("s\tmax_rss\n1e9\t1\n")
    assert "Nothing to be done" in checkout.snakemake("--config", models, "--", "results/compare.html")
    with (checkout.folder / "src/refusal/report/style.css").open("a") as file:
        file.write("\nh1 { color: inherit; }\n")
    said = checkout.snakemake("-n", "--config", models, "--", "results/compare.html")
    assert ("rule report:" in said, "rule compare:" in said, "rule claims:" in said) == (True, True, False)


@pytest.mark.parametrize("mode", ["diverse", "conditional"])
def test_other_ranking_modes_put_both_plants_first(checkout, mode):
    ranking = checkout.setting("ranking")
    checkout.change(
        "config/config.yaml",
        ranking={**ranking, "mode": mode, "top": 2},
        combinations=["0-1"],
        controls={"sizes": [], "draws": 0, "shuffled_draws": 1},
    )
    checkout.snakemake("results/tiny/summary.csv")
    rows = table(checkout, "tiny")
    assert rows.harmful_substring_refusal_rate["0-1"] <= 0.05
    assert set(table(checkout, "tiny", "ranking")["mode"]) == {mode}


@pytest.mark.parametrize("model", ["tiny", "tiny1"])
def test_organism_is_what_it_claims(finished, model):
    finished.run("python", "scripts/organism_quality.py", "--organism", f"resources/organisms/{model}")
    truth = json.loads((finished.folder / f"resources/organisms/{model}/manifest.json").read_text())
    assert truth["directions"] == (2 if model == "tiny" else 1)


def test_words_repeat_the_table(finished):
    words = (finished.folder / "results/tiny/summary.md").read_text()
    rows = table(finished, "tiny")
    best = rows[rows.kind == "ablation"].bypass.idxmin()
    assert f"The best combination on val, {best}, leaves" in words
    assert "It hardly refuses" not in words


def test_second_run_has_nothing_to_do(finished):
    said = finished.snakemake("results/tiny/summary.csv", "results/tiny1/summary.csv")
    assert "Nothing to be done" in said


def test_snakemake_checks_are_clean(finished, tmp_path):
    assert "good condition" in finished.run("snakemake", "--lint")
    assert "digraph" in finished.run("snakemake", "results/tiny/summary.csv", "--rulegraph")
    finished.run("snakemake", "results/tiny/summary.csv", "--report", str(tmp_path / "report.html"))
    assert "summary.csv" in (tmp_path / "report.html").read_text()
    dry = finished.run("snakemake", "-n", "results/llama3/summary.csv")
    assert "activations" in dry


def test_hub_model_without_network_says_what_to_set_before_any_other_work(checkout):
    said = checkout.snakemake("results/llama3/summary.csv", ok=False)
    (line,) = errors(said)
    assert "meta-llama/Meta-Llama-3-8B-Instruct: not in the local cache" in line
    assert "HF_TOKEN is not set" in line
    assert "set HF_TOKEN" in line
    assert not (checkout.folder / "data/external").exists()


def test_unknown_model_names_the_known_ones(checkout):
    said = checkout.snakemake("results/lama3/summary.csv", ok=False)
    assert "unknown model 'lama3': config/models/ has llama3, smollm2, smollm2-refusing, tiny, tiny1" in said


def test_config_faults_are_said_before_any_work(checkout):
    checkout.change("config/config.yaml", rankings={}, seed="x")
    said = checkout.snakemake("results/tiny/summary.csv", ok=False)
    assert "config/config.yaml: unknown key `rankings`" in said
    assert "config/config.yaml: seed: 'x' is not of type 'integer'" in said


def test_more_ranks_than_candidates_names_the_remedy(checkout):
    checkout.change("config/config.yaml", combinations=["0", "0-99"])
    said = checkout.snakemake("results/tiny/summary.csv", ok=False)
    (line,) = errors(said)
    assert '"0-99": results/tiny/top_directions.safetensors keeps' in line
    assert "lower ranking.top or controls.sizes, name other ranks, or loosen the filters" in line
