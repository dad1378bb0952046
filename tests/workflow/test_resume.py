"""A failing job, a killed snakemake: what was finished stays, the rest resumes, the table is right."""

import pytest

pytestmark = pytest.mark.workflow

SUMMARY = "results/tiny/summary.csv"


def one_row_at_a_time(checkout):
    """So that combinations finish one by one, with other responses to be made."""
    checkout.change(
        "config/config.yaml",
        run={**checkout.setting("run"), "batch_rows": 20},
        prompts={**checkout.setting("prompts"), "counts": {"train": 96, "val": 24, "test": 20}},
        combinations=["singles"],
        controls={"sizes": [1], "draws": 1, "shuffled_draws": 1},
    )


def stored(checkout, keys):
    return {key: (checkout.folder / "cache/completions" / key).stat().st_mtime_ns for key in keys}


@pytest.fixture(scope="module")
def expected(finished, tmp_path_factory):
    """The results of the changed study without any interruption."""
    other = finished.copy(tmp_path_factory.mktemp("expected") / "moved")
    one_row_at_a_time(other)
    other.snakemake(SUMMARY)
    return other.contents("tiny")


def test_killed_in_completions_beside_another(checkout, expected):
    one_row_at_a_time(checkout)
    before = checkout.items()["completions"]
    process = checkout.start("--", SUMMARY)
    checkout.wait_for(lambda: len(checkout.items()["completions"] - before) >= 2)
    assert "Directory cannot be locked" in checkout.snakemake(SUMMARY, ok=False)
    checkout.kill_all(process)
    finished = checkout.items()["completions"] - before
    times = stored(checkout, finished)
    checkout.run("snakemake", "--unlock", SUMMARY)
    checkout.snakemake(SUMMARY)
    assert stored(checkout, finished) == times  # kept, not made again
    assert checkout.items()["completions"] > before | finished
    assert checkout.contents("tiny") == expected


def test_failing_job_withdraws_the_old_summary_and_the_next_run_mends_it(checkout):
    old = (checkout.folder / SUMMARY).read_bytes()
    path = checkout.folder / "data/organism/harmful_test.jsonl"
    good = path.read_text()
    path.write_text(good + "{broken\n")
    said = checkout.snakemake(SUMMARY, ok=False)
    line = len(good.splitlines()) + 1
    assert f"error: data/organism/harmful_test.jsonl: line {line} is not valid JSON" in said
    assert not (checkout.folder / SUMMARY).exists()
    path.write_text(good)
    checkout.snakemake(SUMMARY)
    assert (checkout.folder / SUMMARY).read_bytes() == old


def test_a_mix_is_mended(checkout):
    files = checkout.contents("tiny")
    loss = checkout.folder / "results/tiny/combinations/0/loss.json"
    loss.write_text((checkout.folder / "results/tiny/combinations/none/loss.json").read_text())
    said = checkout.snakemake(SUMMARY)
    assert "combinations/0/loss.json: not what its job wrote, or gone: it is made again if needed" in said
    assert checkout.contents("tiny") == files


def test_damaged_cache_item_is_computed_again(checkout):
    files = checkout.contents("tiny")
    items = checkout.items()["completions"]
    torn = checkout.folder / "cache/completions" / min(items) / "data"
    torn.write_text("torn")
    checkout.snakemake("--forcerun", "completions", "--", SUMMARY, "results/tiny1/summary.csv")
    assert torn.read_text() != "torn"
    assert checkout.items()["completions"] == items
    assert checkout.contents("tiny") == files
