"""Every key of the config files is explained, by the same words in the file and in its schema."""

import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from refusal.checking import branch, find_faults, read_judge, read_yaml, schema
from refusal.errors import UserError
from refusal.judges.kinds import KINDS
from refusal.study import combination_ids

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
MODELS = sorted((CONFIG / "models").glob("*.yaml"))


def comments(path):
    """Key -> the comment block right above it, joined; keys without one have none.

    A key is the path from the top: ("ranking", "mode"). Lists and {...} on one line hold no further keys here.
    """
    found, above, stack = {}, [], []
    for line in path.read_text().splitlines():
        text = line.strip()
        if text.startswith("# "):
            above.append(text.removeprefix("# "))
            continue
        key = re.match(r"( *)([A-Za-z_]+\d*):", line)
        if key:
            depth = len(key[1]) // 2
            stack[depth:] = [key[2]]
            if above:
                found[tuple(stack)] = " ".join(above)
        above = []
    return found


def descriptions(node, key=()):
    """Key -> description, of a schema's properties, nested ones too."""
    found = {}
    for name, inner in node.get("properties", {}).items():
        if "description" in inner:
            found[*key, name] = inner["description"]
        found |= descriptions(inner, (*key, name))
    return found


def test_the_reader_of_comments_reads(tmp_path):
    (tmp_path / "a.yaml").write_text("# Head.\n\n# One\n# two.\na:\n  # In.\n  b: 1\n  c: 2\n# After.\nd: [1]\n")
    assert comments(tmp_path / "a.yaml") == {("a",): "One two.", ("a", "b"): "In.", ("d",): "After."}


@pytest.mark.parametrize("kind", ["config", "model", "judge"])
def test_schemas_are_schemas_with_no_empty_description(kind):
    found = schema(kind)
    Draft202012Validator.check_schema(found)
    text = yaml.safe_dump(found)
    assert not re.search(r"description: *('')?$", text, re.MULTILINE)


def test_config_and_schema_say_the_same():
    assert comments(CONFIG / "config.yaml") == descriptions(schema("config"))


@pytest.mark.parametrize("path", sorted((CONFIG / "judges").glob("*.yaml")), ids=lambda path: path.stem)
def test_judges_and_schema_say_the_same(path):
    said = {key: text for key, text in comments(path).items() if len(key) == 1}
    assert said == descriptions(branch("judge", "kind", read_yaml(path)["kind"]))


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_model_files_say_what_the_schema_says(path):
    """Above each key; a file may go on with what holds for its model. Under `study`, config.yaml has the words."""
    content, said = read_yaml(path), comments(path)
    expected = descriptions(branch("model", "source", content["source"]))
    keys = [(key,) for key in content]
    keys += [(section, key) for section in ("organism", "teaching") for key in content.get(section, {})]
    for key in keys:
        assert expected[key].removesuffix(".") in said[key], f"{path.name}: {'.'.join(key)}"


def test_a_description_is_the_same_in_every_kind_of_model():
    branches = [descriptions(one["then"]) for one in schema("model")["allOf"]]
    for key in set.intersection(*map(set, branches)):
        assert len({one[key] for one in branches}) == 1
    assert len(branches) == 5


@pytest.mark.parametrize("kind", ["config", "judge"])
def test_no_hidden_defaults_every_key_is_required(kind):
    # of a judge, each kind has its own
    waiting = [one["then"] for one in schema(kind)["allOf"]] if kind == "judge" else [schema(kind)]
    while waiting:
        node = waiting.pop()
        if "properties" in node:
            assert node.get("additionalProperties") is False
            optional = set(node["properties"]) - set(node["required"])
            assert optional <= {"config"}  # of a corpus on the hub: not every data set has configurations
        waiting += [value for name, value in node.items() if isinstance(value, dict) and name != "if"]  # a condition
        waiting += [
            value for part in node.values() if isinstance(part, list) for value in part if isinstance(value, dict)
        ]


class TestJudgeFiles:
    def test_the_projects_own(self):
        kinds = {path.stem: read_judge(path)["kind"] for path in (CONFIG / "judges").glob("*.yaml")}
        assert kinds.items() >= {"substring": "substring", "published": "contains"}.items()

    def test_keys_are_of_a_kind(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("kind: contains\nprefixes: [a]\n")
        with pytest.raises(UserError) as caught:
            read_judge(path)
        assert sorted(str(caught.value).splitlines()) == [
            f"{path}: `phrases` is missing",
            f"{path}: unknown key `prefixes`; known keys are kind, phrases",
        ]

    def test_an_unknown_kind(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("kind: substrin\nprefixes: [a]\n")
        with pytest.raises(UserError) as caught:
            read_judge(path)
        known = ", ".join(schema("judge")["properties"]["kind"]["enum"])
        assert str(caught.value) == f"{path}: kind: 'substrin' is not one of {known}"

    def test_kinds_are_those_of_the_library(self):
        assert schema("judge")["properties"]["kind"]["enum"] == list(KINDS)

    def test_all_faults_at_once(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("kind: substring\nstart_characters: 0\nprefixes: []\nprefix: [a]\n")
        with pytest.raises(UserError) as caught:
            read_judge(path)
        assert sorted(str(caught.value).splitlines()) == sorted(
            [
                f"{path}: unknown key `prefix`; known keys are kind, start_characters, exceptions, prefixes",
                f"{path}: `exceptions` is missing",
                f"{path}: prefixes: [] should be non-empty",
                f"{path}: start_characters: 0 is less than the minimum of 1",
            ]
        )


class TestReadYaml:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("a: [1\nb: 2\n", r"not valid YAML: while parsing a flow sequence .* line 2, column 2"),
            ("- a\n", "must hold keys and values"),
            ("", "must hold keys and values"),
        ],
    )
    def test_faults(self, tmp_path, content, said):
        path = tmp_path / "a.yaml"
        path.write_text(content)
        with pytest.raises(UserError, match=f"^{re.escape(str(path))}: {said}") as caught:
            read_yaml(path)
        assert "\n" not in str(caught.value)

    def test_missing(self, tmp_path):
        with pytest.raises(UserError) as caught:
            read_yaml(tmp_path / "a.yaml")
        assert str(caught.value) == f"{tmp_path / 'a.yaml'}: no such file"


def test_faults_of_a_right_file_are_none():
    assert list(find_faults(read_yaml(CONFIG / "config.yaml"), "config", "x")) == []


def test_the_parity_study_is_config_yaml_with_published_values():
    """An overlay of known keys; what it changes is what the published scripts have."""
    base, overlay = read_yaml(CONFIG / "config.yaml"), read_yaml(CONFIG / "parity.yaml")
    merged = base | {key: base[key] | value if isinstance(value, dict) else value for key, value in overlay.items()}
    assert list(find_faults(merged, "config", "parity")) == []
    assert combination_ids(merged)[:12] == ("none", "0", *(f"{a}-{b}" for a in range(5) for b in range(a + 1, 5)))
    assert {"add-0", "sub-0"} < set(combination_ids(merged))
    assert (merged["ablation"], merged["seed"], merged["judges"]) == ("sequential", 42, ["published"])
    assert merged["epsilon"] == {"refusal": 1e-8, "kl": 1e-6}
    assert merged["prompts"]["sampling"] == "published"
    assert merged["prompts"]["counts"] == {"train": 128, "val": 32, "test": 100}
    # files and thresholds are the published ones by default
    assert all(base["ranking"][key] == merged["ranking"][key] for key in ("max_kl", "min_induce", "max_layer_share"))
