"""The cache: an item is there whole or not at all, whoever is killed or writes at the same time."""

import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from refusal import cache
from refusal.artifacts import read_json, write_tensors
from refusal.errors import UserError
from refusal.provenance import ROOT, Spec, verify

RUN = {"dtype": "float32"}


def item(number, stage="stage"):
    return Spec(stage, "code", {"number": number})


def keep(root, made, text="content"):
    cache.store(root, made, lambda path: path.write_text(text), RUN)


def folder(root, made):
    return root / made.stage / made.key


class TestItems:
    def test_pending_stored_loaded(self, tmp_path, caplog):
        caplog.set_level("INFO")
        specs = {"none": item(0), "0": item(1), "0-1": item(2)}
        assert cache.pending(tmp_path, specs) == specs
        keep(tmp_path, item(1))
        assert list(cache.pending(tmp_path, specs)) == ["none", "0-1"]
        data, run = cache.load(tmp_path, item(1))
        assert (data.read_text(), run) == ("content", RUN)
        assert caplog.messages == ["stage: 3 of 3 items to compute", "stage: 2 of 3 items to compute"]

    def test_equal_specs_are_computed_once(self, tmp_path, caplog):
        caplog.set_level("INFO")
        assert list(cache.pending(tmp_path, {"0": item(1), "0-1": item(1), "1": item(2)})) == ["0", "1"]
        assert caplog.messages == ["stage: 2 of 2 items to compute"]

    def test_nothing_is_asked_for(self, tmp_path):
        assert cache.pending(tmp_path / "gone", {}) == {}

    def test_a_narrowed_spec_differs_by_its_item(self):
        base = Spec("stage", "code", {"model": "m"}, {"prompts": "p"})
        narrowed = cache.narrowed(base, basis="b")
        assert narrowed == Spec("stage", "code", {"model": "m", "basis": "b"}, {"prompts": "p"})
        assert base.parameters == {"model": "m"}

    def test_published_with_its_spec_and_item(self, tmp_path):
        (tmp_path / "prompts").write_text("p")
        keep(tmp_path / "cache", item(1))
        output = tmp_path / "results" / "0" / "rows.jsonl"
        cache.publish(tmp_path / "cache", item(1), output, {"prompts": tmp_path / "prompts"})
        assert output.read_text() == "content"
        record = read_json(output.with_name("rows.jsonl.spec.json"))
        assert (record["spec"], record["run"]) == (item(1).key, {**RUN, "items": [item(1).key]})
        verify([output])

    def test_an_item_that_went_missing(self, tmp_path):
        with pytest.raises(UserError) as caught:
            cache.load(tmp_path, item(1))
        assert str(caught.value) == (
            f"{folder(tmp_path, item(1))}: the cached item went missing while the step ran: run it again"
        )


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            lambda at: (at / "data").write_text("other"),
            lambda at: (at / "data").write_text(""),
            lambda at: (at / "data").unlink(),
            lambda at: (at / "item.json").write_text("{"),
            lambda at: (at / "item.json").write_text("{}"),
            lambda at: (at / "item.json").unlink(),
        ],
    )
    def test_a_damaged_item_is_computed_again(self, tmp_path, caplog, damage):
        keep(tmp_path, item(1))
        damage(folder(tmp_path, item(1)))
        assert cache.pending(tmp_path, {"0": item(1)}) == {"0": item(1)}
        assert f"{folder(tmp_path, item(1))}: a damaged item, computed again" in caplog.messages
        keep(tmp_path, item(1), "again")
        assert cache.load(tmp_path, item(1))[0].read_text() == "again"

    def test_an_error_while_writing_leaves_nothing(self, tmp_path):
        def broken(path):
            path.write_text("half")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            cache.store(tmp_path, item(1), broken, RUN)
        assert list((tmp_path / "stage").iterdir()) == []
        assert cache.pending(tmp_path, {"0": item(1)})

    def test_a_killed_process_leaves_no_item(self, tmp_path):
        """Killed between its data and its record, so nothing is cleaned up."""
        code = f"""
            import os, signal
            from pathlib import Path
            from refusal import cache
            from refusal.provenance import Spec

            def write(path):
                path.write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)

            cache.store(Path({str(tmp_path)!r}), Spec("stage", "code", {{"number": 1}}), write, {{}})
        """
        done = python(code)
        assert done.returncode == -signal.SIGKILL
        assert [path.name[:5] for path in (tmp_path / "stage").iterdir()] == [".new-"]
        assert cache.pending(tmp_path, {"0": item(1)}) == {"0": item(1)}
        keep(tmp_path, item(1))
        assert cache.load(tmp_path, item(1))[0].read_text() == "content"


