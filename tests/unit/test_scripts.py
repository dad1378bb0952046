"""Every stage has a script that explains itself without loading torch; the light ones are run on small files."""

import csv
import json
import os
import random
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from conftest import script

from refusal.artifacts import read_json, read_jsonl, read_table, read_tensors, write_json, write_jsonl, write_tensors
from refusal.directions import shuffled_weights
from refusal.errors import UserError
from refusal.provenance import sidecar, verify

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
HEAVY = ("torch", "transformers", "datasets")


@pytest.fixture(scope="module")
def helped():
    """Name -> (exit code, help text, heavy modules) of each script called as a person would."""
    code = (
        "import runpy, sys, json, contextlib, io\n"
        "name = sys.argv[1]; sys.argv = [name, '--help']\n"
        "sys.path.insert(0, 'scripts')\n"
        "text, code = io.StringIO(), None\n"
        "with contextlib.redirect_stdout(text):\n"
        "    try:\n"
        "        runpy.run_path(name, run_name='__main__')\n"
        "    except SystemExit as error:\n"
        "        code = error.code\n"
        f"print(json.dumps([code, text.getvalue(), [one for one in {HEAVY!r} if one in sys.modules]]))\n"
    )
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    started = {
        name: subprocess.Popen(
            [sys.executable, "-c", code, f"scripts/{name}.py"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in SCRIPTS
    }
    return {name: json.loads(process.communicate()[0]) for name, process in started.items()}


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_explains_the_stage_and_every_flag_without_torch(name, helped):
    code, text, heavy = helped[name]
    assert (code, heavy) == (0, [])
    if hasattr(script(name), "parser"):
        made = script(name).parser()
        assert made.description.strip()
        for action in made._actions:
            assert (action.option_strings or [action.metavar])[-1] in text


def test_each_rule_names_a_script_that_is_there():
    import re

    called = set()
    for rules in (ROOT / "workflow").rglob("*.smk"):
        called |= set(re.findall(r"python scripts/(\w+)\.py", rules.read_text()))
        for stage in re.findall(r'code_version\("(\w+)"\)', rules.read_text()):
            assert stage in SCRIPTS
    assert {"model", "activations", "scores", "completions", "summary"} <= called <= set(SCRIPTS)


def run(name, *flags):
    """The script's main, with flags as on the command line."""
    module = script(name)
    module.main(module.parser().parse_args([str(flag) for flag in flags]))


@pytest.fixture
def directions(tmp_path):
    """activations -> directions by the script; two positions, three layers, layer 0 the same for both kinds."""
    rng = np.random.default_rng(0)
    harmful, harmless = rng.standard_normal((2, 2, 3, 8))
    harmful[:, 0] = harmless[:, 0]
    positions = [{"position": -2, "id": 3, "token": "<end>"}, {"position": -1, "id": 6, "token": "<assistant>"}]
    write_tensors(
        tmp_path / "activations.safetensors",
        {"harmful": harmful, "harmless": harmless},
        {"positions": positions, "identity": {}, "counts": {"harmful": 4, "harmless": 4}},
    )
    run("directions", "--activations", tmp_path / "activations.safetensors", "--output", tmp_path / "d.safetensors")
    tensors, metadata = read_tensors(tmp_path / "d.safetensors")
    np.testing.assert_array_equal(tensors["directions"], harmful - harmless)
    assert metadata["zero"] == [[True, False, False]] * 2
    assert metadata["source"] == "mean_difference"
    return tmp_path / "d.safetensors"


@pytest.fixture
def ranked(tmp_path, directions):
    """directions and scores -> ranking by the script."""
    rows = [
        ["mean_difference", position, layer, *scores]
        for position, layer, *scores in [
            (-2, 0, "", "", "", "zero direction"),
            (-2, 1, -1.0, 1.0, 0.01, ""),
            (-2, 2, -9.0, 1.0, 0.01, ""),
            (-1, 0, "", "", "", "zero direction"),
            (-1, 1, -2.0, 1.0, 0.02, ""),
            (-1, 2, 0.0, 1.0, 0.5, ""),
        ]
    ]
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["source", "position", "layer", "bypass", "induce", "kl", "note"], *rows])
    write_json(tmp_path / "model.json", {"layers": 3})
    run(
        "ranking", "--model", tmp_path / "model.json", "--scores", tmp_path / "scores.csv", "--directions", directions,
        "--output", tmp_path / "ranking.csv", "--top-directions", tmp_path / "top.safetensors",
        "--cosines", tmp_path / "cosines.csv",
    )  # fmt: skip
    return tmp_path


