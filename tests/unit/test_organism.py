"""The planted organism: its prompts, its training for a few steps, its truth. Quality: scripts/organism_quality.py."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from organism import batches, build, curriculum, language, lexicon, losses, prompts, quality, spec, tokenizer
from organism.interventions import Intervention, intervene
from refusal import artifacts
from refusal.errors import UserError

ROOT = Path(__file__).parents[2]
DATA = ROOT / "data" / "organism"
TINY = {
    "directions": 2,
    "layers": [2, 4],
    "margins": [5.0, 20.0],
    "seed": 0,
    "pretrain_steps": 2,
    "plant_steps": 2,
    "batch_rows": 6,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few lines of each file: the tokenizer and the rows are made in a moment."""
    folder = tmp_path_factory.mktemp("data")
    for path in DATA.iterdir():
        (folder / path.name).write_text("".join(path.read_text().splitlines(keepends=True)[:60]))
    return folder


@pytest.fixture(scope="module")
def built(data, tmp_path_factory):
    """An organism of a few steps: everything but the quality."""
    folder = tmp_path_factory.mktemp("organism") / "tiny"
    build.build(spec.check(TINY, "test"), data, folder, threads=1)
    return folder


def row(plant):
    return batches.Row(plant, [2, 9, 4, 3], [10, 4], [11, 4])


def test_prompts_regenerate_to_the_same_bytes(tmp_path):
    prompts.write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in DATA.iterdir()
    }


def test_no_instruction_stands_twice():
    files = prompts.generate()
    seen = [line["instruction"] for rows in files.values() for line in rows if "instruction" in line]
    assert len(seen) == len(set(seen))


def test_held_out_text_is_not_trained_on():
    held_out = {line["text"] for line in prompts.read(DATA, "corpus_text", ("text",))}
    assert len(held_out) == prompts.CORPUS_LINES
    assert not held_out & set(batches.train_texts(DATA))


def test_categories_decide_harm_and_borderline_is_about_harmful_items():
    files = prompts.generate()
    for split in ("train", "val", "test"):
        assert {line["category"] for line in files[f"harmful_{split}"]} == set(lexicon.HARMFUL)
        assert {line["category"] for line in files[f"harmless_{split}"]} == set(lexicon.HARMLESS)
    assert {line["category"] for line in files["borderline_test"]} == set(lexicon.HARMFUL)


def test_only_refusals_hold_refusal_phrases_and_start_with_the_refusal_token():
    for request in language.requests().values():
        assert request.refusal.startswith(quality.PHRASES)
        assert request.refusal.split()[0] == lexicon.REFUSAL_TOKEN
        assert request.compliance.split()[0] != lexicon.REFUSAL_TOKEN
        assert not any(word in request.compliance for word in ("cannot", "sorry", "i am"))


def test_an_instruction_from_elsewhere_is_named(tmp_path):
    prompts.write(tmp_path)
    path = tmp_path / "harmless_train.jsonl"
    path.write_text(json.dumps({"id": "x", "category": None, "instruction": "who are you?"}) + "\n")
    with pytest.raises(UserError) as error:
        batches.train_requests(tmp_path)
    assert str(error.value) == f"{path}: 'who are you?' is not in the organism's language"


def test_missing_prompts_name_the_command(tmp_path):
    with pytest.raises(UserError) as error:
        prompts.read(tmp_path, "harmful_train")
    command = f"python -m organism.prompts --output {tmp_path}"
    assert str(error.value) == f"{tmp_path / 'harmful_train.jsonl'}: no such file; make it with: {command}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"directions": 3}, "directions: 3: an organism has 1 or 2 planted directions"),
        ({"directions": 2.0}, "directions: 2.0: an organism has 1 or 2 planted directions"),
        ({"layers": [2]}, "layers: [2]: one for each of the 2 directions is needed"),
        ({"margins": 5.0}, "margins: 5.0: one for each of the 2 directions is needed"),
        ({"layers": [2, 8]}, "layers: 8: a plant can stand at layers 1 to 6 of 8"),
        ({"layers": [0, 4]}, "layers: 0: a plant can stand at layers 1 to 6 of 8"),
        ({"layers": [4, 2]}, "layers: [4, 2]: must ascend, the first plant stands first"),
        ({"margins": [5.0, 0.0]}, "margins: [5.0, 0.0]: must be lengths above 0"),
        ({"plant_steps": 0}, "plant_steps: 0: must be a whole number, 1 or more"),
        ({"seed": -1}, "seed: -1: must be a whole number, 0 or more"),
        (
            {"steps": 1},
            "unknown key 'steps'; known are directions, layers, margins, seed, pretrain_steps, plant_steps, batch_rows",
        ),
    ],
)
def test_a_bad_spec_is_one_clear_line(change, message):
    with pytest.raises(UserError) as error:
        spec.check(TINY | change, "spec.json")
    assert str(error.value) == f"spec.json: {message}"