def python(code):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT / "src", capture_output=True, text=True, check=False
    )


class TestTwoAtOnce:
    def test_the_second_to_finish_finds_the_first(self, tmp_path):
        def write(path):
            keep(tmp_path, item(1), "first")  # another process finishes meanwhile
            path.write_text("second")

        cache.store(tmp_path, item(1), write, RUN)
        assert cache.load(tmp_path, item(1))[0].read_text() == "first"
        assert [path.name for path in (tmp_path / "stage").iterdir()] == [item(1).key]

    def test_processes(self, tmp_path):
        code = textwrap.dedent(f"""
            from pathlib import Path
            from refusal import cache
            from refusal.provenance import Spec

            for number in range(60):
                made = Spec("stage", "code", {{"number": number}})
                cache.store(Path({str(tmp_path)!r}), made, lambda path: path.write_text("x" * 1000), {{}})
        """)
        started = [
            subprocess.Popen([sys.executable, "-c", code], cwd=ROOT / "src", stderr=subprocess.PIPE) for _ in range(3)
        ]
        errors = [one.communicate()[1] for one in started]
        assert errors == [b""] * 3
        assert cache.pending(tmp_path, {str(number): item(number) for number in range(60)}) == {}
        assert len(list((tmp_path / "stage").iterdir())) == 60


class TestHousekeeping:
    def test_prune_keeps_what_results_were_made_from(self, tmp_path):
        root, results = tmp_path / "cache", tmp_path / "results"
        (tmp_path / "prompts").write_text("p")
        for number in range(3):
            keep(root, item(number))
        keep(root, item(0, "other"))
        cache.publish(root, item(1), results / "m" / "rows.jsonl", {"prompts": tmp_path / "prompts"})
        assert cache.prune(root, results) == 3
        specs = {str(number): item(number) for number in range(3)}
        assert list(cache.pending(root, specs)) == ["0", "2"]
        assert cache.prune(root, results) == 0

    def test_prune_leaves_an_item_that_is_being_written(self, tmp_path):
        def write(path):
            assert cache.prune(tmp_path, tmp_path / "results") == 0
            path.write_text("content")

        cache.store(tmp_path, item(1), write, RUN)
        assert cache.load(tmp_path, item(1))[0].read_text() == "content"

    def test_sizes_by_stage(self, tmp_path):
        for number in range(3):
            keep(tmp_path, item(number), "x" * 1000)
        keep(tmp_path, item(0, "other"), "")
        found = cache.sizes(tmp_path)
        assert {stage: items for stage, (items, _) in found.items()} == {"other": 1, "stage": 3}
        assert found["stage"][1] == sum(
            path.stat().st_size for path in (tmp_path / "stage").rglob("*") if path.is_file()
        )
        assert found["stage"][1] > 3000

    def test_no_cache_yet(self, tmp_path):
        assert cache.sizes(tmp_path / "gone") == {}
        assert cache.prune(tmp_path / "gone", tmp_path / "results") == 0


class TestContent:
    def tensors(self, tmp_path, name="basis", basis=None, **facts):
        facts = {"kind": "ablation", "ablation": "span", "k": 1, "candidates": [{"rank": 0}], **facts}
        path = tmp_path / f"{name}.safetensors"
        write_tensors(path, {"basis": np.eye(4)[:1] if basis is None else basis}, facts)
        return cache.content(path)

    def test_the_same_directions_under_other_ranks_are_the_same(self, tmp_path):
        renamed = self.tensors(tmp_path, "renamed", candidates=[{"rank": 5}], left_out=[2], k=2)
        assert renamed == self.tensors(tmp_path)

    def test_other_numbers_shapes_or_uses_are_not(self, tmp_path):
        found = [
            self.tensors(tmp_path),
            self.tensors(tmp_path, "turned", np.eye(4)[1:2]),
            self.tensors(tmp_path, "two", np.eye(4)[:2]),
            self.tensors(tmp_path, "shape", np.eye(4)[:1].reshape(2, 2)),
            self.tensors(tmp_path, "none", kind="none"),
            self.tensors(tmp_path, "sequential", ablation="sequential"),
            self.tensors(tmp_path, "layer", kind="addition", layer=1),
            self.tensors(tmp_path, "other-layer", kind="addition", layer=2),
        ]
        assert len(set(found)) == len(found)

    def test_of_other_files_the_bytes(self, tmp_path):
        (tmp_path / "a.jsonl").write_text("1")
        (tmp_path / "b.jsonl").write_text("1")
        before = cache.content(tmp_path / "a.jsonl")
        assert before == cache.content(tmp_path / "b.jsonl")
        (tmp_path / "a.jsonl").write_text("2")
        assert cache.content(tmp_path / "a.jsonl") != before
