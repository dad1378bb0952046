"""Code versions follow meaning, not layout; specs beside files find what changed, wherever the checkout stands."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal import provenance
from refusal.artifacts import read_json
from refusal.errors import UserError
from refusal.provenance import Spec, code_version, orphans, sidecar, spec, stamp, verify, versions

STAGE = '''"""A stage."""

from refusal import helper


def main(args):
    """Do it."""
    if args.todo:
        from refusal.model import late

        late.run()
    return helper.value
'''


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one stage, and every module that it does and does not use."""
    root = tmp_path / "checkout"
    files = {
        "scripts/stage.py": STAGE,
        "src/refusal/__init__.py": "",
        "src/refusal/helper.py": '"""Helps."""\n\nfrom refusal import deep\n\nvalue = deep.value\n"""Says."""\n',
        "src/refusal/deep.py": "value = 1\n",
        "src/refusal/unused.py": "value = 1\n",
        "src/refusal/cli.py": "value = 1\n",
        "src/refusal/errors.py": "value = 1\n",
        "src/refusal/model/__init__.py": "",
        "src/refusal/model/late.py": "def run():\n    return 1\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    use(root, monkeypatch)
    yield root
    forget()


def use(root, monkeypatch):
    """Let provenance look at this checkout."""
    package = root / "src" / "refusal"
    monkeypatch.setattr(provenance, "ROOT", root)
    monkeypatch.setattr(provenance, "_PACKAGES", {"refusal": package})
    monkeypatch.setattr(provenance, "_MANNER", {package / "cli.py", package / "errors.py"})
    forget()


def forget():
    """The files that were read: tests change them."""
    provenance._read.cache_clear()
    code_version.cache_clear()


def version():
    forget()
    return code_version("stage")


class TestCodeVersion:
    @pytest.mark.parametrize(
        ("name", "old", "new"),
        [
            ("scripts/stage.py", '"""A stage."""', '"""Another text."""'),
            ("scripts/stage.py", '    """Do it."""\n', ""),
            ("scripts/stage.py", "    return helper.value", "    # why\n    return (\n        helper.value)\n\n\n"),
            ("scripts/stage.py", "from refusal import helper\n\n", "from refusal import helper  # noqa\n"),
            ("src/refusal/helper.py", '"""Says."""', '"""Documents the value above."""'),
            ("src/refusal/unused.py", "1", "2"),
        ],
    )
    def test_comments_docstrings_layout_and_unused_modules_do_not_count(self, checkout, name, old, new):
        before = version()
        text = (checkout / name).read_text()
        assert old in text
        (checkout / name).write_text(text.replace(old, new))
        assert version() == before

    @pytest.mark.parametrize(
        ("name", "old", "new"),
        [
            ("scripts/stage.py", "args.todo", "not args.todo"),
            ("src/refusal/helper.py", "deep.value", "deep.value + 1"),
            ("src/refusal/deep.py", "1", "2"),  # imported by what is imported
            ("src/refusal/model/late.py", "return 1", "return 2"),  # imported inside a function
            ("src/refusal/model/late.py", "return 1", 'return "1"'),
        ],
    )
    def test_code_that_the_stage_uses_counts(self, checkout, name, old, new):
        before = version()
        text = (checkout / name).read_text()
        assert old in text
        (checkout / name).write_text(text.replace(old, new))
        assert version() != before

    def test_how_a_stage_is_started_does_not_count(self, checkout):
        script = checkout / "scripts" / "stage.py"
        script.write_text(STAGE.replace("from refusal import helper", "from refusal import cli, errors, helper"))
        before = version()
        for name in ("cli", "errors"):
            (checkout / "src" / "refusal" / f"{name}.py").write_text("value = 2\n")
        assert version() == before

    def test_a_moved_checkout_has_the_same_version(self, checkout, tmp_path, monkeypatch):
        before = version()
        shutil.move(checkout, tmp_path / "elsewhere")
        use(tmp_path / "elsewhere", monkeypatch)
        assert version() == before

    def test_no_such_stage(self, checkout):
        with pytest.raises(UserError, match=r"^scripts/stages\.py: no such stage$"):
            code_version("stages")

    def test_every_stage_of_the_project_has_one_of_its_own(self):
        forget()
        stages = [path.stem for path in (provenance.ROOT / "scripts").glob("*.py")]
        found = {stage: code_version(stage) for stage in stages}
        assert len(found) > 10
        assert len(set(found.values())) == len(found)

    def test_a_judges_code_belongs_to_the_judgements(self):
        """Judges are looked up by name; their modules must still be seen."""
        reached, waiting = set(), [provenance.ROOT / "scripts" / "judgements.py"]
        while waiting:
            new = provenance._read(waiting.pop())[0] - reached
            reached |= new
            waiting += new
        judges = set((provenance.ROOT / "src" / "refusal" / "judges").glob("[!_]*.py"))
        assert judges <= reached
        assert not any("model" in path.parts for path in reached)


class TestSpec:
    @given(st.dictionaries(st.text(), st.integers(), min_size=1), st.dictionaries(st.text(), st.text(), min_size=1))
    def test_the_key_does_not_depend_on_order(self, parameters, inputs):
        turned = Spec("s", "c", dict(reversed(parameters.items())), dict(reversed(inputs.items())))
        assert Spec("s", "c", parameters, inputs).key == turned.key

    def test_every_part_decides_the_key(self):
        base = Spec("s", "c", {"a": 1}, {"x": "1"})
        others = [
            Spec("t", "c", {"a": 1}, {"x": "1"}),
            Spec("s", "d", {"a": 1}, {"x": "1"}),
            Spec("s", "c", {"a": 2}, {"x": "1"}),
            Spec("s", "c", {"b": 1}, {"x": "1"}),
            Spec("s", "c", {"a": 1}, {"x": "2"}),
            Spec("s", "c", {"a": 1}, {"y": "1"}),
            Spec("s", "c", {"a": 1}, {}),
        ]
        assert len({one.key for one in [base, *others]}) == len(others) + 1

    def test_of_files_by_content(self, checkout, tmp_path):
        (tmp_path / "a").write_text("same")
        (tmp_path / "b").write_text("same")
        assert spec("stage", {}, {"x": tmp_path / "a"}) == spec("stage", {}, {"x": tmp_path / "b"})

    def test_the_key_is_the_same_in_another_process(self):
        code = "from refusal.provenance import Spec; print(Spec('s', 'c', {'a': 1, 'b': [2.5]}, {'x': '1'}).key)"
        made = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=provenance.ROOT / "src"
        )
        assert made.stdout.strip() == Spec("s", "c", {"b": [2.5], "a": 1}, {"x": "1"}).key


