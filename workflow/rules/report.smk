# Pages to read and to hand on: one of each study, and one of several models.
rule report:
    """The page of a study, results/MODEL/report.html: the answer, plots, every combination and response."""
    input:
        page_files(),
        claims="results/{model}/claims.json",
        summary="results/{model}/summary.csv",
        ranking="results/{model}/ranking.csv",
        description="results/{model}/model.json",
        agreement=lambda wildcards: agreement_file(wildcards.model),
        captions="results/{model}/plots/captions.json",
        plots=[f"results/{{model}}/plots/{name}.svg" for name in plots.NAMES],
        judgements=verdict_files,
        completions=judged_responses,
    output:
        report("results/{model}/report.html", caption="../report/report.rst", category="Report", subcategory="{model}"),
    log:
        "logs/{model}/report.log",
    benchmark:
        "logs/{model}/report.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("report"),
        agreement=lambda _, input: ["--agreement", *input.agreement] if input.agreement else [],
        settings=page_settings,
    # times are no input: they differ from run to run, and a page is not made again for them
    shell:
        "python scripts/report.py --name {wildcards.model} --claims {input.claims} --summary {input.summary}"
        " --ranking {input.ranking} --model {input.description} {params.agreement:q} --plots {input.captions}"
        " --judgements {input.judgements:q} --settings {params.settings:q} --times logs/{wildcards.model} --output {output} --log {log}"


rule compare:
    """A page of several models side by side."""
    input:
        page_files(),
        [
            f"results/{name}/{file}"
            for name in config["models"]
            for file in ("claims.json", "summary.csv", "report.html")
        ],
    output:
        report("results/compare.html", caption="../report/compare.rst", category="Comparison"),
    log:
        "logs/compare.log",
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("compare"),
        models=config["models"],
    shell:
        "python scripts/compare.py --models {params.models:q} --output {output} --log {log}"
