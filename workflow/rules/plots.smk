rule plots:
    """Figures of the tables, drawn from them alone, with captions."""
    input:
        summary="results/{model}/summary.csv",
        ranking="results/{model}/ranking.csv",
        cosines="results/{model}/cosines.csv",
        agreement=lambda wildcards: agreement_file(wildcards.model),
    output:
        [
            report(
                f"results/{{model}}/plots/{name}.svg",
                caption=f"../report/plots/{name}.rst",
                category="Plots",
                subcategory="{model}",
            )
            for name in plots.NAMES
        ],
        [f"results/{{model}}/plots/{file}" for file in plots.FILES if not file.endswith(".svg")],
    log:
        "logs/{model}/plots.log",
    benchmark:
        "logs/{model}/plots.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("plots"),
        judge=first_judge,
        filters=filter_flags,
        agreement=lambda _, input: ["--agreement", *input.agreement] if input.agreement else [],
        folder=lambda _, output: Path(output[0]).parent,
    shell:
        "python scripts/plots.py --name {wildcards.model} --summary {input.summary} --ranking {input.ranking}"
        " --cosines {input.cosines} {params.agreement} --judge {params.judge} {params.filters} --output-dir {params.folder} --log {log}"
