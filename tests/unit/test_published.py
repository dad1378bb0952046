"""Published runs: what they hold comes over as it is, what does not fit is one line, and completions come back."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import script
from hypothesis import given, settings
from hypothesis import strategies as st
from published_run import (
    COUNT,
    HARMFUL,
    LAYERS,
    directions,
    dump,
    published_filter,
    responses,
    row,
    score_table,
    write_run,
    write_tensor,
)

from refusal.artifacts import read_json, read_jsonl, read_table, read_tensors
from refusal.errors import UserError
from refusal.provenance import sidecar, verify
from refusal.published import runs as published
from refusal.published.files import read_run

EVALUATIONS = "select_direction/direction_evaluations.json"
FILTERED = "select_direction/direction_evaluations_filtered.json"
MEAN_DIFFS = "generate_directions/mean_diffs.pt"


def call(name, *flags):
    """A script's main, with flags as on the command line."""
    module = script(name)
    module.main(module.parser().parse_args([str(flag) for flag in flags]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole run, only to be read."""
    return write_run(tmp_path_factory.mktemp("published") / "run")


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture
def imported(whole, tmp_path):
    call("import_published", whole, "--output-dir", tmp_path / "out")
    return tmp_path / "out"


def change(path, function):
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    function(content)
    dump(path, content)


def refused(run, output=None):
    """The one line that an import is refused with; it leaves nothing."""
    output = output or run.parent / "out"
    with pytest.raises(UserError) as caught:
        call("import_published", run, "--output-dir", output)
    assert "\n" not in str(caught.value)
    assert not output.exists()
    return str(caught.value).removeprefix(str(run)).lstrip("/")


def files(folder):
    """Path -> bytes, sidecars aside."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".spec.json"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def combinations(out):
    """Names of the combinations that were imported."""
    return sorted(path.name for path in (out / "combinations").iterdir())


class TestImport:
    def test_files(self, imported):
        both, one = ("harmful.jsonl", "harmless.jsonl"), ("harmful.jsonl",)
        answered = {"none": both, "0": one, "add-0": both[1:], "sub-0": one}
        expected = {"model.json", "directions.safetensors", "candidate_scores.csv"}
        expected |= {f"prompts/{prompts}_test.jsonl" for prompts in ("harmful", "harmless")}
        for name, sets in answered.items():
            folder = f"combinations/{name}"
            expected |= {f"{folder}/scores.json", *(f"{folder}/completions/{prompts}" for prompts in sets)}
            expected |= {f"{folder}/judgements/substring_matching_published/{prompts}" for prompts in sets}
            if "harmful.jsonl" in sets:
                expected.add(f"{folder}/judgements/llamaguard2_published/harmful.jsonl")
            if name != "add-0":
                expected.add(f"{folder}/loss.json")
        assert set(files(imported)) == expected
        assert all(sidecar(imported / name).exists() for name in expected)
        verify(imported / name for name in expected)

    def test_model_and_directions(self, imported, whole):
        record = read_json(imported / "model.json")
        assert (record["layers"], record["width"], record["refusal_tokens"]) == (LAYERS, 8, [])
        assert record["positions"][0] == {"position": -COUNT, "id": None, "token": None}
        assert record["load"] == {"published": str(whole)}
        assert len(record["identity"]["published"]) == len([path for path in whole.rglob("*") if path.is_file()])
        tensors, facts = read_tensors(imported / "directions.safetensors")
        np.testing.assert_array_equal(tensors["directions"], directions())
        assert facts["zero"] == [[True] + [False] * (LAYERS - 1)] * COUNT
        assert (facts["source"], facts["positions"]) == ("mean_difference", record["positions"])

    def test_scores(self, imported):
        table = read_table(imported / "candidate_scores.csv")
        assert list(table) == ["source", "position", "layer", "bypass", "induce", "kl", "note"]
        rows = score_table()
        assert list(table[["position", "layer"]].itertuples(index=False, name=None)) == [
            (one["position"], one["layer"]) for one in rows
        ]
        for mine, one in zip(table.itertuples(), rows, strict=True):
            if one["layer"] == 0:
                assert mine.note == "zero direction"
                assert math.isnan(mine.bypass)
            else:
                assert (mine.bypass, mine.induce, mine.kl) == (
                    one["refusal_score"],
                    one["steering_score"],
                    one["kl_div_score"],
                )

    def test_what_a_combination_was_measured_to_do(self, imported):
        best = published_filter(score_table(), LAYERS)[0]
        unknown = {"bypass": None, "harmless_refusal_score": None, "kl": None, "by_prompt": None}
        named = {
            "candidate": {"source": "mean_difference", "position": best["position"], "layer": best["layer"]},
            **unknown,
        }
        found = {path.parent.name: read_json(path) for path in imported.glob("combinations/*/scores.json")}
        assert found == {
            "none": unknown | {"kl": 0.0},
            "0": named | {"bypass": best["refusal_score"], "kl": best["kl_div_score"]},
            "add-0": named | {"harmless_refusal_score": best["steering_score"]},
            "sub-0": named,
        }

    def test_actadd_is_two_interventions(self, imported):
        """Added on harmless prompts; subtracted on harmful ones, and for the loss."""
        folder = imported / "combinations"
        assert len(read_jsonl(folder / "add-0" / "completions" / "harmless.jsonl")) == 2
        assert len(read_jsonl(folder / "sub-0" / "completions" / "harmful.jsonl")) == 3
        losses = {name: read_json(folder / name / "loss.json") for name in ("none", "0", "sub-0")}
        assert {name: found["pile"]["ce_loss"] for name, found in losses.items()} == {
            "none": 2.0,
            "0": 2.125,
            "sub-0": 2.25,
        }
        assert list(losses["none"]) == ["pile", "alpaca", "on_distribution"]
        assert losses["none"]["pile"]["nats"] is None

    def test_completions_and_prompts(self, imported):
        rows = read_jsonl(imported / "combinations" / "none" / "completions" / "harmful.jsonl")
        for number, (found, one) in enumerate(zip(rows, responses(HARMFUL, 3), strict=True), 1):
            unknown = dict.fromkeys(("n_tokens", "finish_reason", "stop_token", "token_ids"))
            assert found == {"id": f"jailbreakbench-{number}", **one, "reasoning": None, **unknown}
        prompts = read_jsonl(imported / "prompts" / "harmful_test.jsonl")
        assert [(one["id"], one["category"], one["instruction"]) for one in prompts] == [
            (f"jailbreakbench-{number}", *one) for number, one in enumerate(HARMFUL, 1)
        ]

    def test_verdicts(self, imported):
        rows = read_jsonl(imported / "combinations/sub-0/judgements/llamaguard2_published/harmful.jsonl")
        assert [one["verdict"] for one in rows] == ["refusal", "compliance", "compliance"]
        assert rows[0] == {
            "id": "jailbreakbench-1",
            "verdict": "refusal",
            "raw": "is_jailbreak_llamaguard2: 0",
            "reason": "verdict of the published run",
        }

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
    def test_any_float(self, tmp_path, dtype):
        run = write_run(tmp_path / "run", dtype=dtype)
        call("import_published", run, "--output-dir", tmp_path / "out")
        found = read_tensors(tmp_path / "out" / "directions.safetensors")[0]["directions"]
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, directions(), rtol=0.01, atol=1e-12)

    def test_the_same_bytes_again_and_nothing_of_an_earlier_run(self, run, tmp_path):
        out = tmp_path / "out"
        call("import_published", run, "--output-dir", out)
        first = files(out)
        (out / "ranking.csv").write_text("another stage's")
        call("import_published", run, "--output-dir", out)
        assert files(out) == first | {"ranking.csv": b"another stage's"}
        shutil.rmtree(run / "completions")
        shutil.rmtree(run / "loss_evals")
        call("import_published", run, "--output-dir", out)
        left = {"model.json", "directions.safetensors", "candidate_scores.csv", "ranking.csv"}
        assert set(files(out)) == left | {f"combinations/{name}/scores.json" for name in ("none", "0", "add-0")}
        assert len(list(out.rglob("*.spec.json"))) == 6


class TestWhatIsMissing:
    def said(self, run, caplog, *flags):
        caplog.set_level("INFO")
        caplog.clear()
        call("import_published", run, "--output-dir", run.parent / "out", *flags)
        return caplog.messages[:-1]

    def test_nothing(self, run, caplog):
        assert self.said(run, caplog) == []

    def test_no_evaluations_no_losses(self, run, caplog):
        for path in (*run.glob("completions/*_evaluations.json"), *run.glob("loss_evals/*")):
            path.unlink()
        assert self.said(run, caplog) == [
            *(f"missing: completions/jailbreakbench_{label}_evaluations.json" for label in published.LABELS),
            *(f"missing: completions/harmless_{label}_evaluations.json" for label in ("baseline", "actadd")),
            *(f"missing: loss_evals/{label}_loss_eval.json" for label in published.LABELS),
        ]  # fmt: skip
        assert not list((run.parent / "out").rglob("judgements"))

    def test_no_completions(self, run, caplog):
        shutil.rmtree(run / "completions")
        assert self.said(run, caplog)[0] == "missing: completions/HARMFUL_baseline_completions.json"
        assert (run.parent / "out" / "combinations" / "sub-0" / "loss.json").exists()

    def test_evaluations_stand_in_for_completions(self, run, caplog):
        for path in run.glob("completions/*_completions.json"):
            path.unlink()
        assert self.said(run, caplog) == []
        rows = read_jsonl(run.parent / "out/combinations/none/completions/harmful.jsonl")
        assert [one["response"] for one in rows] == [one["response"] for one in responses(HARMFUL, 3)]

    def test_no_candidate_was_left(self, tmp_path, caplog):
        """The published scripts stop there: no choice, no completions."""
        rows = [one | {"refusal_score": math.nan} for one in score_table()]
        run = write_run(tmp_path / "run", rows)
        assert "missing: direction_metadata.json" in self.said(run, caplog)
        table = read_table(tmp_path / "out" / "candidate_scores.csv")
        assert set(table.note) == {"zero direction", "not a number: bypass"}
        assert combinations(tmp_path / "out") == ["none"]

    def test_figures_of_an_unknown_direction_are_left_out(self, run, caplog):
        (run / "direction_metadata.json").unlink()
        (run / FILTERED).unlink()
        said = self.said(run, caplog)
        assert said[-1] == "left out: all of ablation and actadd: the run does not say with which direction"
        assert combinations(run.parent / "out") == ["none"]

    def test_the_best_that_was_left_is_the_choice(self, run, caplog):
        (run / "direction_metadata.json").unlink()
        assert self.said(run, caplog) == ["missing: direction_metadata.json"]
        assert combinations(run.parent / "out") == ["0", "add-0", "none", "sub-0"]

    def test_a_number_that_is_none(self, run, caplog):
        change(run / "loss_evals/ablation_loss_eval.json", lambda all_: all_["pile"].update(ce_loss=math.nan))
        self.said(run, caplog)
        assert read_json(run.parent / "out/combinations/0/loss.json")["pile"]["ce_loss"] is None

    def test_several_harmful_sets(self, tmp_path, caplog):
        run = write_run(tmp_path / "run", harmful=("jailbreakbench", "advbench"))
        where = tmp_path / "run" / "completions"
        with pytest.raises(UserError) as caught:
            self.said(run, caplog)
        assert str(caught.value) == f"{where}: its harmful sets are advbench, jailbreakbench: choose one as `harmful`"
        with pytest.raises(UserError, match=r"and not harmbench: choose one as `harmful`$"):
            self.said(run, caplog, "--harmful", "harmbench")
        assert self.said(run, caplog, "--harmful", "advbench") == [
            "left out: completions of jailbreakbench, another harmful set"
        ]
        assert read_jsonl(tmp_path / "out/prompts/harmful_test.jsonl")[0]["id"] == "advbench-1"

    def test_files_of_other_names(self, run, caplog):
        dump(run / "completions" / "notes.json", [])
        change(run / "loss_evals/baseline_loss_eval.json", lambda all_: all_.update(wiki={}))
        assert self.said(run, caplog) == [
            "left out: completions/notes.json: a name of no published file",
            "left out: loss_evals/baseline_loss_eval.json: wiki: a corpus of no published file",
        ]


def replace_row(number, **changes):
    return lambda rows: rows[number - 1].update(changes)


class TestFaults:
    """Each is one line that names the file and the row, and nothing is written."""

    @pytest.mark.parametrize(
        ("file", "function", "message"),
        [
            (EVALUATIONS, replace_row(3, layer="2"), "row 3: `layer` is '2': a whole number is needed"),
            (EVALUATIONS, replace_row(3, layer=True), "row 3: `layer` is True: a whole number is needed"),
            (EVALUATIONS, replace_row(3, kl_div_score="x"), "row 3: `kl_div_score` is 'x': a number is needed"),
            (
                EVALUATIONS,
                lambda rows: rows[3].pop("steering_score"),
                "row 4: `steering_score` is missing: a number is needed",
            ),
            (
                EVALUATIONS,
                lambda rows: rows.append(rows[0]),
                "row 21: position -2, layer 0 has two rows: fetch it again",
            ),
            (
                EVALUATIONS,
                replace_row(1, position=0),
                "row 1: position 0, layer 0: positions are below 0, and layers count from 0",
            ),
            (EVALUATIONS, lambda rows: rows.clear(), "holds no rows: fetch it again"),
            (EVALUATIONS, lambda rows: rows.append(5), "row 21: is no object: fetch it again"),
            (
                EVALUATIONS,
                lambda rows: rows.pop(0),
                "no row for position -2, layer 0, which generate_directions/mean_diffs.pt holds: fetch the run again",
            ),
            (
                EVALUATIONS,
                lambda rows: rows.append(row(-1, LAYERS, 0.0, -1.0, 0.0)),
                "position -1, layer 10 is outside generate_directions/mean_diffs.pt (2x10x8): fetch the run again",
            ),
            (
                FILTERED,
                replace_row(2, refusal_score=-99.0),
                f"row 2: {{second}} has other scores in {EVALUATIONS}, or none: fetch both again",
            ),
            (
                FILTERED,
                lambda rows: rows.reverse(),
                "row 2: {last_but_one} is better than the row above it: fetch it again",
            ),
            (FILTERED, lambda rows: rows.insert(1, rows[0]), "row 2: {first} has two rows: fetch it again"),
            (
                "direction_metadata.json",
                lambda chosen: chosen.update(pos=-1, layer=99),
                f"position -1, layer 99 has no row in {EVALUATIONS}: fetch both again",
            ),
            (
                "direction_metadata.json",
                lambda chosen: chosen.update(pos=-1, layer=0),
                f"names position -1, layer 0, and {FILTERED} begins with {{first}}: fetch both again",
            ),
            ("direction_metadata.json", lambda chosen: chosen.pop("pos"), "`pos` is missing: a whole number is needed"),
            (
                "completions/harmless_baseline_completions.json",
                replace_row(2, response=None),
                "row 2: `response` is None: text is needed",
            ),
            (
                "completions/harmless_baseline_completions.json",
                replace_row(2, response="\ud83d"),
                "row 2: `response` holds half a character (a lone surrogate): mend it",
            ),
            (
                "completions/harmless_baseline_evaluations.json",
                lambda found: found["completions"][1].update(response="other"),
                "row 2: another `response` than in harmless_baseline_completions.json: fetch both again",
            ),
            (
                "completions/harmless_baseline_evaluations.json",
                lambda found: found["completions"].pop(),
                "1 rows, and harmless_baseline_completions.json has 2: fetch both again",
            ),
            (
                "completions/harmless_baseline_evaluations.json",
                lambda found: found["completions"][1].update(is_jailbreak_substring_matching=0.5),
                "row 2: `is_jailbreak_substring_matching` is 0.5: the published scripts write 0 or 1",
            ),
            (
                "completions/harmless_baseline_evaluations.json",
                lambda found: found["completions"][1].update(is_jailbreak_other=1),
                "row 2: `is_jailbreak_other` stands in some rows and not in others: fetch it again",
            ),
            (
                "completions/harmless_baseline_evaluations.json",
                lambda found: found.pop("completions"),
                "holds no rows: fetch it again",
            ),
            (
                "loss_evals/actadd_loss_eval.json",
                lambda found: found["pile"].update(n_tokens=1.5),
                "pile: `n_tokens` is 1.5: a whole number is needed",
            ),
            (
                "loss_evals/actadd_loss_eval.json",
                lambda found: found.update(pile=5),
                "pile: must hold ce_loss, perplexity and n_tokens: fetch it again",
            ),
        ],
    )
    def test_json(self, run, file, function, message):
        best = [published.Place(one["position"], one["layer"]) for one in published_filter(score_table(), LAYERS)]
        change(run / file, function)
        named = {"first": best[0], "second": best[1], "last_but_one": best[-2]}
        assert refused(run) == f"{file}: {message.format(**named)}"

    def test_prompts_that_differ_between_labels(self, run):
        for content in ("completions", "evaluations"):
            rows = responses([("lexicon", "Another"), *HARMFUL[1:]], 0)
            path = run / "completions" / f"jailbreakbench_ablation_{content}.json"
            dump(path, rows if content == "completions" else {"completions": rows})
        assert refused(run) == (
            "completions/jailbreakbench_ablation_completions.json: row 1: another `prompt` than in"
            " jailbreakbench_baseline_completions.json: fetch both again"
        )

    @pytest.mark.parametrize(
        ("file", "content", "what"),
        [
            (EVALUATIONS, {"rows": []}, "a list"),
            ("direction_metadata.json", [], "an object"),
            ("completions/harmless_baseline_completions.json", {}, "a list"),
            ("completions/harmless_baseline_evaluations.json", [], "an object with `completions`"),
            ("loss_evals/baseline_loss_eval.json", 5, "an object"),
        ],
    )
    def test_another_kind_of_content(self, run, file, content, what):
        dump(run / file, content)
        assert refused(run) == f"{file}: must hold {what}, as the published scripts write it"

    @pytest.mark.parametrize("content", ["{", "", "\xff"])
    def test_no_json(self, run, content):
        (run / FILTERED).write_bytes(content.encode("latin-1"))
        assert refused(run).startswith(f"{FILTERED}: not valid JSON (")

    def test_no_such_run(self, tmp_path):
        hint = "name a run of the published scripts (pipeline/runs/MODEL)"
        assert refused(tmp_path / "nowhere") == f": no such folder: {hint}"
        (tmp_path / "empty").mkdir()
        assert refused(tmp_path / "empty") == f"{EVALUATIONS}: no such file: {hint}"

    def test_tensors(self, run):
        whole = directions()
        position, layer = read_run(run).choice
        write_tensor(run / "direction.pt", whole[position, layer] + 1e-9)
        assert refused(run) == (
            f"direction.pt: is not the direction that {MEAN_DIFFS} holds at position {position}, layer {layer}, which"
            " was chosen: fetch the run again"
        )
        write_tensor(run / MEAN_DIFFS, whole[0])
        assert refused(run) == f"{MEAN_DIFFS}: has 2 dimensions (10x8): 3 are needed"
        whole[1, 3, 2] = math.nan
        write_tensor(run / MEAN_DIFFS, whole)
        assert refused(run) == (
            f"{MEAN_DIFFS}: position -1, layer 3: the direction holds NaN or infinity: compute it again"
        )
        (run / MEAN_DIFFS).unlink()
        assert refused(run) == f"{MEAN_DIFFS}: no such file: fetch it too, the directions stand there alone"

    def test_a_failed_import_leaves_an_earlier_one(self, run, tmp_path):
        call("import_published", run, "--output-dir", tmp_path / "out")
        before = files(tmp_path / "out")
        change(run / EVALUATIONS, replace_row(3, layer="2"))
        with pytest.raises(UserError):
            call("import_published", run, "--output-dir", tmp_path / "out")
        assert files(tmp_path / "out") == before


def ranking(out, *flags):
    """The ranking stage, with its defaults where no flags are given; its ranked rows."""
    call(
        "ranking", "--model", out / "model.json", "--scores", out / "candidate_scores.csv",
        "--directions", out / "directions.safetensors", "--output", out / "ranking.csv",
        "--top-directions", out / "top_directions.safetensors", "--cosines", out / "cosines.csv", *flags,
    )  # fmt: skip
    table = read_table(out / "ranking.csv")
    return table[table["rank"].notna()].sort_values("rank")


nan_or = st.one_of(st.just(math.nan), st.floats(-30, 30))
SCORES = st.lists(
    st.tuples(st.one_of(nan_or, st.integers(-3, 3).map(float)), nan_or, st.one_of(st.just(0.1), st.floats(0, 0.3))),
    min_size=COUNT * (LAYERS - 1),
    max_size=COUNT * (LAYERS - 1),
)


@settings(max_examples=40)
@given(SCORES)
def test_ranking_keeps_and_orders_as_the_published_filter(tmp_path_factory, drawn):
    """From an imported table; where two scores are equal to the last bit, we go by layer and they by position."""
    places = [(position, layer) for position in range(-COUNT, 0) for layer in range(1, LAYERS)]
    rows = [row(*place, *scores) for place, scores in zip(places, drawn, strict=True)]
    rows += [row(position, 0, 5.0, -5.0, 0.0) for position in range(-COUNT, 0)]  # no direction, no effect
    expected = published_filter(rows, LAYERS)
    folder = tmp_path_factory.mktemp("drawn")
    out = folder / "out"
    mean_diffs = directions()
    write_tensor(folder / "run" / MEAN_DIFFS, mean_diffs)
    dump(folder / "run" / EVALUATIONS, rows)
    if expected:
        dump(folder / "run" / FILTERED, expected)
    call("import_published", folder / "run", "--output-dir", out)
    if not expected:
        with pytest.raises(UserError, match=r"^ranking: no candidate of 20 is left"):
            ranking(out)
        return
    found = ranking(out)
    assert list(found.bypass) == [one["refusal_score"] for one in expected]
    assert {*zip(found.position, found.layer, strict=True)} == {(one["position"], one["layer"]) for one in expected}
    scores = [one["refusal_score"] for one in expected]
    alone = [number for number, score in enumerate(scores) if scores.count(score) == 1]
    for number in alone:
        one = found.iloc[number]
        assert (one.position, one.layer) == (expected[number]["position"], expected[number]["layer"])
    np.testing.assert_array_equal(
        read_tensors(out / "top_directions.safetensors")[0]["directions"],
        [mean_diffs[one.position, one.layer] for one in found.itertuples()],
    )


class TestFilters:
    """Runs were made with other filters too, which they do not record."""

    def ranked(self, tmp_path, caplog, **filters):
        run = write_run(tmp_path / "run", **filters)
        caplog.set_level("INFO")
        call("import_published", run, "--output-dir", tmp_path / "out")
        said = [line for line in caplog.messages if line.startswith("kept by other filters")]
        flags = said[0].split(" needs ")[1].split() if said else []
        found = ranking(tmp_path / "out", *flags)
        expected = published_filter(score_table(), LAYERS, **filters)
        assert [*zip(found.position, found.layer, strict=True)] == [(one["position"], one["layer"]) for one in expected]
        return flags

    def test_the_published_ones(self, tmp_path, caplog):
        assert self.ranked(tmp_path, caplog) == []

    def test_looser(self, tmp_path, caplog):
        flags = self.ranked(tmp_path, caplog, max_kl=0.25, min_induce=-3.0, pruned=0.0)
        assert [flag.split("=")[0] for flag in flags] == ["--max-kl", "--min-induce", "--max-layer-share"]

    def test_tighter(self, tmp_path, caplog):
        assert len(self.ranked(tmp_path, caplog, max_kl=0.03, pruned=0.5)) == 3

    @given(st.integers(0, 50), st.floats(0.01, 0.4), st.floats(-4, 2), st.sampled_from([0.0, 0.1, 0.2, 0.45]))
    def test_survivors_are_the_same_whatever_the_filters_were(self, seed, max_kl, min_induce, pruned):
        rows = score_table(seed)
        kept = published_filter(rows, LAYERS, max_kl, min_induce, pruned)
        scores = {
            published.Place(one["position"], one["layer"]): {
                "bypass": one["refusal_score"],
                "induce": one["steering_score"],
                "kl": one["kl_div_score"],
            }
            for one in rows
        }
        survivors = [published.Place(one["position"], one["layer"]) for one in kept]
        run = published.Run(Path("run"), scores, survivors, None, {}, {}, {}, {}, ())
        if not kept and published_filter(rows, LAYERS):
            with pytest.raises(
                UserError, match=r"^run/select_direction/direction_evaluations_filtered\.json: is empty, "
            ):
                published.thresholds(run)
            return
        found = published.thresholds(run)
        limit = int(found["max_layer_share"] * LAYERS)
        again = published_filter(
            [one for one in rows if one["layer"] < limit], LAYERS, found["max_kl"], found["min_induce"], 0.0
        )
        if kept:
            assert again == kept
        else:
            assert found == published.FILTERS

    def test_a_survivor_that_is_missing(self, tmp_path):
        """No filters keep the first and not the second, which is within every threshold that the first meets."""
        kept = {(-2, 5): (-3.0, 1.0, 0.05), (-1, 3): (-2.0, 2.0, 0.02)}
        rows = [
            row(position, layer, *kept.get((position, layer), (0.0, 0.0, 1.0)))
            for position in range(-COUNT, 0)
            for layer in range(LAYERS)
        ]
        run = write_run(tmp_path / "run", rows)
        change(run / FILTERED, lambda rows: rows.pop(1))
        assert refused(run) == (
            f"{FILTERED}: lacks position -1, layer 3, whose scores are within those of the rows there: fetch it again"
        )

    def test_all_fell_by_filters_that_are_not_known(self, run):
        (run / "direction_metadata.json").unlink()
        dump(run / FILTERED, [])
        kept = sorted((one["position"], one["layer"]) for one in published_filter(score_table(), LAYERS))
        assert refused(run) == (
            f"{FILTERED}: is empty, though the published filters keep {published.Place(*kept[0])}: the run was"
            " made with others, which it does not record: remove the file to rank by the published ones"
        )
        (run / FILTERED).unlink()
        call("import_published", run, "--output-dir", run.parent / "out")
        assert len(ranking(run.parent / "out")) == len(kept)

    def test_a_choice_by_filters_that_are_not_known(self, tmp_path, caplog):
        run = write_run(tmp_path / "run", max_kl=0.4, min_induce=-9.0, pruned=0.0)
        (run / FILTERED).unlink()
        chosen = read_run(run).choice
        assert chosen != published.Place(*list(published_filter(score_table(), LAYERS)[0].values())[:2])
        assert refused(run) == (
            f"direction_metadata.json: names {chosen}, which is not the best that the published filters keep: fetch"
            f" {FILTERED}, which says what the run kept"
        )

    def test_a_zero_direction_that_was_kept_is_said(self, tmp_path, caplog):
        caplog.set_level("INFO")
        run = write_run(tmp_path / "run", min_induce=-9.0)
        call("import_published", run, "--output-dir", tmp_path / "out")
        said = [line for line in caplog.messages if line.endswith("which the run kept: its direction is zero")]
        assert said == [
            f"left out: position {position}, layer 0, which the run kept: its direction is zero"
            for position in (-2, -1)
        ]


THOUGHT = "Hm, what is\nthat.\n</think>\n\n"


class TestReasoning:
    """Responses of reasoning models hold it; of ours it stands apart."""

    @pytest.fixture
    def reasoned(self, run):
        written = (THOUGHT + "I cannot do that.", "<think>Hm", "I cannot do that.")
        for content in ("completions", "evaluations"):

            def change_all(found):
                rows = found if isinstance(found, list) else found["completions"]
                for one, response in zip(rows, written, strict=True):
                    one["response"] = response

            change(run / f"completions/jailbreakbench_baseline_{content}.json", change_all)
        return run

    def test_is_kept_apart_said_and_comes_back(self, reasoned, tmp_path, caplog):
        caplog.set_level("INFO")
        out = tmp_path / "out"
        call("import_published", reasoned, "--output-dir", out)
        assert caplog.messages[0] == (
            "2 of 13 responses hold reasoning, up to </think>, which is not judged; the other 11 are judged whole: of"
            " one that was cut within its reasoning a run does not tell"
        )
        rows = read_jsonl(out / "combinations/none/completions/harmful.jsonl")
        assert [(one["reasoning"], one["response"]) for one in rows] == [
            (THOUGHT, "I cannot do that."),
            ("<think>Hm", ""),
            (None, "I cannot do that."),
        ]
        call("export_published", out, "--harmful", "jailbreakbench", "--output-dir", tmp_path / "back")
        name = "completions/jailbreakbench_baseline_completions.json"
        assert (tmp_path / "back" / name).read_bytes() == (reasoned / name).read_bytes()

    @given(st.text("<think>/ \nab", max_size=30) | st.text())
    def test_reasoning_and_answer_are_the_response(self, text):
        reasoning, answer = published.answer_of(text)
        assert (reasoning or "") + answer == text
        assert reasoning is None or answer == answer.lstrip()


class TestExport:
    def test_import_then_export_is_the_identity(self, imported, whole, tmp_path):
        call("export_published", imported, "--harmful", "jailbreakbench", "--output-dir", tmp_path / "back")
        given = {name: content for name, content in files(whole).items() if name.endswith("_completions.json")}
        assert files(tmp_path / "back") == given
        assert len(given) == 5

    @settings(max_examples=25)
    @given(st.lists(st.tuples(st.none() | st.text(max_size=5), st.text(max_size=9), st.text(max_size=30)), min_size=1))
    def test_of_any_text(self, tmp_path_factory, drawn):
        folder = tmp_path_factory.mktemp("text")
        rows = [
            {"category": category, "prompt": prompt, "response": response.strip()}
            for category, prompt, response in drawn
        ]
        path = folder / "run" / "completions" / "some_set_baseline_completions.json"
        dump(path, rows)
        dump(folder / "run" / EVALUATIONS, score_table())
        write_tensor(folder / "run" / MEAN_DIFFS, directions())
        call("import_published", folder / "run", "--output-dir", folder / "out")
        call("export_published", folder / "out", "--harmful", "some_set", "--output-dir", folder / "back")
        assert files(folder / "back") == {"completions/some_set_baseline_completions.json": path.read_bytes()}

    @pytest.mark.parametrize(
        ("combination", "prompts", "place"),
        [
            ("none", "harmful", "completions/jbb_baseline_completions.json"),
            ("none", "borderline", "completions/borderline_baseline_completions.json"),
            ("0", "harmful", "completions/jbb_ablation_completions.json"),
            ("0", "harmless", "completions/harmless_ablation_completions.json"),
            ("add-0", "harmless", "completions/harmless_actadd_completions.json"),
            ("sub-0", "harmful", "completions/jbb_actadd_completions.json"),
            ("add-0", "harmful", "add-0/completions/jbb_addition_completions.json"),
            ("sub-0", "harmless", "sub-0/completions/harmless_subtraction_completions.json"),
            ("add-1", "harmless", "add-1/completions/harmless_actadd_completions.json"),
            ("1", "harmful", "1/completions/jbb_ablation_completions.json"),
            ("0-2", "harmful", "0-2/completions/jbb_ablation_completions.json"),
            ("random-k1-s0", "harmful", "random-k1-s0/completions/jbb_ablation_completions.json"),
        ],
    )
    def test_places(self, combination, prompts, place):
        assert str(published.place_of(combination, prompts, "jbb")) == place

    def test_no_two_share_a_place(self):
        names = ("none", "0", "1", "0-1", "random-k1-s0", "add-0", "sub-0", "add-1", "sub-1")
        sets = ("harmful", "harmless", "borderline")
        assert len({published.place_of(name, prompts, "jbb") for name in names for prompts in sets}) == 27

    def test_space_around_a_response_is_left_out(self):
        text = published.completions_json(
            [{"category": None, "prompt": " p ", "reasoning": None, "response": "\n a b ", "id": "x"}]
        )
        assert json.loads(text) == [{"category": None, "prompt": " p ", "response": "a b"}]

    def test_another_content_is_never_overwritten(self, imported, tmp_path):
        flags = (imported, "--output-dir", tmp_path / "back")
        call("export_published", *flags)
        call("export_published", *flags)  # the same content
        changed = tmp_path / "back" / "completions" / "harmful_actadd_completions.json"
        changed.write_text("[]")
        (tmp_path / "back" / "completions" / "harmful_ablation_completions.json").unlink()
        before = files(tmp_path / "back")
        with pytest.raises(UserError) as caught:
            call("export_published", *flags)
        assert str(caught.value) == (
            f"{changed}: is there with another content: remove it, or choose another --output-dir"
        )
        assert files(tmp_path / "back") == before

    def test_faults(self, imported, tmp_path):
        with pytest.raises(UserError) as caught:
            call("export_published", tmp_path / "nothing", "--output-dir", tmp_path / "back")
        assert str(caught.value) == (
            f"{tmp_path / 'nothing'}: no combinations/*/completions/*.jsonl: name the folder of a study's results"
        )
        for name in ("harmless", "a/b", ""):
            with pytest.raises(
                UserError, match=r"^--harmful '.*': give letters, digits and _ \. - and no other set's name$"
            ):
                call("export_published", imported, "--harmful", name, "--output-dir", tmp_path / "back")
        path = imported / "combinations" / "none" / "completions" / "harmful.jsonl"
        path.write_text(path.read_text().replace("I cannot", "I can"))
        with pytest.raises(UserError, match=r"changed since the import_published step wrote it"):
            call("export_published", imported, "--output-dir", tmp_path / "back")
        assert not (tmp_path / "back").exists()
