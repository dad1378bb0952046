"""Studies by their name or their model's place, with errors that name the step that is missing."""

import numpy as np
import pytest
from conftest import script

from refusal.artifacts import read_tensors, write_json, write_tensors
from refusal.cache import content, held
from refusal.errors import UserError
from refusal.provenance import Spec, stamp
from refusal.talk.finished import Figures, figures, of_model, of_place

BASIS = "combinations/none/basis.safetensors"
COMMAND = f"snakemake --cores 1 results/{{}}/{BASIS}"


@pytest.fixture
def at(tmp_path, monkeypatch):
    """Model files of four models; `one` has its ranks, `two` is of the hub and described alone."""
    monkeypatch.chdir(tmp_path)
    models = tmp_path / "config" / "models"
    models.mkdir(parents=True)
    for name, text in {"one": "path: weights", "two": "id: a/b", "three": "id: c/d", "four": "id: c/d"}.items():
        (models / f"{name}.yaml").write_text(text)
    results = tmp_path / "results"
    write_json(results / "one" / "model.json", {"load": {"folder": "weights"}})
    write_json(results / "two" / "model.json", {"load": {"id": "a/b", "revision": None}})
    write_tensors(
        results / "one" / "top_directions.safetensors",
        {"directions": np.random.default_rng(0).standard_normal((3, 8))},
        {"candidates": [{"rank": n, "source": "mean_difference", "position": -1, "layer": n} for n in range(3)]},
    )
    bases(results / "one", ["none", "0-2", "add-1", "random-k2-s0"], "sequential")
    return results


def bases(folder, names, ablation):
    """The bases step."""
    stage = script("bases")
    outputs = [str(folder / "combinations" / name / "basis.safetensors") for name in names]
    flags = ["--top-directions", str(folder / "top_directions.safetensors"), "--ablation", ablation, "--seed", "7"]
    stage.main(stage.parser().parse_args([*flags, "--combinations", *names, "--outputs", *outputs]))