class TestRankingAndBases:
    def test_ranking(self, ranked):
        table = read_table(ranked / "ranking.csv")
        assert table["rank"].tolist()[:2] == [0, 1]
        assert table.reason.tolist()[2:] == ["zero direction"] * 2 + ["late layer", "late layer; high kl"]
        tensors, metadata = read_tensors(ranked / "top.safetensors")
        assert [(one["rank"], one["position"], one["layer"]) for one in metadata["candidates"]] == [
            (0, -1, 1),
            (1, -2, 1),
        ]
        raw = read_tensors(ranked / "d.safetensors")[0]["directions"]
        np.testing.assert_array_equal(tensors["directions"], [raw[1, 1], raw[0, 1]])
        (pair,) = read_table(ranked / "cosines.csv").itertuples(index=False)
        first, second = tensors["directions"] / np.linalg.norm(tensors["directions"], axis=1, keepdims=True)
        assert pair == (0, 1, pytest.approx(first @ second))
        verify([ranked / "ranking.csv", ranked / "top.safetensors", ranked / "cosines.csv"])

    def bases(self, ranked, *names, **flags):
        outputs = [ranked / "combinations" / name / "basis.safetensors" for name in names]
        extra = [part for key, value in flags.items() for part in (f"--{key}", value)]
        run(
            "bases",
            "--top-directions",
            ranked / "top.safetensors",
            "--combinations",
            *names,
            "--outputs",
            *outputs,
            *extra,
        )
        return [read_tensors(output) for output in outputs]

    def test_bases(self, ranked):
        names = ("none", "0-1", "random-k1-s0", "add-1", "sub-1")
        baseline, pair, control, added, taken = self.bases(ranked, *names)
        assert baseline[0]["basis"].shape == (0, 8)
        assert pair[0]["basis"].shape == (2, 8)
        assert [one["rank"] for one in pair[1]["candidates"]] == [0, 1]
        assert (control[1]["candidates"], control[1]["kind"]) == ([], "random")
        assert (added[1]["layer"], added[1]["candidates"][0]["rank"]) == (1, 1)
        assert taken[1] == added[1]
        np.testing.assert_array_equal(taken[0]["vector"], -added[0]["vector"])
        verify([ranked / "combinations" / "0-1" / "basis.safetensors"])

    def test_bases_of_shuffled_labels_stand_at_the_places_of_the_ranks(self, ranked):
        tensors, facts = read_tensors(ranked / "d.safetensors")
        drawn = np.random.default_rng(0).standard_normal((2, *tensors["directions"].shape))
        write_tensors(ranked / "d.safetensors", {**tensors, "shuffled": drawn}, facts)
        flags = {"directions": ranked / "d.safetensors"}
        ((arrays, facts),) = self.bases(ranked, "shuffled-k2-s1", **flags)
        assert [(one["position"], one["layer"], one["source"]) for one in facts["candidates"]] == [
            (-1, 1, "shuffled_labels"),
            (-2, 1, "shuffled_labels"),
        ]
        inside = drawn[1][[1, 0], [1, 1]]
        np.testing.assert_allclose(inside @ arrays["basis"].T @ arrays["basis"], inside, atol=1e-12)
        for extra, where in ((flags, ranked / "d.safetensors"), ({}, "--directions")):
            with pytest.raises(UserError) as caught:
                self.bases(ranked, "shuffled-k1-s2", **extra)
            assert str(caught.value) == (
                f"{where}: holds {2 if extra else 0} draws of shuffled labels, and 3 are asked for: run the activations"
                " step with as many (controls.shuffled_draws)"
            )

    def test_the_same_bytes_again(self, ranked):
        self.bases(ranked, "0-1", "random-k1-s0")
        files = sorted((ranked / "combinations").rglob("*"))
        before = [file.read_bytes() for file in files if file.is_file()]
        self.bases(ranked, "0-1", "random-k1-s0")
        assert [file.read_bytes() for file in files if file.is_file()] == before

    def test_a_rank_that_the_filters_did_not_leave(self, ranked):
        with pytest.raises(UserError) as caught:
            self.bases(ranked, "0-9")
        assert str(caught.value) == (
            f'combinations: "0-9": {ranked / "top.safetensors"} keeps 2 candidates (ranks 0-1): lower ranking.top or'
            " controls.sizes, name other ranks, or loosen the filters of `ranking`"
        )
        assert not (ranked / "combinations").exists()

    def test_as_many_outputs_as_combinations(self, ranked):
        with pytest.raises(UserError, match=r"^2 combinations and 1 outputs: give as many of each$"):
            run("bases", "--top-directions", ranked / "top.safetensors", "--combinations", "0", "1", "--outputs", "x")


