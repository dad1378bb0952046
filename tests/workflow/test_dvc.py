"""DVC runs the study through snakemake, and both agree on what is up to date."""

import pytest

pytestmark = pytest.mark.workflow


def test_repro_runs_once_and_agrees_with_snakemake(checkout):
    before = checkout.items()
    checkout.run("dvc", "config", "core.no_scm", "true")
    checkout.run("dvc", "repro")
    assert checkout.computed(before) == {}
    assert "Data and pipelines are up to date" in checkout.run("dvc", "repro")
    assert "Nothing to be done" in checkout.snakemake("results/tiny/summary.csv")