def refused(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    return str(caught.value)


def test_the_study_s_own_choices_whatever_the_combination(at):
    study = of_model("one", at, at.parent)
    assert study.described == "one: ranks 0-2, ablation sequential, greedy"
    for name in ("0-2", "add-1", "random-k2-s0"):
        arrays, facts = study.ranked.tensors(study.combination(name))
        path = at / "one" / "combinations" / name / "basis.safetensors"
        expected, metadata = read_tensors(path)
        assert facts == metadata
        assert held(arrays, facts) == content(path)
        assert arrays.keys() == expected.keys()
        assert all(np.array_equal(arrays[key], expected[key]) for key in arrays)
    assert study.combination("2-0-1").id == "0-1-2"


def test_ranks_that_are_not_there(at):
    study = of_model("one", at, at.parent)
    said = refused(study.combination, "0-9")
    assert (
        said == f'"0-9": {at / "one" / "top_directions.safetensors"} keeps 3 candidates (ranks 0-2): name other ranks'
    )
    said = refused(study.combination, "random-k8-s0")
    assert said == '"random-k8-s0": leaves nothing of the residual stream, which is 8 wide: name other ranks'
    assert study.combination("random-k7-s0").size == 7
    assert refused(study.combination, "best").startswith('"best" is no combination: write ranks joined by "-"')


def test_decoding_of_the_study(at):
    record = {"parameters": {"decoding": {"temperature": 0.7, "top_p": 0.9, "seed": 1}}}
    write_json(at / "one" / "combinations" / "none" / "completions" / "harmful.jsonl.spec.json", record)
    study = of_model("one", at, at.parent)
    assert study.described == "one: ranks 0-2, ablation sequential, sampled (temperature 0.7, top_p 0.9)"
    assert study.sampling == record["parameters"]["decoding"]


def test_not_so_far(at):
    root = at.parent
    said = refused(of_model, "six", at, root)
    assert said == f"unknown model 'six': {at}/ has one, two; config/models/ has four, one, three, two"
    assert refused(of_model, "three", at, root) == f"{at}/three/model.json: not made yet: run {COMMAND.format('three')}"
    said = refused(of_model, "two", at, root)
    assert said == f"{at}/two/top_directions.safetensors: not made yet: run {COMMAND.format('two')}"
    (at / "one" / "combinations" / "none" / "basis.safetensors").unlink()
    said = refused(of_model, "one", at, root)
    assert said == f"{at}/one/combinations/none/basis.safetensors: not made yet: run {COMMAND.format('one')}"


@pytest.mark.parametrize("place", ["weights", "./weights/", "results/one"])
def test_by_place(at, place):
    assert of_place(place, at, at.parent).name == "one"


def test_places_without_a_study(at):
    root = at.parent
    assert refused(of_place, "a/b", at, root).startswith(f"{at}/two/top_directions.safetensors: not made yet: run")
    assert (
        refused(of_place, "c/d", at, root) == "c/d: several studies of it: choose one by --model four or --model three"
    )
    assert refused(of_place, "e/f", at, root) == (
        f"e/f: no study in {at}/ is of a model there: name one by --model (one, two), or write its file by make"
        f" new-model, then run {COMMAND.format('NAME')}"
    )

    (at / "one" / "model.json").unlink()
    assert refused(of_place, "weights", at, root).startswith(f"{at}/one/model.json: not made yet: run")


def test_made_from_others_than_those_that_are_there_now(at):
    folder, root = at / "one", at.parent
    top, model = folder / "top_directions.safetensors", folder / "model.json"
    stamp(top, Spec("ranking", "", {}), {"model": model})
    assert of_model("one", at, root).name == "one"
    write_json(model, {"load": {"folder": "weights"}, "identity": "another"})
    said = refused(of_model, "one", at, root)
    assert said == f"{top}: made from an older {model} than the one there now: run {COMMAND.format('one')}"
    stamp(top, Spec("ranking", "", {}), {"model": model})
    of_model("one", at, root)
    write_tensors(top, {"directions": np.ones((1, 8))}, {"candidates": [{}]})
    stamp(top, Spec("ranking", "", {}), {"model": model})
    said = refused(of_model, "one", at, root)
    assert said == f"{folder}/{BASIS}: made from an older {top} than the one there now: run {COMMAND.format('one')}"


def test_figures_of_the_first_judge(at):
    study = of_model("one", at, at.parent)
    assert figures(study) == Figures("", {})
    (at / "one" / "summary.csv").write_text(
        "combination,bypass,kl,harmful_a_refusal_rate,harmful_a_refusal_low,harmful_a_refusal_high,harmful_n,"
        "harmful_b_refusal_rate,ce_text,ce_text_delta,ce_text_delta_low,ce_text_delta_high\n"
        "none,1.5,-1e-9,1.0,0.86,1.0,24,0.5,2.0,-0.0,,\n0-2,-3.25,,0.25,0.1,0.4,24,0.5,2.0,0.0125,0.01,0.02\n"
    )
    none = {"bypass": "1.50", "KL": "0.000", "harmful refused": "100% (86% to 100%)", "CE text": "+0.000"}
    some = {"bypass": "-3.25", "KL": "", "harmful refused": "25% (10% to 40%)", "CE text": "+0.013 (+0.010 to +0.020)"}
    assert figures(study) == Figures("refused: by a, n = 24", {"none": none, "0-2": some})


def test_figures_say_n_of_each_set_where_they_differ_and_know_a_delta_from_a_corpus_called_so(at):
    study = of_model("one", at, at.parent)
    (at / "one" / "summary.csv").write_text(
        "combination,bypass,kl,harmful_a_refusal_rate,harmful_n,harmless_a_refusal_rate,harmless_n,"
        "ce_x_delta,ce_x_delta_delta,ce_x_delta_delta_low,ce_x_delta_delta_high\n"
        "none,1.5,0,1.0,24,0.5,10,2.0,0.0,,\n"
    )
    found = figures(study)
    assert found.basis == "refused: by a, n = 24 harmful, 10 harmless"
    assert [words for words in found.of["none"] if words.startswith("CE")] == ["CE x_delta"]


def test_figures_of_other_ranks_are_not_shown(at):
    study, folder = of_model("one", at, at.parent), at / "one"
    (folder / "summary.csv").write_text("combination,bypass,kl\n0-2,-3.25,0.5\n")
    names = ("0-2", "random-k2-s0")
    used = {
        f"one/combinations/{name}/basis.safetensors": folder / f"combinations/{name}/basis.safetensors"
        for name in names
    }
    stamp(folder / "summary.csv", Spec("summary", "", {}), used)
    assert figures(study) == Figures("", {"0-2": {"bypass": "-3.25", "KL": "0.500"}})
    (folder / "combinations/random-k2-s0/basis.safetensors").unlink()  # no longer in the study
    assert figures(study) == Figures("", {"0-2": {"bypass": "-3.25", "KL": "0.500"}})
    (folder / "combinations/0-2/basis.safetensors").write_bytes(b"of other ranks")
    assert figures(study) == Figures("", {})