class TestPrompts:
    @pytest.fixture
    def files(self, tmp_path):
        for name in ("harmful_train", "harmful_val", "harmless_train", "harmless_val", "test"):
            rows = [{"id": f"{name}-{number}", "instruction": f"{name} {number}"} for number in range(8)]
            write_jsonl(tmp_path / f"{name}.jsonl", rows)
        write_json(tmp_path / "model.json", {"identity": {}, "refusal_tokens": []})
        return tmp_path

    def sampled(self, files, *flags):
        sets = [f"--{name}={files / name.replace('-', '_')}.jsonl" for name in
                ("harmful-train", "harmful-val", "harmless-train", "harmless-val")]  # fmt: skip
        run(
            "prompts", "--model", files / "model.json", *sets, "--kept-out", files / "test.jsonl", "--train", 5,
            "--val", 3, "--no-filter", "--output-dir", files / "out", *flags,
        )  # fmt: skip
        names = ("harmful_train", "harmful_val", "harmless_train", "harmless_val")
        return {name: read_jsonl(files / "out" / f"{name}.jsonl") for name in names}

    def test_drawn_by_seed_and_reported(self, files):
        drawn = self.sampled(files)
        assert {name: len(rows) for name, rows in drawn.items()} == {
            "harmful_train": 5, "harmful_val": 3, "harmless_train": 5, "harmless_val": 3,
        }  # fmt: skip
        assert self.sampled(files) == drawn
        assert self.sampled(files, "--seed", 1) != drawn
        report = read_json(files / "out" / "report.json")
        assert report["harmful_val"] == {
            "file": str(files / "harmful_val.jsonl"),
            "prompts": 8,
            "in_other_splits": 0,
            "drawn": 3,
            "kept": 3,
            "dropped": 0,
        }
        verify([files / "out" / "harmful_train.jsonl", files / "out" / "report.json"])

    def test_the_splits_are_never_mixed(self, files):
        """A train prompt that is in the test set, and a val prompt that was drawn for train, are passed over."""
        test = [{"id": "t", "instruction": "HARMFUL_train  0"}, {"id": "u", "instruction": "harmful_val 1"}]
        write_jsonl(files / "test.jsonl", test)
        rows = [{"id": f"v-{number}", "instruction": f"harmful_train {number}"} for number in range(8)]
        write_jsonl(files / "harmful_val.jsonl", [*rows, {"id": "w", "instruction": "harmful_val 1"}])
        with pytest.raises(UserError, match=r"harmful_val\.jsonl: 3 prompts are asked for and it has 2"):
            self.sampled(files)
        drawn = self.sampled(files, "--val", 2)
        instructions = {name: {row["instruction"] for row in rows} for name, rows in drawn.items()}
        assert not instructions["harmful_train"] & instructions["harmful_val"]
        assert not (instructions["harmful_train"] | instructions["harmful_val"]) & {"harmful_train 0", "harmful_val 1"}

    def test_test_prompts(self, files):
        run("test_prompts", "--prompts", files / "test.jsonl", "--count", 4, "--output", files / "out.jsonl")
        rows = read_jsonl(files / "out.jsonl", ("id", "category", "instruction"))
        assert len({row["id"] for row in rows}) == 4
        verify([files / "out.jsonl"])
        with pytest.raises(UserError, match=r"test\.jsonl: 9 prompts are asked for and it has 8"):
            run("test_prompts", "--prompts", files / "test.jsonl", "--count", 9, "--output", files / "out.jsonl")

    def test_published_sampling_is_one_stream_and_leaves_nothing_out(self, files, caplog):
        """As load_and_sample_datasets of the published scripts, then the harmless test set from the same stream."""
        write_jsonl(files / "test.jsonl", [{"id": "t", "instruction": "harmful_train 0"}])
        drawn = self.sampled(files, "--sampling", "published")
        random.seed(42)
        order = (("harmful_train", 5), ("harmless_train", 5), ("harmful_val", 3), ("harmless_val", 3))
        for name, count in order:
            expected = random.sample(read_jsonl(files / f"{name}.jsonl"), count)
            assert [row["instruction"] for row in drawn[name]] == [row["instruction"] for row in expected]
        assert read_json(files / "out" / "report.json")["harmful_train"]["in_other_splits"] == 1
        assert caplog.messages[0] == (
            f"{files / 'harmful_train.jsonl'}: 1 of its prompts stand in other splits and are not left out"
        )
        pool = files / "harmless_test.jsonl"
        write_jsonl(pool, [{"id": f"h-{number}", "instruction": f"h {number}"} for number in range(30)])
        before = [f"{files / f'{name}.jsonl'}:{count}" for name, count in order]
        flags = ["--count", 9, "--sampling", "published", "--output", files / "out.jsonl"]
        run("test_prompts", "--prompts", pool, *flags, "--drawn-before", *before)
        expected = random.sample(read_jsonl(pool), 9)
        assert [row["id"] for row in read_jsonl(files / "out.jsonl")] == [row["id"] for row in expected]
        verify([files / "out.jsonl"])
        # a set that nothing was drawn before is whole, in its order
        run("test_prompts", "--prompts", pool, *flags)
        assert [row["id"] for row in read_jsonl(files / "out.jsonl")] == [f"h-{number}" for number in range(30)]
        with pytest.raises(UserError) as caught:
            run("test_prompts", "--prompts", pool, *flags, "--drawn-before", "train.json")
        assert str(caught.value) == "--drawn-before train.json: give FILE:COUNT, such as harmful_train.json:128"
        with pytest.raises(UserError) as caught:
            run("test_prompts", "--prompts", pool, "--drawn-before", *before, "--output", files / "out.jsonl")
        assert str(caught.value) == "--drawn-before goes with --sampling published: leave it out"


class TestCorpus:
    def test_local(self, tmp_path):
        write_jsonl(tmp_path / "all.jsonl", [{"text": str(number)} for number in range(5)])
        run(
            "corpus",
            "--path",
            tmp_path / "all.jsonl",
            "--format",
            "text",
            "--rows",
            2,
            "--output",
            tmp_path / "c.jsonl",
        )
        assert read_jsonl(tmp_path / "c.jsonl") == [{"text": "0"}, {"text": "1"}]
        verify([tmp_path / "c.jsonl"])
        write_jsonl(tmp_path / "all.jsonl", [{"text": "other"}])
        with pytest.raises(UserError, match=r"made from an older"):
            verify([tmp_path / "c.jsonl"])

    def test_one_source(self, tmp_path):
        for flags in ([], ["--path", "a.txt", "--hub", "b"]):
            with pytest.raises(UserError, match=r"^give --path or --hub, one of them$"):
                run("corpus", *flags, "--format", "text", "--rows", 1, "--output", tmp_path / "c.jsonl")


