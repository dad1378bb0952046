"""Which record a file has, whoever wrote it: a job here, another checkout, or a hand."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from refusal import records
from refusal.errors import UserError

NAMES = ("a", "b", "deep/c")


class Checkout:
    """A folder with results, and what Snakemake holds of them."""

    def __init__(self, root: Path):
        self.root, self.held, self.clock = root, {}, 1000.0
        self.folder = root / "results" / "tiny"
        self.folder.mkdir(parents=True)

    def path(self, name):
        return str(self.folder / name)

    def write(self, name, content):
        """Anyone writes a file, later than all before."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(content)
        self.clock += 10
        os.utime(path, (self.clock, self.clock))

    def job(self, name, content):
        """A job writes it: Snakemake records what it was made by, here its content."""
        self.write(name, content)
        self.held[self.path(name)] = record(content) | {"endtime": self.clock}

    def reconcile(self):
        held = self.held
        seen = self.root / "seen.json"
        return records.reconcile(self.folder, seen, held.get, lambda path, made: held.update({path: dict(made)}))

    def listed(self):
        path = self.folder / records.RECORDS
        jobs = json.loads(path.read_text()) if path.exists() else []
        return {path: job["params"] for job in jobs for path in job["outputs"]}

    def runs_again(self, name):
        return self.held.get(self.path(name), {}).get("code") == records.LOST


def record(content, inputs=()):
    return {
        "rule": "stage",
        "input": list(inputs),
        "params": [content],
        "code": "run",
        "software_stack_hash": "",
        "record_format_version": records.FORMAT,
        "input_checksums": {},
    }


@pytest.fixture
def here(tmp_path):
    return Checkout(tmp_path / "here")


@pytest.fixture
def there(here, tmp_path):
    """Results of `here`, carried elsewhere without Snakemake's own records."""
    here.job("a", "first")
    here.reconcile()
    return carried(here, Checkout(tmp_path / "there"))


def carried(source, target):
    """What DVC does: files that differ are replaced, and have the time of then."""
    for path in target.folder.rglob("*"):
        if path.is_file() and not (source.folder / path.relative_to(target.folder)).exists():
            path.unlink()
    for path in filter(Path.is_file, source.folder.rglob("*")):
        name = str(path.relative_to(source.folder))
        content = path.read_text().replace(str(source.root), str(target.root))
        if not (target.folder / name).exists() or (target.folder / name).read_text() != content:
            target.write(name, content)
    return target


def test_what_a_job_wrote_is_listed_with_what_it_was_made_from(here):
    upstream = here.root / "model"
    upstream.write_text("weights")
    here.held[str(upstream)] = record("weights") | {"endtime": upstream.stat().st_mtime}
    here.job("a", "first")
    here.held[here.path("a")]["input"] = [str(upstream), "data.jsonl"]
    assert here.reconcile() == []
    assert here.listed() == {here.path("a"): ["first"], str(upstream): ["weights"]}


def test_results_from_elsewhere_bring_their_records_and_are_older_than_any_source(there):
    assert there.reconcile() == []
    assert there.held[there.path("a")] == record("first") | {"endtime": 1.0}
    assert Path(there.path("a")).stat().st_mtime == 1.0


def test_files_that_are_as_they_were_are_not_read(here, monkeypatch):
    here.job("a", "first")
    here.reconcile()
    monkeypatch.setattr(records, "write_json", lambda *_: pytest.fail("nothing changed"))
    monkeypatch.setattr(
        records, "sha256", {here.folder / records.RECORDS: records.sha256(here.folder / "records.json")}.get
    )
    here.held.clear()  # not asked either
    assert here.reconcile() == []


def test_a_job_that_was_killed_before_its_records_were_kept(here):
    here.job("a", "first")
    here.reconcile()
    here.job("a", "second")
    assert here.reconcile() == []
    assert here.listed() == {here.path("a"): ["second"]}


def test_results_taken_back_after_a_killed_run(here, there):
    """records.json is the old one all along, and so is no sign of it."""
    there.reconcile()
    there.job("a", "second")
    carried(here, there)
    assert there.reconcile() == []
    assert there.held[there.path("a")]["params"] == ["first"]


def test_same_content_by_other_code_has_the_record_that_came_with_it(here, there):
    there.reconcile()
    here.job("a", "first")
    here.held[here.path("a")]["code"] = "run faster"
    here.reconcile()
    carried(here, there)
    assert there.reconcile() == []
    assert there.held[there.path("a")]["code"] == "run faster"


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_a_file_that_no_job_left_so_is_made_again(here, change):
    here.job("a", "first")
    here.reconcile()
    if change == "edited":
        here.write("a", "by hand")
    else:
        Path(here.path("a")).unlink()
    assert here.reconcile() == [here.path("a")]
    assert here.runs_again("a")
    assert here.reconcile() == []  # said once
    here.job("a", "first")
    here.reconcile()
    assert not here.runs_again("a")
    assert here.listed() == {here.path("a"): ["first"]}


