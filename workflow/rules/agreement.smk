rule agreement:
    """How far the judges of a study agree with each other, and with the oracle where it is one of them."""
    input:
        judgements=verdict_files,
        completions=judged_responses,
    output:
        table=report(
            "results/{model}/agreement.csv",
            caption="../report/agreement.rst",
            category="Agreement",
            subcategory="{model}",
        ),
        words=report(
            "results/{model}/agreement.md",
            caption="../report/agreement.rst",
            category="Agreement",
            subcategory="{model}",
        ),
    log:
        "logs/{model}/agreement.log",
    benchmark:
        "logs/{model}/agreement.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("agreement"),
        oracle=oracle_flag,
        seed=setting("seed"),
    shell:
        "python scripts/agreement.py --name {wildcards.model} --judgements {input.judgements:q} {params.oracle:q}"
        " --seed {params.seed} --output {output.table} --words {output.words} --log {log}"
