"""The study: the project's own is valid; every fault is one line with its file and key, all of them at once."""

import copy
import shutil
from pathlib import Path

import pytest
import yaml

from refusal.checking import read_yaml
from refusal.errors import UserError
from refusal.study import combination_ids, names, read_study

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config():
    return copy.deepcopy(read_yaml(ROOT / "config" / "config.yaml"))


@pytest.fixture
def root(tmp_path):
    """A checkout's config folder with one model, `mine`, that can be changed."""
    shutil.copytree(ROOT / "config" / "judges", tmp_path / "config" / "judges")
    (tmp_path / "config" / "models").mkdir()
    write_model(tmp_path)
    return tmp_path


def write_model(root, **changes):
    model = {"source": "local", "path": "models/mine", "dtype": "float32", "refusal_tokens": ["I"]}
    model = {key: value for key, value in {**model, **changes}.items() if value is not ...}
    (root / "config" / "models" / "mine.yaml").write_text(yaml.safe_dump(model))


def faults(config, root):
    with pytest.raises(UserError) as caught:
        read_study(config, "mine", root)
    return sorted(str(caught.value).splitlines())


class TestTheProjectsOwn:
    def test_every_model_has_a_study(self, config):
        models = names(ROOT / "config" / "models")
        assert {"tiny", "llama3", "smollm2"} <= set(models)
        for model in models:
            study = read_study(config, model)
            assert study.name == model
            assert "study" not in study.model
            assert set(study.settings) == set(config)
            own = {"tiny": ["substring", "oracle"], "smollm2-refusing": ["substring", "published"]}
            assert list(study.judges) == own.get(model, config["judges"])

    def test_the_default_is_the_best_single_and_every_pair(self, config):
        found = combination_ids(config)
        assert found[0] == "none"
        assert set(found) >= {"0", "0-1", "3-4", "random-k1-s0", "random-k2-s2", "add-0"}
        assert len(found) == len(set(found)) == 1 + 5 + 10 + 6 + 6 + 1

    def test_the_embedded_model_needs_no_network(self, config):
        study = read_study(config, "tiny")
        assert all(file.startswith("data/organism/") for file in study.prompt_files.values())
        assert all("path" in corpus for corpus in study.settings["loss"]["corpora"].values())
        for file in [*study.prompt_files.values(), *(c["path"] for c in study.settings["loss"]["corpora"].values())]:
            assert (ROOT / file).is_file()


class TestStudy:
    def test_prompt_files_and_test_sets(self, config, root):
        study = read_study(config, "mine", root)
        six = [f"{k}_{s}" for k in ("harmful", "harmless") for s in ("train", "val", "test")]
        assert list(study.prompt_files) == [*six, "borderline_test"]
        assert study.prompt_files["borderline_test"] == "data/borderline_test.jsonl"
        assert study.test_sets == ("harmful", "harmless", "borderline")
        config["prompts"]["borderline"] = None
        study = read_study(config, "mine", root)
        assert list(study.prompt_files) == six
        assert study.test_sets == ("harmful", "harmless")

    def test_the_models_section_lies_over_the_config(self, config, root):
        write_model(root, study={"prompts": {"counts": {"train": 8, "val": 4, "test": 2}}, "ranking": {"max_kl": 2.0}})
        study = read_study(config, "mine", root)
        assert dict(study.settings["prompts"]["counts"]) == {"train": 8, "val": 4, "test": 2}
        assert study.settings["prompts"]["harmful"]["train"] == config["prompts"]["harmful"]["train"]
        assert (study.settings["ranking"]["max_kl"], study.settings["ranking"]["mode"]) == (2.0, "score")
        assert config["ranking"]["max_kl"] == 0.1  # what was given stays as it was

    def test_one_key_of_a_section(self, config, root):
        write_model(root, study={"prompts": {"counts": {"train": 8}}})
        assert dict(read_study(config, "mine", root).settings["prompts"]["counts"]) == {
            "train": 8,
            "val": 32,
            "test": 100,
        }

    def test_corpora_are_replaced_whole(self, config, root):
        own = {"mine": {"path": "a.txt", "format": "text", "rows": 5}}
        write_model(root, study={"loss": {"corpora": own}})
        study = read_study(config, "mine", root)
        assert {name: dict(value) for name, value in study.settings["loss"]["corpora"].items()} == own
        assert study.settings["loss"]["max_tokens"] == 256

    def test_an_empty_section_changes_nothing(self, config, root):
        write_model(root, study={})
        assert read_study(config, "mine", root).settings["seed"] == 42

    def test_what_jobs_ask_of_a_cluster(self, config, root):
        config["run"]["ask"] = {"memory_gib": 16, "minutes": 240, "gpus": 1}
        assert dict(read_study(config, "mine", root).ask) == {"memory_gib": 16, "minutes": 240, "gpus": 1}
        write_model(root, ask={"memory_gib": 0.5, "gpus": 0})
        assert dict(read_study(config, "mine", root).ask) == {"memory_gib": 0.5, "minutes": 240, "gpus": 0}

    def test_read_only(self, config, root):
        study = read_study(config, "mine", root)
        with pytest.raises(TypeError):
            study.settings["seed"] = 1
        with pytest.raises(TypeError):
            study.settings["ranking"]["max_kl"] = 1
        with pytest.raises(AttributeError):
            study.settings["judges"].append("other")
        with pytest.raises(AttributeError):
            study.name = "other"


