rule metrics:
    """The headline figures, for DVC to compare."""
    input:
        "results/{model}/summary.csv",
    output:
        "results/{model}/metrics.json",
    log:
        "logs/{model}/metrics.log",
    benchmark:
        "logs/{model}/metrics.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("metrics"),
        judge=first_judge,
    shell:
        "python scripts/metrics.py --summary {input} --judge {params.judge} --output {output} --log {log}"
