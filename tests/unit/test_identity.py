"""What tells models apart: their content, not where they stand. Through the model step: test_model_loading.py."""

import json

from refusal.identity import folder_key, layers, model_key, scoring_key


def record(tmp_path, name="model.json", **changes):
    value = {
        "load": {"folder": "a"},
        "identity": {"weights": {"model.safetensors": "1"}, "dtype": "float32"},
        "refusal_tokens": [{"id": 1, "string": "I"}],
        "layers": 3,
    } | changes
    (tmp_path / name).write_text(json.dumps(value))
    return tmp_path / name


def test_the_place_decides_nothing(tmp_path):
    first, moved = record(tmp_path), record(tmp_path, "moved.json", load={"folder": "b"}, layers=3)
    assert model_key(first) == model_key(moved)
    assert scoring_key(first) == scoring_key(moved)
    assert layers(first) == 3


def test_refusal_tokens_decide_scores_alone(tmp_path):
    first, other = record(tmp_path), record(tmp_path, "other.json", refusal_tokens=[{"id": 2, "string": "S"}])
    assert model_key(first) == model_key(other)
    assert scoring_key(first) != scoring_key(other)


def test_anything_of_the_identity_decides_both(tmp_path):
    first = record(tmp_path)
    other = record(tmp_path, "other.json", identity={"weights": {"model.safetensors": "1"}, "dtype": "bfloat16"})
    assert model_key(first) != model_key(other)
    assert scoring_key(first) != scoring_key(other)


def test_the_files_that_a_model_is_loaded_from(tmp_path):
    used = [
        "config.json",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
    ]
    for name in [*used, "README.md", "manifest.json", "config.json.spec.json", "planted_directions.safetensors"]:
        (tmp_path / name).write_text(name)
    assert set(folder_key(tmp_path)) == set(used) - {"model.safetensors.index.json"}
    before = folder_key(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("changed")
    assert {name for name in before if before[name] != folder_key(tmp_path)[name]} == {"chat_template.jinja"}