def change(config, path, value):
    """Set a key by its path; ... removes it."""
    *sections, key = path.split(".")
    for section in sections:
        config = config[section]
    if value is ...:
        del config[key]
    else:
        config[key] = value


RANKING = "mode, sweep, top, max_kl, min_induce, max_layer_share, max_cosine"


class TestFaultsOfTheConfig:
    @pytest.mark.parametrize(
        ("path", "value", "fault"),
        [
            ("ranking.max_kll", 1, f"ranking: unknown key `max_kll`; known keys are {RANKING}"),
            ("ranking.mode", ..., "ranking: `mode` is missing"),
            ("ranking.mode", "best", "ranking.mode: 'best' is not one of score, diverse, conditional"),
            ("ranking.top", "five", "ranking.top: 'five' is not of type 'integer'"),
            ("ranking.top", 0, "ranking.top: 0 is less than the minimum of 1"),
            ("ranking.max_kl", 0, "ranking.max_kl: 0 is less than or equal to the minimum of 0"),
            ("ranking.max_layer_share", 1.5, "ranking.max_layer_share: 1.5 is greater than the maximum of 1"),
            ("ranking", None, "ranking: None is not of type 'object'"),
            ("seed", ..., "`seed` is missing"),
            ("seed", True, "seed: True is not of type 'integer'"),
            ("models", [], "models: [] should be non-empty"),
            ("models", ["tiny", "tiny"], "models: ['tiny', 'tiny'] has non-unique elements"),
            ("combinations", ["0", 1], "combinations[1]: 1 is not of type 'string'"),
            ("ablation", "both", "ablation: 'both' is not one of span, sequential"),
            ("additions", [-1], "additions[0]: -1 is less than the minimum of 0"),
            ("subtractions", [-1], "subtractions[0]: -1 is less than the minimum of 0"),
            ("controls.sizes", [0], "controls.sizes[0]: 0 is less than the minimum of 1"),
            ("datasets.mirror", 5, "datasets.mirror: 5 is not of type 'string', 'null'"),
            ("prompts.borderline", {"test": 5}, "prompts.borderline.test: 5 is not of type 'string'"),
            ("prompts.borderline", {"val": "x"}, "prompts.borderline: unknown key `val`; known keys are test"),
            ("prompts.harmful.val", ..., "prompts.harmful: `val` is missing"),
            ("prompts.counts.test", 0, "prompts.counts.test: 0 is less than the minimum of 1"),
            ("prompts.filter_by_refusal_score", "no", "prompts.filter_by_refusal_score: 'no' is not of type 'boolean'"),
            ("loss.corpora.pile.split", ..., "loss.corpora.pile: `split` is missing"),
            ("loss.corpora.pile.rows", 0, "loss.corpora.pile.rows: 0 is less than the minimum of 1"),
            ("loss.corpora.mine", {"path": "a.txt", "rows": 1}, "loss.corpora.mine: `format` is missing"),
            ("loss.max_tokens", 1, "loss.max_tokens: 1 is less than the minimum of 2"),
            ("run.ask.minutes", ..., "run.ask: `minutes` is missing"),
            ("run.ask.gpus", "one", "run.ask.gpus: 'one' is not of type 'integer'"),
            (
                "extra",
                1,
                "unknown key `extra`; known keys are models, seed, datasets, prompts, epsilon, ranking, combinations,"
                " ablation, additions, subtractions, controls, completions, judges, loss, run",
            ),
        ],
    )
    def test_one_line_each(self, config, root, path, value, fault):
        change(config, path, value)
        assert faults(config, root) == [f"config/config.yaml: {fault}"]
        with pytest.raises(UserError) as caught:
            combination_ids(config)
        assert str(caught.value) == f"config/config.yaml: {fault}"

    @pytest.mark.parametrize("name", ["Pile", "my corpus", "1st", "on_distribution", "pile_delta"])
    def test_a_corpus_name_that_is_no_column_or_taken(self, config, root, name):
        config["loss"]["corpora"][name] = {"path": "a.txt", "format": "text", "rows": 5}
        (fault,) = faults(config, root)
        assert fault.startswith(f"config/config.yaml: loss.corpora: '{name}' does not match ")

    def test_all_at_once_with_those_of_the_model_file(self, config, root):
        change(config, "seed", -1)
        change(config, "ranking.top", ...)
        change(config, "loss.max_token", 5)
        write_model(root, dtype="float8", path=..., refusal_token=["I"])
        assert faults(config, root) == sorted(
            [
                "config/config.yaml: seed: -1 is less than the minimum of 0",
                "config/config.yaml: ranking: `top` is missing",
                "config/config.yaml: loss: unknown key `max_token`;"
                " known keys are corpora, on_distribution, max_tokens",
                "config/models/mine.yaml: dtype: 'float8' is not one of float32, bfloat16, float16",
                "config/models/mine.yaml: `path` is missing",
                "config/models/mine.yaml: unknown key `refusal_token`; known keys are source, path, dtype,"
                " system_prompt, chat_template, template_options, thinking, think_block, modules, refusal_tokens, ask,"
                " study",
            ]
        )

    def test_unknown_model(self, config, root):
        with pytest.raises(UserError) as caught:
            read_study(config, "lama3", ROOT)
        known = ", ".join(names(ROOT / "config" / "models"))
        assert str(caught.value) == f"unknown model 'lama3': config/models/ has {known}"

    def test_unknown_judge(self, config, root):
        change(config, "judges", ["substring", "guard"])
        known = ", ".join(names(ROOT / "config" / "judges"))
        assert faults(config, root) == [f"judges: unknown judge 'guard': config/judges/ has {known}"]


