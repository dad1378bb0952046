"""DVC runs the study through snakemake, carries it elsewhere, and both agree on what is up to date."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import snakemake.assets
from conftest import ROOT, Checkout

from refusal.plots import FILES, NAMES

pytestmark = pytest.mark.workflow

DVC_SAYS = "Data and pipelines are up to date"
SNAKEMAKE_SAYS = "Nothing to be done"
METRICS = "results/tiny/metrics.json"
GIT = {f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
S3 = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def git(checkout: Checkout, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=checkout.folder, env=os.environ | GIT, check=True, capture_output=True)


def commit(checkout: Checkout) -> None:
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "test")


def edit_metrics(checkout: Checkout) -> None:
    """Another code for the last and lightest job."""
    with (checkout.folder / "scripts/metrics.py").open("a") as file:
        file.write("ANOTHER = 1\n")


def carried_alone(checkout: Checkout) -> bool:
    """Whether the results and their records, without Snakemake's own, leave nothing to be done."""
    shutil.rmtree(checkout.folder / ".snakemake")
    return SNAKEMAKE_SAYS in checkout.snakemake("--dry-run")


def agree(checkout: Checkout) -> bool:
    """Whether both say that nothing is to be done."""
    return DVC_SAYS in checkout.run("dvc", "repro") and SNAKEMAKE_SAYS in checkout.snakemake()


@pytest.fixture(scope="module")
def versioned(finished, tmp_path_factory) -> Checkout:
    """The finished study in git and DVC; not to be changed."""
    checkout = finished.copy(tmp_path_factory.mktemp("versioned") / "study")
    before = checkout.items()
    git(checkout, "init", "--quiet")
    checkout.run("dvc", "repro")
    assert checkout.computed(before) == {}
    commit(checkout)
    return checkout