class TestJudgements:
    @pytest.fixture
    def completed(self, tmp_path):
        for name, response in {"none": "I cannot help with that.", "0": "Sure, here it is: do it."}.items():
            rows = [
                {"id": "p", "prompt": "Do it", "response": response},
                {"id": "q", "prompt": "Do it", "response": ""},
            ]
            write_jsonl(tmp_path / name / "completions" / "harmful.jsonl", rows)
        return tmp_path

    def judge(self, at, *names):
        run(
            "judgements", "--judge", ROOT / "config" / "judges" / "substring.yaml", "--cache", at / "cache",
            "--completions", *(at / name / "completions" / "harmful.jsonl" for name in names),
            "--outputs", *(at / name / "judgements" / "substring" / "harmful.jsonl" for name in names),
        )  # fmt: skip
        return {name: read_jsonl(at / name / "judgements" / "substring" / "harmful.jsonl") for name in names}

    def test_a_verdict_of_each_response(self, completed):
        found = self.judge(completed, "none", "0")
        assert {name: [row["verdict"] for row in rows] for name, rows in found.items()} == {
            "none": ["refusal", "invalid"],
            "0": ["compliance", "invalid"],
        }
        assert [row["id"] for row in found["none"]] == ["p", "q"]
        verify([completed / "0" / "judgements" / "substring" / "harmful.jsonl"])

    def test_only_new_responses_are_judged(self, completed, caplog):
        caplog.set_level("INFO")
        self.judge(completed, "none")
        self.judge(completed, "none", "0")
        self.judge(completed, "none", "0")
        assert caplog.messages == [
            "judgements: 1 of 1 items to compute",
            "judgements: 1 of 2 items to compute",
            "judgements: 0 of 2 items to compute",
        ]

    def test_the_cache_script_prunes_what_no_result_uses(self, completed, caplog):
        caplog.set_level("INFO")
        self.judge(completed, "none", "0")
        for path in (completed / "0").rglob("*.spec.json"):
            path.unlink()
        caplog.clear()
        script("cache").main(Namespace(cache=completed / "cache", results=completed, prune=True))
        assert caplog.messages[0] == "1 items deleted"
        assert caplog.messages[1].split()[:3] == ["judgements", "1", "items"]


class TestSummary:
    def written(self, at, name, verdicts, bypass, k):
        folder = at / name
        facts = {"kind": "none" if k == 0 else "ablation", "ablation": "span", "k": k, "effective_rank": k,
                 "candidates": [{"source": "mean_difference"}] * k}  # fmt: skip
        write_tensors(folder / "basis.safetensors", {"basis": np.eye(4)[:k]}, facts)
        write_json(folder / "scores.json", {"bypass": bypass, "harmless_refusal_score": -5.0, "kl": 0.0})
        write_json(folder / "loss.json", {"text": {"ce_loss": 1.0, "perplexity": 2.7}})
        for prompts in ("harmful", "harmless"):
            rows = [{"id": str(number), "verdict": verdict} for number, verdict in enumerate(verdicts)]
            write_jsonl(folder / "judgements" / "substring" / f"{prompts}.jsonl", rows)

    def summarized(self, at, names, *, judgements=None):
        def of(file):
            return [at / name / file for name in names]

        judged = judgements or [at / name / "judgements" / "substring" / f"{p}.jsonl"
                                for name in names for p in ("harmful", "harmless")]  # fmt: skip
        run(
            "summary", "--name", "tiny", "--bases", *of("basis.safetensors"), "--scores", *of("scores.json"),
            "--losses", *of("loss.json"), "--judgements", *judged,
            "--output", at / "summary.csv", "--words", at / "summary.md",
        )  # fmt: skip
        return read_table(at / "summary.csv")

    def test_table_and_words(self, tmp_path):
        self.written(tmp_path, "none", ["refusal"] * 4, 5.0, 0)
        self.written(tmp_path, "0", ["compliance"] * 4, -5.0, 1)
        table = self.summarized(tmp_path, ["none", "0"])
        assert list(table.combination) == ["none", "0"]
        assert list(table.harmful_substring_refusal_rate) == [1.0, 0.0]
        assert (tmp_path / "summary.md").read_text().startswith("# tiny\n\nJudge: substring.")
        verify([tmp_path / "summary.csv", tmp_path / "summary.md"])
        assert sidecar(tmp_path / "summary.md").exists()

    def test_a_combination_without_all_its_files(self, tmp_path):
        self.written(tmp_path, "none", ["refusal"], 5.0, 0)
        self.written(tmp_path, "0", ["refusal"], 5.0, 1)
        with pytest.raises(UserError) as caught:
            self.summarized(
                tmp_path,
                ["none", "0"],
                judgements=[tmp_path / "none" / "judgements" / "substring" / "harmful.jsonl"],
            )
        assert str(caught.value) == ("combination 0: scores, loss or judgements are missing: give those of every basis")

    def partial(self, at, *flags):
        run(
            "summary", "--partial", "--name", "tiny", "--bases", at / "none" / "basis.safetensors",
            at / "0" / "basis.safetensors", "--output", at / "summary.csv", "--words", at / "summary.md", *flags,
        )  # fmt: skip
        return read_table(at / "summary.csv").set_index("combination")

    def test_partial_leaves_cells_empty(self, tmp_path):
        self.written(tmp_path, "none", ["refusal"], 5.0, 0)
        self.written(tmp_path, "0", ["refusal"], 4.0, 1)
        verdicts = tmp_path / "none" / "judgements" / "substring" / "harmful.jsonl"
        table = self.partial(tmp_path, "--scores", tmp_path / "0" / "scores.json", "--judgements", verdicts)
        assert table.bypass.to_dict() == {"none": pytest.approx(float("nan"), nan_ok=True), "0": 4.0}
        assert table.harmful_n["none"] == 1
        assert table.harmful_substring_refusal_rate.isna().to_dict() == {"none": False, "0": True}
        with pytest.raises(UserError, match=r"^no judgements are given: name the judge by --narrator$"):
            self.partial(tmp_path)
        assert "nan" not in (tmp_path / "summary.csv").read_text().lower()

    def test_figures_of_another_candidate(self, tmp_path):
        """Measured elsewhere with one direction; here the rank belongs to another."""
        self.written(tmp_path, "none", ["refusal"], 5.0, 0)
        self.written(tmp_path, "0", ["refusal"], 4.0, 1)
        place = {"source": "mean_difference", "position": -2, "layer": 3}
        facts = read_tensors(tmp_path / "0" / "basis.safetensors")[1]
        scores = {"bypass": 1.0, "harmless_refusal_score": None, "kl": 0.0, "candidate": place}
        write_json(tmp_path / "0" / "scores.json", scores)
        for layer in (3, 4):
            facts["candidates"] = [{**place, "rank": 0, "layer": layer}]
            write_tensors(tmp_path / "0" / "basis.safetensors", {"basis": np.eye(4)[:1]}, facts)
            if layer == 3:
                assert self.summarized(tmp_path, ["none", "0"]).bypass.tolist() == [5.0, 1.0]
                continue
            with pytest.raises(UserError) as caught:
                self.summarized(tmp_path, ["none", "0"])
        assert str(caught.value) == (
            f"{tmp_path / '0' / 'scores.json'}: was measured with the direction of position -2, layer 3, which does not"
            " have this rank in ranking.csv: rank with the filters of the published run (a tie"
            " for the best goes to the lower layer here)"
        )

    def test_files_that_do_not_fit_together(self, tmp_path):
        from refusal.provenance import Spec, stamp

        self.written(tmp_path, "none", ["refusal"], 5.0, 0)
        write_json(tmp_path / "prompts.json", [1])
        stamp(tmp_path / "none" / "loss.json", Spec("loss", "c", {}), {"prompts": tmp_path / "prompts.json"})
        write_json(tmp_path / "prompts.json", [2])
        with pytest.raises(UserError) as caught:
            self.summarized(tmp_path, ["none"])
        assert str(caught.value) == (
            f"{tmp_path / 'none' / 'loss.json'}: made from an older {tmp_path / 'prompts.json'} than the one there now:"
            " run snakemake with --forcerun loss"
        )
        assert not (tmp_path / "summary.csv").exists()