@pytest.fixture
def chain(checkout):
    """source -> middle -> end, each stamped with what it was made from, paths within the checkout."""
    results = checkout / "results"
    results.mkdir()
    for name in ("source", "middle", "end"):
        (results / name).write_text(name)
    made = Spec("stage", version(), {"a": 1})
    stamp(results / "middle", made, {"source": results / "source"})
    stamp(results / "end", made, {"middle": results / "middle"}, {"dtype": "float32"})
    return results


class TestVerify:
    def message(self, *paths):
        with pytest.raises(UserError) as caught:
            verify(paths)
        return str(caught.value)

    def test_what_fits_passes(self, chain):
        assert verify([chain / "end", chain / "middle", chain / "source"]) is None

    def test_a_changed_file(self, chain):
        (chain / "end").write_text("edited")
        assert self.message(chain / "end") == (
            "results/end: changed since the stage step wrote it: run snakemake with --forcerun stage"
        )

    def test_a_changed_input(self, chain):
        (chain / "source").write_text("edited")
        expected = (
            "results/middle: made from an older results/source than the one there now:"
            " run snakemake with --forcerun stage"
        )
        assert self.message(chain / "middle") == expected
        assert self.message(chain / "end") == expected  # also far behind the file that was asked for

    def test_a_changed_file_in_between(self, chain):
        (chain / "middle").write_text("edited")
        assert self.message(chain / "end") == (
            "results/end: made from an older results/middle than the one there now: run snakemake with --forcerun stage"
        )

    def test_a_remade_input(self, chain):
        """Stamped and right in itself, but not what the later file was made from."""
        (chain / "middle").write_text("remade")
        stamp(chain / "middle", Spec("stage", "x", {}), {"source": chain / "source"})
        verify([chain / "middle"])
        assert self.message(chain / "end").startswith("results/end: made from an older results/middle than")

    @pytest.mark.parametrize("name", ["source", "middle", "end"])
    def test_a_missing_file(self, chain, name):
        (chain / name).unlink()
        assert self.message(chain / "end") == (
            f"results/{name}: missing, and results were made from it: run snakemake again"
        )

    def test_a_moved_checkout_fits(self, chain, checkout, tmp_path, monkeypatch):
        shutil.move(checkout, tmp_path / "elsewhere")
        use(tmp_path / "elsewhere", monkeypatch)
        verify([tmp_path / "elsewhere" / "results" / "end"])
        (tmp_path / "elsewhere" / "results" / "source").write_text("edited")
        assert self.message(tmp_path / "elsewhere" / "results" / "end").startswith("results/middle: made from an older")

    def test_a_file_outside_the_checkout_keeps_its_place(self, chain, tmp_path):
        (tmp_path / "outside").write_text("1")
        stamp(chain / "end", Spec("stage", "x", {}), {"outside": tmp_path / "outside"})
        verify([chain / "end"])
        (tmp_path / "outside").write_text("2")
        assert self.message(chain / "end").startswith(f"results/end: made from an older {tmp_path / 'outside'} than")

    def test_a_file_used_twice_is_read_once(self, chain, monkeypatch):
        real, read = provenance.sha256, []
        monkeypatch.setattr(provenance, "sha256", lambda path: read.append(path) or real(path))
        verify([chain / "end", chain / "end", chain / "middle"])
        assert sorted(path.name for path in read) == ["end", "middle", "source"]

    def test_a_source_without_a_spec_is_taken_as_it_is(self, tmp_path):
        (tmp_path / "data").write_text("anything")
        assert verify([tmp_path / "data"]) is None