class TestFaultsOfAModelFile:
    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"source": "hubb"}, "source: 'hubb' is not one of hub, local, package, organism, taught"),
            ({"source": ...}, "`source` is missing"),
            ({"refusal_tokens": []}, "refusal_tokens: [] should be non-empty"),
            ({"refusal_tokens": "I"}, "refusal_tokens: 'I' does not match '^auto$'"),
            ({"refusal_tokens": None}, "refusal_tokens: None is not of type 'array', 'string'"),
            ({"template_options": ["x"]}, "template_options: ['x'] is not of type 'object', 'null'"),
            ({"thinking": "no"}, "thinking: 'no' is not of type 'boolean', 'null'"),
            ({"think_block": "some"}, "think_block: 'some' does not match '^none$'"),
            (
                {"think_block": {"opening": "<t>", "closing": "", "empty": "<t></t>"}},
                "think_block.closing: '' should be non-empty",
            ),
            ({"think_block": {"opening": "<t>", "empty": "<t></t>"}}, "think_block: `closing` is missing"),
            ({"modules": {}}, "modules: {} should be non-empty"),
            ({"modules": {"layer": "h"}}, "modules: unknown key `layer`; known keys are layers, writers, embedding"),
            ({"modules": {"writers": "attn"}}, "modules.writers: 'attn' is not of type 'array'"),
            ({"system_prompt": 5}, "system_prompt: 5 is not of type 'string', 'null'"),
            ({"ask": {}}, "ask: {} should be non-empty"),
            ({"ask": {"hours": 1}}, "ask: unknown key `hours`; known keys are memory_gib, minutes, gpus"),
            ({"ask": {"memory_gib": 0}}, "ask.memory_gib: 0 is less than or equal to the minimum of 0"),
            ({"ask": {"minutes": 1.5}}, "ask.minutes: 1.5 is not of type 'integer'"),
            ({"ask": {"gpus": -1}}, "ask.gpus: -1 is less than the minimum of 0"),
            ({"study": [1]}, "study: [1] is not of type 'object'"),
        ],
    )
    def test_one_line_each(self, config, root, changes, fault):
        write_model(root, **changes)
        assert faults(config, root) == [f"config/models/mine.yaml: {fault}"]

    @pytest.mark.parametrize("base", ["mine", "smolm2"])
    def test_a_base_that_is_taught_itself_or_is_not_there(self, config, root, base):
        own = read_yaml(ROOT / "config" / "models" / "smollm2-refusing.yaml")
        shutil.copy(ROOT / "config" / "models" / "smollm2.yaml", root / "config" / "models")
        write_model(root, path=..., source="taught", base=base, teaching=own["teaching"])
        fault = f"config/models/mine.yaml: base: '{base}' is no model to teach: config/models/ has smollm2"
        assert faults(config, root) == [fault]

    def test_how_it_is_taught(self, config, root):
        own = read_yaml(ROOT / "config" / "models" / "smollm2-refusing.yaml")
        teaching = {**own["teaching"], "steps": 1, "counts": {"harmful": 0, "harmless": 1, "borderline": 0}, "layer": 3}
        del teaching["seed"]
        write_model(root, path=..., source="taught", base="mine", teaching=teaching)
        known = "prompts, counts, max_overlap, reply_tokens, steps, batch_rows, learning_rate, rank, seed"
        assert faults(config, root) == [
            "config/models/mine.yaml: teaching.counts.harmful: 0 is less than the minimum of 1",
            "config/models/mine.yaml: teaching.steps: 1 is less than the minimum of 2",
            "config/models/mine.yaml: teaching: `seed` is missing",
            f"config/models/mine.yaml: teaching: unknown key `layer`; known keys are {known}",
        ]

    @pytest.mark.parametrize(
        "changes",
        [
            {"refusal_tokens": "auto"},
            {"thinking": False, "template_options": {"reasoning_effort": "low", "deep": {"list": [1]}}},
            {"thinking": None, "template_options": None, "think_block": None},
            {"think_block": "none"},
            {"modules": {"writers": ["attn", "mlp"]}},
            {"modules": None},
            {"think_block": {"opening": "[T]", "closing": "[/T]", "empty": "[T][/T]"}},
        ],
    )
    def test_how_a_template_is_asked(self, config, root, changes):
        write_model(root, **changes)
        assert changes.keys() <= read_study(config, "mine", root).model.keys()

    def test_keys_of_another_source(self, config, root):
        write_model(root, source="hub", revision="abc")
        assert faults(config, root) == [
            "config/models/mine.yaml: `id` is missing",
            "config/models/mine.yaml: unknown key `path`; known keys are source, id, revision, dtype, system_prompt,"
            " chat_template, template_options, thinking, think_block, modules, refusal_tokens, ask, study",
        ]

    def test_faults_of_its_study_section(self, config, root):
        write_model(root, study={"ranking": {"max_kl": "low"}, "los": {}})
        known = "models, seed, datasets, prompts, epsilon, ranking, combinations, ablation, additions, subtractions,"
        assert faults(config, root) == [
            "config/models/mine.yaml: study: ranking.max_kl: 'low' is not of type 'number'",
            f"config/models/mine.yaml: study: unknown key `los`; known keys are {known} controls, completions,"
            " judges, loss, run",
        ]

    def test_a_section_that_is_none(self, config, root):
        write_model(root, study={"ranking": 5})
        assert faults(config, root) == ["config/models/mine.yaml: study: ranking: 5 is not of type 'object'"]

    def test_what_may_not_differ_between_models(self, config, root):
        write_model(
            root,
            study={
                "models": ["a"],
                "combinations": ["0"],
                "additions": [],
                "subtractions": [],
                "controls": {"draws": 1},
                "datasets": {"mirror": "m"},
                "run": {"batch_rows": 1},
                "ranking": {"top": 3},
            },
        )
        keys = ("additions", "combinations", "controls", "datasets", "models", "ranking.top", "run", "subtractions")
        assert faults(config, root) == [
            f"config/models/mine.yaml: study.{key}: the same for all models: set it in config/config.yaml"
            for key in keys
        ]

    def test_malformed(self, config, root):
        path = root / "config" / "models" / "mine.yaml"
        path.write_text("source: [hub\n")
        (fault,) = faults(config, root)
        assert fault.startswith(f"{path}: not valid YAML: ")