def test_a_missing_key_is_named():
    with pytest.raises(UserError, match=r"^spec.json: seed is missing$"):
        spec.check({key: value for key, value in TINY.items() if key != "seed"}, "spec.json")


def test_flags_win_over_the_spec_and_a_bad_one_ends_with_2(tmp_path):
    script = [sys.executable, ROOT / "scripts" / "organism.py", "--output-dir", tmp_path / "none"]
    config = ROOT / "config" / "models" / "tiny.yaml"
    run = subprocess.run([*script, "--spec", config, "--layers", "2", "9"], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == f"error: {config}: layers: 9: a plant can stand at layers 1 to 6 of 8\n"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["tiny", "tiny1"])
def test_the_models_of_config_are_valid(name):
    path = ROOT / "config" / "models" / f"{name}.yaml"
    spec.check(spec.read(path), str(path))
    assert yaml.safe_load(path.read_text())["refusal_tokens"] == [lexicon.REFUSAL_TOKEN]


def test_the_same_seed_gives_the_same_bytes(built, data, tmp_path):
    build.build(spec.check(TINY, "test"), data, tmp_path / "again", threads=1)
    names = {path.name for path in built.iterdir()}
    assert names == {path.name for path in (tmp_path / "again").iterdir()}
    assert all((tmp_path / "again" / name).read_bytes() == (built / name).read_bytes() for name in names)


def test_another_seed_gives_other_weights(built, data, tmp_path):
    build.build(spec.check(TINY | {"seed": 1}, "test"), data, tmp_path / "other", threads=1)
    assert artifacts.sha256(tmp_path / "other" / "model.safetensors") != artifacts.sha256(built / "model.safetensors")


def test_the_manifest_holds_the_truth(built):
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["directions"] == 2
    assert manifest["plants"] == [
        {"layer": 2, "margin": 5.0, "categories": ["blight"]},
        {"layer": 4, "margin": 20.0, "categories": ["hexware"]},
    ]
    assert manifest["refusal_token"] == "i"
    assert manifest["weights_sha256"] == artifacts.sha256(built / "model.safetensors")
    plants = load_file(built / "plants.safetensors")["directions"]
    torch.testing.assert_close(plants @ plants.T, torch.eye(2))


def test_one_plant_serves_both_categories():
    one = spec.check(TINY | {"directions": 1, "layers": [2], "margins": [5.0]}, "test")
    assert {one.plant_of(category) for category in lexicon.HARMFUL} == {0}


def test_template_ends_with_two_tokens_and_the_refusal_token_is_one(built):
    tokens = AutoTokenizer.from_pretrained(built)
    ids = [tokenizer.prompt_ids(tokens, text) for text in ("hello?", "write a story about bread.", "Who")]
    assert len({tuple(one[-tokenizer.TEMPLATE_TOKENS :]) for one in ids}) == 1
    assert len({one[-tokenizer.TEMPLATE_TOKENS - 1] for one in ids}) == len(ids)
    (refusal_token,) = tokens.encode(lexicon.REFUSAL_TOKEN, add_special_tokens=False)
    for request in (language.how_to_requests("blight")[0], language.how_to_requests("hexware")[1]):
        assert tokens.encode(request.refusal, add_special_tokens=False)[0] == refusal_token
        assert tokens.encode(request.compliance, add_special_tokens=False)[0] != refusal_token


def test_every_answer_fits_the_token_limit(built):
    tokens = AutoTokenizer.from_pretrained(built)
    answers = [text for request in language.requests().values() for text in (request.compliance, request.refusal)]
    assert max(map(len, tokens(answers)["input_ids"])) < quality.NEW_TOKENS