def test_what_a_stage_deletes_itself_is_not_missed(here):
    here.job("parts/a", "done")
    here.reconcile()
    Path(here.path("parts/a")).unlink()
    assert here.reconcile() == []
    assert not here.runs_again("parts/a")


def test_an_edit_that_is_undone_needs_nothing(here):
    here.job("a", "first")
    here.reconcile()
    here.write("a", "by hand")
    here.reconcile()
    here.write("a", "first")
    assert here.reconcile() == []
    assert not here.runs_again("a")


def test_a_model_that_stayed_elsewhere_is_not_missed(here):
    upstream = here.root / "model"
    upstream.write_text("weights")
    here.held[str(upstream)] = record("weights") | {"endtime": upstream.stat().st_mtime}
    here.job("a", "first")
    here.held[here.path("a")]["input"] = [str(upstream)]
    here.reconcile()
    upstream.unlink()
    assert here.reconcile() == []
    assert here.listed() == {here.path("a"): ["first"], str(upstream): ["weights"]}


def test_lost_records_are_made_again_from_snakemakes(here):
    here.job("a", "first")
    here.reconcile()
    (here.folder / records.RECORDS).unlink()
    here.reconcile()
    assert here.listed() == {here.path("a"): ["first"]}


def test_a_pull_that_broke_off_leaves_files_their_records(here, there):
    there.reconcile()
    here.job("a", "second")
    here.reconcile()
    (there.folder / records.RECORDS).write_text(
        (here.folder / records.RECORDS).read_text().replace(str(here.root), str(there.root))
    )
    assert there.reconcile() == []
    assert there.held[there.path("a")]["params"] == ["first"]


def test_an_edit_within_a_second_of_the_job(here):
    here.job("a", "first")
    here.reconcile()
    path = Path(here.path("a"))
    path.write_text("by hand")
    os.utime(path, (here.clock + 0.1, here.clock + 0.1))
    assert here.reconcile() == [here.path("a")]


def test_copied_results_without_records_stay_as_snakemake_knows_them(here):
    here.job("a", "first")
    here.write("a", "first")
    assert here.reconcile() == []
    assert here.listed() == {here.path("a"): ["first"]}


@pytest.mark.parametrize("jobs", [[{"outputs": ["a"], **record("x")}], [{"outputs": {}, "record_format_version": 7}]])
def test_another_form_is_refused(here, jobs):
    path = here.folder / records.RECORDS
    path.write_text(json.dumps(jobs))
    with pytest.raises(UserError) as raised:
        here.reconcile()
    assert str(raised.value) == (
        f"{path}: not of the form that this version keeps: check out results of this version,"
        " or delete it (jobs may run again)"
    )


CONTENTS = st.sampled_from(["0", "1", "2"])


class Sequences(RuleBasedStateMachine):
    """Whatever happens in whatever order: a file's record is that of its content, or its job runs again."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.here, self.there = Checkout(self.root / "here"), Checkout(self.root / "there")

    def teardown(self):
        shutil.rmtree(self.root)

    @rule(name=st.sampled_from(NAMES), content=CONTENTS)
    def job(self, name, content):
        self.here.job(name, content)

    @rule(name=st.sampled_from(NAMES), content=CONTENTS)
    def job_there(self, name, content):
        self.there.job(name, content)

    @rule(name=st.sampled_from(NAMES), content=CONTENTS)
    def edit(self, name, content):
        if (self.here.folder / name).exists() and self.here.path(name) in self.here.listed():
            self.here.write(name, content)

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name):
        (self.here.folder / name).unlink(missing_ok=True)

    @rule()
    def reconcile(self):
        self.here.reconcile()

    @rule()
    def carry_there(self):
        self.here.reconcile()
        carried(self.here, self.there)
        self.there.reconcile()

    @rule()
    def take_back(self):
        self.there.reconcile()
        carried(self.there, self.here)

    @rule()
    def check(self):
        for checkout in (self.here, self.there):
            checkout.reconcile()
            for name in NAMES:
                path, held = checkout.folder / name, checkout.held.get(checkout.path(name))
                if path.exists() and held:
                    assert held["params"] == [path.read_text()] or held["code"] == records.LOST


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=150, stateful_step_count=15, deadline=None)