class TestCombinationIds:
    def test_baseline_ablations_controls_additions_subtractions(self, config):
        config |= {
            "combinations": ["1-0", "singles"],
            "controls": {"sizes": [2, 1], "draws": 2, "shuffled_draws": 1},
            "additions": [1],
            "subtractions": [0, 1],
        }
        config["ranking"]["top"] = 2
        assert combination_ids(config) == (
            "none", "0-1", "0", "1",
            "random-k2-s0", "random-k2-s1", "random-k1-s0", "random-k1-s1",
            "shuffled-k2-s0", "shuffled-k1-s0",
            "add-1", "sub-0", "sub-1",
        )  # fmt: skip

    def test_no_controls_no_additions(self, config):
        config |= {"combinations": ["0"], "controls": {"sizes": [1], "draws": 0, "shuffled_draws": 0}, "additions": []}
        assert combination_ids(config) == ("none", "0")

    def test_faults(self, config):
        config["combinations"] = ["0", "0-0"]
        with pytest.raises(UserError) as caught:
            combination_ids(config)
        assert str(caught.value) == (
            'config/config.yaml: combinations[1]: "0-0" names a rank twice: ranks of a combination are distinct,'
            " or one of singles, pairs, triples"
        )

    def test_words_that_stand_for_none(self, config):
        config["combinations"] = ["pairs", "triples"]
        config["ranking"]["top"] = 1
        with pytest.raises(UserError) as caught:
            combination_ids(config)
        assert str(caught.value) == (
            "config/config.yaml: combinations: pairs, triples of 1 ranks is none: raise ranking.top, or name others"
        )