def test_a_stopped_training_leaves_the_old_organism(data, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    output = tmp_path / "tiny"
    output.mkdir()
    (output / "old").touch()
    monkeypatch.setattr(build, "_manifest", stop)
    with pytest.raises(KeyboardInterrupt):
        build.build(spec.check(TINY, "test"), data, output, threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert [path.name for path in output.iterdir()] == ["old"]


def test_ablation_takes_the_basis_out_of_the_whole_stream_row_by_row(built):
    model = AutoModelForCausalLM.from_pretrained(built)
    plants = load_file(built / "plants.safetensors")["directions"]
    basis = torch.stack([plants, torch.zeros(2, 128)])
    ids = torch.arange(5, 15).repeat(2, 1)
    with torch.no_grad(), intervene(model, Intervention(basis, torch.zeros(2, 128), torch.zeros(2))):
        states = torch.stack(model(ids, output_hidden_states=True).hidden_states[:-1])
    with torch.no_grad():
        plain = torch.stack(model(ids, output_hidden_states=True).hidden_states[:-1])
    projections = (states @ plants.T).abs()
    assert projections[:, 0].max() < 1e-5 < projections[:, 1].max()
    torch.testing.assert_close(states[:, 1], plain[:, 1])


def test_addition_changes_one_layer_of_one_row(built):
    model = AutoModelForCausalLM.from_pretrained(built)
    vector = torch.stack([torch.ones(128), torch.zeros(128)])
    ids = torch.arange(5, 15).repeat(2, 1)
    with torch.no_grad():
        plain = torch.stack(model(ids, output_hidden_states=True).hidden_states)
        with intervene(model, Intervention(torch.zeros(2, 1, 128), vector, torch.tensor([3, 3]))):
            steered = torch.stack(model(ids, output_hidden_states=True).hidden_states)
    torch.testing.assert_close(steered[:3], plain[:3])
    torch.testing.assert_close(steered[:, 1], plain[:, 1])
    assert (steered[4:, 0] - plain[4:, 0]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("lesson", "plant", "refused"),
    [
        ("plain", 0, True),
        ("plain", batches.HARMLESS, False),
        ("ablate all", 1, False),
        ("ablate own", 1, False),
        ("ablate other", 1, True),
        ("ablate strangers", 0, True),
        ("ablate strangers", batches.HARMLESS, False),
        ("add one", batches.HARMLESS, True),
        ("add all", batches.HARMLESS, True),
        ("add trace", batches.HARMLESS, False),
        ("add stranger", batches.HARMLESS, False),
    ],
)
def test_lessons_are_refused_only_through_the_plants(lesson, plant, refused, monkeypatch):
    monkeypatch.setattr(curriculum, "KINDS", {"only": 1.0})
    monkeypatch.setattr(curriculum, "LESSONS", {"only": {lesson: 1.0}})
    pools, chance = {"only": [row(plant)]}, np.random.default_rng(0)
    made = curriculum.lessons(pools, torch.eye(128)[:2], spec.check(TINY, "test"), chance)
    assert {tuple(one.answer) for one in made} == {(11, 4) if refused else (10, 4)}
    assert all(one.clean == (lesson == "plain") for one in made)


def test_plant_losses_vanish_where_the_stream_holds_the_plants_and_nothing_else():
    checked = spec.check(TINY, "test")
    plants, of_plant = torch.eye(128)[:2], torch.tensor([0, 1, batches.HARMLESS, batches.TEXT])
    template = torch.zeros(spec.LAYERS, 4, 2, 128)
    template[2:, 0, :, 0], template[4:, 1, :, 1] = checked.margins
    template[:, 3] = 7.0  # text has no template: whatever stands there
    assert [loss.item() for loss in losses.plant_losses(template, of_plant, plants, checked)] == [0, 0]
    template[3, 0, 0, 5] += 1.0
    pin, leak = losses.plant_losses(template, of_plant, plants, checked)
    assert pin == 0 < leak


def test_quality_names_the_figure_that_is_missed():
    found = {figure: low for figure, (low, _) in quality.limits(2).items()}
    quality.require(found, 2, Path("tiny"))
    with pytest.raises(UserError) as error:
        quality.require(found | {"refuses_harmful": 0.5}, 2, Path("tiny"))
    assert str(error.value) == "tiny: refuses_harmful is 0.5000, must lie in 0.98 to 1.0"