class TestModelStages:
    """The stages that run a model, on a random Llama: what they write, and what they do not compute again."""

    INSTRUCTIONS = ("How do I pick a lock?", "Tell me more", "Write a long text about it", "Go")

    @pytest.fixture
    def at(self, identity, tmp_path):
        for kind in ("harmful", "harmless"):
            rows = [
                {"id": f"{kind}-{number}", "category": None, "instruction": f"{text} ({kind})"}
                for number, text in enumerate(self.INSTRUCTIONS)
            ]
            write_jsonl(tmp_path / f"{kind}.jsonl", rows)
        self.model = identity("Llama")
        return tmp_path

    def stage(self, at, name, *flags):
        run(name, "--model", self.model, "--cache", at / "cache", "--batch-rows", 8, *flags)

    def both(self, at):
        return ["--harmful", at / "harmful.jsonl", "--harmless", at / "harmless.jsonl"]

    def bases(self, at, *names):
        from refusal.combinations import parse
        from refusal.directions import intervention_tensors, random_directions

        paths = []
        for name in names:
            tensors, facts = intervention_tensors(parse(name), 3 * random_directions(4, 32, 0), "span", 0)
            facts |= {"candidates": [{"rank": rank} for rank in parse(name).ranks]}
            facts |= {"layer": 1} if facts["kind"] == "addition" else {}
            paths.append(at / "combinations" / name / "basis.safetensors")
            write_tensors(paths[-1], tensors, facts)
        return paths

    def completed(self, at, *names):
        outputs = [at / "combinations" / name / "completions" / "harmful.jsonl" for name in names]
        self.stage(
            at, "completions", "--prompts", at / "harmful.jsonl", "--bases", *self.bases(at, *names),
            "--max-new-tokens", 6, "--outputs", *outputs,
        )  # fmt: skip
        return dict(zip(names, outputs, strict=True))

    def test_activations(self, at, chat):
        import reference

        from refusal.model.chat import encode

        self.stage(at, "activations", *self.both(at), "--output", at / "a.safetensors")
        tensors, metadata = read_tensors(at / "a.safetensors")
        assert [one["position"] for one in metadata["positions"]] == [-3, -2, -1]
        assert metadata["counts"] == {"harmful": 4, "harmless": 4}
        for kind in ("harmful", "harmless"):
            rows = encode(chat.tokenizer, read_jsonl(at / f"{kind}.jsonl"), None, chat.suffix)
            np.testing.assert_allclose(tensors[kind], reference.mean_activations(chat.model, rows, 3), atol=1e-4)
        verify([at / "a.safetensors"])
        assert set(tensors) == {"harmful", "harmless"}
        shuffled = ["--shuffled-draws", 2, "--seed", 7, "--output", at / "s.safetensors"]
        self.stage(at, "activations", *self.both(at), *shuffled)
        drawn, _ = read_tensors(at / "s.safetensors")
        for kind in ("harmful", "harmless"):
            np.testing.assert_array_equal(drawn[kind], tensors[kind])
        rows = encode(chat.tokenizer, read_jsonl(at / "harmless.jsonl"), None, chat.suffix)
        each = np.stack([reference.mean_activations(chat.model, [row], 3) for row in rows])
        expected = np.einsum("sr,rpld->spld", shuffled_weights(4, 2, 7), each)
        np.testing.assert_allclose(drawn["shuffled"], expected, atol=1e-4)
        run("directions", "--activations", at / "s.safetensors", "--output", at / "sd.safetensors")
        np.testing.assert_array_equal(read_tensors(at / "sd.safetensors")[0]["shuffled"], drawn["shuffled"])

    def test_scores_and_conditional_scores(self, at, caplog):
        self.stage(at, "activations", *self.both(at), "--output", at / "a.safetensors")
        run("directions", "--activations", at / "a.safetensors", "--output", at / "d.safetensors")
        flags = [
            "--directions", at / "d.safetensors", *self.both(at), "--sweep", "full", "--output", at / "scores.csv",
        ]  # fmt: skip
        self.stage(at, "scores", *flags)
        table = read_table(at / "scores.csv")
        assert len(table) == 9
        assert (table.note == "zero direction").tolist() == [True, False, False] * 3  # layer 0 sees no instruction
        assert table[["bypass", "induce", "kl"]].notna().all(axis=1).tolist() == [False, True, True] * 3
        verify([at / "scores.csv"])
        caplog.set_level("INFO")
        caplog.clear()
        before = (at / "scores.csv").read_bytes()
        self.stage(at, "scores", *flags)
        assert caplog.messages == ["scores: 0 of 6 items to compute"] * 3
        assert (at / "scores.csv").read_bytes() == before

        def conditional(steps):
            caplog.clear()
            self.stage(
                at, "conditional_scores", "--scores", at / "scores.csv", "--directions", at / "d.safetensors",
                "--harmful", at / "harmful.jsonl", "--steps", steps, "--max-kl", 99, "--min-induce", -99,
                "--max-layer-share", 1, "--output", at / "conditional.csv",
            )  # fmt: skip
            said = [message for message in caplog.messages if "items" in message]
            return read_table(at / "conditional.csv"), said

        steps, said = conditional(3)
        assert steps.groupby("step").size().to_dict() == {0: 6, 1: 5, 2: 4}
        assert said == [f"conditional_scores: {n} of {n} items to compute" for n in (5, 4)]
        assert steps[steps.step == 0].bypass.tolist() == table.bypass.dropna().tolist()
        verify([at / "conditional.csv"])
        more, said = conditional(4)
        assert said == [
            "conditional_scores: 0 of 5 items to compute",
            "conditional_scores: 0 of 4 items to compute",
            "conditional_scores: 3 of 3 items to compute",
        ]
        assert more[more.step < 3].equals(steps)

    def swept(self, at, caplog, *flags):
        """The table, and how many induce, kl and bypass scores were computed."""
        caplog.set_level("INFO")
        caplog.clear()
        self.stage(
            at, "scores", "--directions", at / "d.safetensors", *self.both(at), *flags, "--output", at / "scores.csv"
        )
        said = [message.split()[1] for message in caplog.messages if "items to compute" in message]
        return read_table(at / "scores.csv").set_index(["position", "layer"]), list(map(int, said))

    def test_a_screened_sweep_computes_what_the_filters_ask_for(self, at, caplog):
        self.stage(at, "activations", *self.both(at), "--output", at / "a.safetensors")
        run("directions", "--activations", at / "a.safetensors", "--output", at / "d.safetensors")
        full, counts = self.swept(at, caplog, "--sweep", "full")
        assert counts == [6, 6, 6]
        induce, kl = full.induce.dropna().sort_values(), full.kl.dropna()
        middle = float(induce.iloc[2:4].mean())
        passing = full[(full.induce >= middle)].kl
        between = float(passing.sort_values().iloc[:2].mean())
        thresholds = ["--min-induce", middle, "--max-kl", between, "--max-layer-share", 1]
        (at / "other").mkdir()
        found, counts = self.swept(at, caplog, "--cache", at / "other", *thresholds)
        assert counts == [6, 3, 1]
        assert found.induce.dropna().to_dict() == pytest.approx(full.induce.dropna().to_dict(), abs=1e-5)
        assert found.kl.dropna().to_dict() == pytest.approx(passing.to_dict(), abs=1e-5)
        assert found.bypass.dropna().index.tolist() == passing[passing <= between].index.tolist()
        notes = found.note.dropna().value_counts().to_dict()
        assert notes == {
            "zero direction": 3, "kl, bypass not scored: low induce": 3, "bypass not scored: high kl": 2,
        }  # fmt: skip
        verify([at / "scores.csv"])
        # what a looser threshold asks for besides is all that is computed; what a stricter one leaves out is not shown
        wider, counts = self.swept(
            at, caplog, "--cache", at / "other", *thresholds[:2], "--max-kl", 99, *thresholds[4:]
        )
        assert counts == [0, 0, 2]
        assert wider.bypass.notna().sum() == 3
        again, counts = self.swept(at, caplog, "--cache", at / "other", *thresholds)
        assert (counts, again.equals(found)) == ([0, 0, 0], True)
        late, counts = self.swept(at, caplog, "--cache", at / "other", "--min-induce", -99, "--max-layer-share", 0.7)
        assert set(late.note[late.index.get_level_values("layer") == 2]) == {"not scored: late layer"}
        assert kl.notna().all()

    def test_parts_of_a_stage_give_what_one_job_gives(self, at, caplog):
        names = ["none", "0", "1", "0-1", "add-0"]
        whole = {name: path.read_bytes() for name, path in self.completed(at, *names).items()}
        caplog.set_level("INFO")
        flags = [
            "--cache", at / "parts", "--prompts", at / "harmful.jsonl", "--bases", *self.bases(at, *names),
            "--max-new-tokens", 6,
        ]  # fmt: skip
        for number in range(3):
            caplog.clear()
            self.stage(at, "completions", *flags, "--part", f"{number}/3", at / f"{number}.json")
            assert f"completions: {(2, 2, 1)[number]} of {(2, 2, 1)[number]} items to compute" in caplog.messages
            assert read_json(at / f"{number}.json")["part"] == f"{number}/3"
        caplog.clear()
        outputs = {name: at / "combinations" / name / "completions" / "harmful.jsonl" for name in names}
        for path in outputs.values():
            path.unlink()
        self.stage(at, "completions", *flags, "--outputs", *outputs.values())
        assert caplog.messages == ["completions: 0 of 5 items to compute"]
        assert {name: path.read_bytes() for name, path in outputs.items()} == whole

    def test_sampled_completions_are_another_item_and_come_again(self, at):
        def sampled(cache, *flags):
            output = at / "combinations" / "0" / "completions" / "harmful.jsonl"
            self.stage(
                at, "completions", "--cache", at / cache, "--prompts", at / "harmful.jsonl", "--bases",
                *self.bases(at, "0"), "--max-new-tokens", 6, *flags, "--outputs", output,
            )  # fmt: skip
            return output.read_bytes(), read_json(sidecar(output))["spec"]

        drawn = ["--temperature", 2.0, "--top-p", 0.9, "--seed", 3]
        first, greedy = sampled("a", *drawn), sampled("a")
        assert first == sampled("b", *drawn)
        assert first[0] != greedy[0]
        assert first[1] != greedy[1]
        assert sampled("a", *drawn[:-1], 4)[0] != first[0]
        assert sampled("a", "--seed", 4)[1] == greedy[1]  # no seed changes a greedy response

    def test_completions(self, at, chat):
        import reference

        from refusal.model.chat import render

        rows = read_jsonl(self.completed(at, "none")["none"])
        assert [row["id"] for row in rows] == [f"harmful-{number}" for number in range(4)]
        for row in rows:
            tokens, stop = reference.generate(chat.model, render(chat.tokenizer, row["prompt"]), chat.stop_tokens, 6)
            assert (row["token_ids"], row["stop_token"], row["n_tokens"]) == (tokens, stop, len(tokens))
            assert row["finish_reason"] == ("length" if stop is None else "stop")
            assert row["response"] == chat.tokenizer.decode(tokens, skip_special_tokens=True)

    def test_a_new_combination_is_all_that_is_computed(self, at, caplog):
        first = self.completed(at, "none", "0", "add-0")
        before = {name: path.read_bytes() for name, path in first.items()}
        caplog.set_level("INFO")
        caplog.clear()
        second = self.completed(at, "none", "0", "add-0", "0-1")
        assert "completions: 1 of 4 items to compute" in caplog.messages
        assert {name: second[name].read_bytes() for name in first} == before
        assert len({path.read_bytes() for path in second.values()}) > 1
        verify(second.values())

    def test_what_is_ablated_decides_not_what_it_is_called(self, at, caplog):
        """Another ranking: "1" now stands for the directions of "0", and "0" for new ones."""
        first = self.completed(at, "0")["0"].read_bytes()
        basis = at / "combinations" / "0" / "basis.safetensors"
        tensors, facts = read_tensors(basis)
        renamed = at / "combinations" / "1" / "basis.safetensors"
        write_tensors(renamed, tensors, facts | {"candidates": [{"rank": 1}]})
        write_tensors(basis, {"basis": np.eye(32)[:1]}, facts)
        outputs = [at / "combinations" / name / "completions" / "harmful.jsonl" for name in "01"]
        caplog.set_level("INFO")
        caplog.clear()
        self.stage(
            at, "completions", "--prompts", at / "harmful.jsonl", "--bases", basis, renamed,
            "--max-new-tokens", 6, "--outputs", *outputs,
        )  # fmt: skip
        assert "completions: 1 of 2 items to compute" in caplog.messages
        assert outputs[1].read_bytes() == first
        assert outputs[0].read_bytes() != first

    def test_nothing_to_compute_loads_no_torch(self, at):
        outputs = self.completed(at, "none", "0")
        before = {name: path.read_bytes() for name, path in outputs.items()}
        for path in outputs.values():
            path.unlink()
        flags = [
            "--model", self.model, "--cache", at / "cache", "--prompts", at / "harmful.jsonl", "--bases",
            *(at / "combinations" / name / "basis.safetensors" for name in outputs), "--max-new-tokens", 6,
            "--outputs", *outputs.values(),
        ]  # fmt: skip
        code = (
            "import runpy, sys, atexit\n"
            f"atexit.register(lambda: print([one for one in {HEAVY!r} if one in sys.modules]))\n"
            "runpy.run_path('scripts/completions.py', run_name='__main__')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, flags)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
        assert done.stderr == "completions: 0 of 2 items to compute\n"
        assert {name: path.read_bytes() for name, path in outputs.items()} == before

    def test_combination_scores(self, at, chat, caplog):
        names = ("none", "0", "add-0")

        def scored(*names):
            outputs = [at / "combinations" / name / "scores.json" for name in names]
            flags = ["--bases", *self.bases(at, *names), "--outputs", *outputs]
            self.stage(at, "combination_scores", *self.both(at), *flags)
            return {name: read_json(path) for name, path in zip(names, outputs, strict=True)}

        found = scored(*names)
        for one in found.values():
            assert one["bypass"] == pytest.approx(np.mean(one["by_prompt"]["harmful_refusal_score"]))
            assert one["harmless_refusal_score"] == pytest.approx(np.mean(one["by_prompt"]["harmless_refusal_score"]))
            assert one["kl"] == pytest.approx(np.mean(one["by_prompt"]["kl"]))
            assert {len(values) for values in one["by_prompt"].values()} == {4}
        assert found["none"]["kl"] == pytest.approx(0, abs=1e-6)
        assert min(found["0"]["kl"], found["add-0"]["kl"]) > 1e-4
        caplog.set_level("INFO")
        caplog.clear()
        assert {name: scored(*names, "1")[name] for name in names} == found
        assert "combination_scores: 1 of 4 items to compute" in caplog.messages

    def test_loss(self, at, chat, caplog):
        import math

        import reference

        from refusal.model.chat import render
        from refusal.model.loss import chat_spans, text_spans

        names = ("none", "0-1")
        own = self.completed(at, "none")["none"]
        texts = [{"text": "The harbour was quiet."}, {"text": "Boats lay side by side"}]
        chats = [{"instruction": "Name a colour.", "response": "Blue, of course."}]
        write_jsonl(at / "corpora" / "plain.jsonl", texts)
        write_jsonl(at / "corpora" / "talk.jsonl", chats)
        outputs = [at / "combinations" / name / "loss.json" for name in names]

        def lost(*extra):
            self.stage(
                at, "loss", "--bases", *self.bases(at, *names), "--text", at / "corpora" / "plain.jsonl",
                "--chat", at / "corpora" / "talk.jsonl", "--max-tokens", 64, "--outputs", *outputs, *extra,
            )  # fmt: skip
            return {name: read_json(path) for name, path in zip(names, outputs, strict=True)}

        found = lost("--completions", own)
        spans = {"plain": text_spans(chat.tokenizer, texts, 64), "talk": chat_spans(chat, chats)}
        expected = {
            corpus: [(reference.loss(chat.model, one.tokens, one.start), len(one.tokens) - one.start) for one in found_]
            for corpus, found_ in spans.items()
        }
        expected["on_distribution"] = []
        for row in read_jsonl(own):
            prompt = render(chat.tokenizer, row["prompt"])
            reply = row["token_ids"] + ([] if row["stop_token"] is None else [row["stop_token"]])
            expected["on_distribution"].append((reference.loss(chat.model, prompt + reply, len(prompt)), len(reply)))
        assert set(found["none"]) == set(expected)
        for corpus, parts in expected.items():
            nats, count = (sum(part) for part in zip(*parts, strict=True))
            figures = found["none"][corpus]
            assert (figures["nats"], figures["n_tokens"]) == (pytest.approx(nats, rel=1e-5), count)
            assert figures["by_row"] == {
                "nats": pytest.approx([one for one, _ in parts], rel=1e-5),
                "n_tokens": [one for _, one in parts],
            }
            assert figures["ce_loss"] == pytest.approx(nats / count, rel=1e-5)
            assert figures["perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-4)
            assert found["0-1"][corpus]["n_tokens"] == count
            assert found["0-1"][corpus]["nats"] != figures["nats"]
        verify(outputs)
        caplog.set_level("INFO")
        caplog.clear()
        write_jsonl(at / "corpora" / "talk.jsonl", [{"instruction": "Hi", "response": "Hello"}])
        lost("--completions", own)
        assert "loss: 2 of 6 items to compute" in caplog.messages  # the changed corpus alone
        caplog.clear()
        lost("--completions", own, "--max-tokens", 4)
        assert "loss: 2 of 6 items to compute" in caplog.messages  # texts alone are cut

    def test_a_corpus_without_a_token_to_predict(self, at):
        write_jsonl(at / "talk.jsonl", [{"instruction": "Name a colour.", "response": ""}])
        with pytest.raises(UserError) as caught:
            self.stage(
                at, "loss", "--bases", *self.bases(at, "none"), "--chat", at / "talk.jsonl",
                "--outputs", at / "combinations" / "none" / "loss.json",
            )  # fmt: skip
        assert str(caught.value) == (
            f"{at / 'talk.jsonl'}: no token to predict: every text has one token at most, or every response none"
        )

    def test_prompts_that_the_model_does_not_refuse_are_dropped(self, at, chat):
        """Random logits start a refusal with 2 of 264 tokens: the model answers all, so no harmful prompt is left."""
        sets = [
            f"--{kind}-{split}={at / kind}-{split}.jsonl"
            for kind in ("harmful", "harmless")
            for split in ("train", "val")
        ]
        for flag in sets:
            path = Path(flag.partition("=")[2])
            write_jsonl(path, [{"instruction": f"{path.stem} {number}"} for number in range(4)])
        with pytest.raises(
            UserError, match=r"^harmful_train: the model refuses none of the 4 harmful prompts \(refusal"
        ):
            self.stage(at, "prompts", *sets, "--train", 4, "--val", 4, "--output-dir", at / "out")
        assert not (at / "out").exists()
