# Which combinations of refusal directions mediate refusal? From prompts to results/MODEL/summary.csv.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/records.smk"


report: "workflow/report/workflow.rst"


rule all:
    """All that is found of the models in config.yaml: tables, answers, plots, pages."""
    input:
        findings(config["models"]),


include: "workflow/rules/fetch.smk"
include: "workflow/rules/model.smk"
include: "workflow/rules/prompts.smk"
include: "workflow/rules/directions.smk"
include: "workflow/rules/ranking.smk"
include: "workflow/rules/completions.smk"
include: "workflow/rules/judgements.smk"
include: "workflow/rules/loss.smk"
include: "workflow/rules/summary.smk"
include: "workflow/rules/metrics.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/agreement.smk"
include: "workflow/rules/plots.smk"
include: "workflow/rules/report.smk"


onsuccess:
    reconcile_records()


onerror:
    withdraw_orphans()