class TestOrphans:
    def test_nothing_is_one_while_all_is_there(self, chain):
        assert orphans(chain) == []

    def test_what_was_made_from_a_missing_file_is_one_with_all_that_followed(self, chain):
        (chain / "source").unlink()
        assert [path.name for path in orphans(chain)] == ["end", "middle"]

    def test_what_stands_before_the_missing_file_is_none(self, chain):
        (chain / "middle").unlink()
        assert [path.name for path in orphans(chain)] == ["end"]

    def test_a_missing_file_elsewhere_makes_none(self, chain, tmp_path):
        other = tmp_path / "prompts.jsonl"
        other.write_text("x")
        stamp(chain / "middle", Spec("stage", "code", {}), {"source": chain / "source", "prompts": other})
        other.unlink()
        assert orphans(chain) == []


def test_a_stamp_says_what_and_how(chain):
    record = read_json(sidecar(chain / "end"))
    assert sidecar(chain / "end") == chain / "end.spec.json"
    assert (record["stage"], record["parameters"], record["run"]) == ("stage", {"a": 1}, {"dtype": "float32"})
    assert record["inputs"]["middle"]["path"] == "results/middle"
    assert set(record["inputs"]["middle"]) == {"path", "sha256"}
    assert record["spec"] == Spec("stage", record["code"], {"a": 1}).key
    assert json.dumps(record).count(str(Path.cwd())) == 0


def test_versions_of_the_libraries():
    assert set(versions()) == {"torch", "transformers", "numpy"}
    assert all(text[0].isdigit() for text in versions().values())
