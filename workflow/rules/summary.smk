rule summary:
    """The table, a row per combination, and the same in words."""
    input:
        bases=of_combinations("results/{model}/combinations/{combination}/basis.safetensors"),
        scores=of_combinations("results/{model}/combinations/{combination}/scores.json"),
        losses=of_combinations("results/{model}/combinations/{combination}/loss.json"),
        judgements=verdict_files,
    output:
        table=report(
            "results/{model}/summary.csv", caption="../report/summary.rst", category="Summary", subcategory="{model}"
        ),
        words=report(
            "results/{model}/summary.md", caption="../report/words.rst", category="Summary", subcategory="{model}"
        ),
    log:
        "logs/{model}/summary.log",
    benchmark:
        "logs/{model}/summary.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("summary"),
    shell:
        "python scripts/summary.py --name {wildcards.model} --bases {input.bases} --scores {input.scores}"
        " --losses {input.losses} --judgements {input.judgements} --output {output.table} --words {output.words}"
        " --log {log}"