@pytest.fixture
def bucket():
    """Options of a remote in a bucket on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).parent / "moto_server"), "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            urllib.request.urlopen(urllib.request.Request(f"{address}/studies", method="PUT"))
        except OSError:
            return False
        return True

    try:
        Checkout.wait_for(answers, seconds=30)
        yield "s3://studies/refusal", address
    finally:
        server.terminate()
        server.wait()


def round_trip(versioned: Checkout, folder: Path, url: str, *options: tuple[str, str], **variables: str) -> Checkout:
    """Push to a remote, clone elsewhere, pull."""
    here = versioned.copy(folder / "here")
    here.run("dvc", "remote", "add", "--default", "store", url)
    for option in options:
        here.run("dvc", "remote", "modify", "store", *option)
    commit(here)
    here.run("dvc", "push", **variables)
    git(here, "clone", "--quiet", ".", str(folder / "there"))
    there = Checkout(folder / "there")
    there.run("dvc", "pull", **variables)
    return there


def test_a_clone_pulls_and_has_nothing_to_do_until_content_changes(versioned, tmp_path):
    there = round_trip(versioned, tmp_path, str(tmp_path / "remote"))
    lock = there.folder / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("results/tiny/summary.csv\n")
    there.snakemake("--dry-run")  # beside another one that runs
    lock.unlink()
    there.snakemake("--dry-run", "--mode", "subprocess")  # as jobs call it
    assert not (there.folder / ".snakemake/records").exists()
    assert agree(there)
    contents = versioned.contents("tiny")
    assert there.contents("tiny") == contents

    prompts = there.folder / "data/organism/borderline_test.jsonl"
    prompts.write_text("".join(prompts.read_text().splitlines(keepends=True)[:-5]))
    assert "rule test_prompts" in there.snakemake("--dry-run")
    assert "study@tiny" in there.run("dvc", "status")


def test_a_change_that_arrives_before_the_results_is_not_missed(versioned, tmp_path):
    here = versioned.copy(tmp_path / "here")
    prompts = here.folder / "data/organism/borderline_test.jsonl"
    prompts.write_text("".join(prompts.read_text().splitlines(keepends=True)[:-5]))
    commit(here)
    git(here, "clone", "--quiet", ".", str(tmp_path / "there"))
    there = Checkout(tmp_path / "there")
    there.run("dvc", "remote", "add", "here", str(here.folder / ".dvc/cache"))
    there.run("dvc", "pull", "--remote", "here")
    # older by the clock than all that was made from it
    assert "rule test_prompts" in there.snakemake("--dry-run")


def test_a_bucket_carries_the_study(versioned, bucket, tmp_path):
    url, address = bucket
    assert agree(round_trip(versioned, tmp_path, url, ("endpointurl", address), **S3))


def test_results_that_no_job_left_so_are_made_again(versioned, tmp_path):
    checkout = versioned.copy(tmp_path / "moved")
    with (checkout.folder / METRICS).open("a") as file:
        file.write(" ")
    # neither is a target
    (checkout.folder / "results/tiny/claims.md").unlink()
    assert "study@tiny" in checkout.run("dvc", "status")
    said = checkout.snakemake("--dry-run")
    assert "results/tiny/claims.md (and 1 more): not what its job wrote, or gone: it is made again if needed" in said
    assert set(re.findall(r"rule (\w+):", said)) == {"all", "claims", "metrics", "report"}
    checkout.run("dvc", "repro")
    assert agree(checkout)
    found, expected = checkout.contents("tiny"), versioned.contents("tiny")
    # the page says how long each stage took
    assert found.keys() == expected.keys()
    assert {path for path in found if found[path] != expected[path]} <= {"report.html"}


def test_records_are_kept_when_a_run_ends_and_by_the_next_one_if_it_was_killed(versioned, tmp_path):
    checkout = versioned.copy(tmp_path / "moved")
    edit_metrics(checkout)
    assert "rule metrics" in checkout.snakemake()
    assert carried_alone(checkout)
    edit_metrics(checkout)
    checkout.snakemake("--no-hooks")  # as if it was killed after its last job
    assert SNAKEMAKE_SAYS in checkout.snakemake()
    assert carried_alone(checkout)


def test_a_deleted_table_is_a_target(versioned, tmp_path):
    checkout = versioned.copy(tmp_path / "moved")
    (checkout.folder / "results/tiny/summary.csv").unlink()
    (checkout.folder / "results/tiny/records.json").unlink()
    assert "rule summary" in checkout.snakemake("--dry-run")


def test_another_snakemake_is_refused_in_one_line(versioned, tmp_path):
    checkout = versioned.copy(tmp_path / "moved")
    source = checkout.folder / "src/refusal/records.py"
    source.write_text(source.read_text().replace("FORMAT = 6", "FORMAT = 0"))
    said = checkout.snakemake("--dry-run", ok=False)
    assert (
        f"\nsnakemake {snakemake.__version__} keeps records in another form than workflow/rules/records.smk knows:"
        " install the version in requirements.lock\n" in said
    )


def test_the_page_of_plots_finds_its_scripts_without_the_network():
    scripts = re.findall(r'src="\.\./\.venv/vega/(.*?)"', (ROOT / ".dvc/plots.html").read_text())
    assert len(scripts) == 3
    (assets,) = snakemake.assets.__path__
    assert all((Path(assets) / "data" / script).is_file() for script in scripts)


def test_metrics_and_plots_show_what_the_summary_says(versioned):
    shown = json.loads(versioned.run("dvc", "metrics", "show", "--json"))[""]["data"][METRICS]["data"]
    assert shown == json.loads((versioned.folder / METRICS).read_text())
    assert shown["best_pair"]["harmful_refusal_rate"] < shown["best_single"]["harmful_refusal_rate"] < 1
    plots = json.loads(versioned.run("dvc", "plots", "show", "--json"))
    assert not plots.get("errors")
    tables = [plot for (plot,) in plots["data"].values() if plot["type"] == "vega"]
    images = [name for name, (plot,) in plots["data"].items() if plot["type"] == "image"]
    assert images == [f"results/tiny/plots/{name}.png" for name in NAMES]
    assert all((versioned.folder / "results/tiny/plots" / file).stat().st_size for file in FILES)
    assert len(tables) == 2
    for plot in tables:
        content = plot["content"]
        axes = [content["encoding"][axis]["field"] for axis in ("x", "y")]
        assert all(row[field] != "" for row in content["data"]["values"] for field in axes)


def test_an_experiment_is_compared_and_taken_back(versioned, tmp_path):
    checkout = versioned.copy(tmp_path / "moved")
    before = checkout.items()
    checkout.run("dvc", "exp", "run", "--set-param", "config/config.yaml:loss.on_distribution=false", **GIT)
    assert checkout.computed(before) == {}
    parameters = json.loads(checkout.run("dvc", "params", "diff", "--json"))["config/config.yaml"]
    assert list(parameters) == ["loss.on_distribution"]
    changed = json.loads(checkout.run("dvc", "metrics", "diff", "--json"))[METRICS]
    assert changed["best_pair.ce_on_distribution_delta"]["new"] is None
    assert "best_pair.ce_text_delta" not in changed
    assert agree(checkout)

    git(checkout, "checkout", ".")
    checkout.run("dvc", "checkout")
    assert agree(checkout)
    assert checkout.contents("tiny") == versioned.contents("tiny")
