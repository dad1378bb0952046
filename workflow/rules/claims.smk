rule claims:
    """The study's questions, answered in words and figures by its first judge."""
    input:
        bases=of_combinations("results/{model}/combinations/{combination}/basis.safetensors"),
        scores=of_combinations("results/{model}/combinations/{combination}/scores.json"),
        losses=of_combinations("results/{model}/combinations/{combination}/loss.json"),
        judgements=lambda wildcards: expand(
            "results/{model}/combinations/{combination}/judgements/{judge}/harmful.jsonl",
            model=wildcards.model,
            combination=COMBINATIONS,
            judge=first_judge(wildcards),
        ),
    output:
        claims=report(
            "results/{model}/claims.json", caption="../report/claims.rst", category="Claims", subcategory="{model}"
        ),
        words=report(
            "results/{model}/claims.md", caption="../report/claims.rst", category="Claims", subcategory="{model}"
        ),
    log:
        "logs/{model}/claims.log",
    benchmark:
        "logs/{model}/claims.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("claims"),
        judge=first_judge,
    shell:
        "python scripts/claims.py --name {wildcards.model} --judge {params.judge} --bases {input.bases}"
        " --scores {input.scores} --losses {input.losses} --judgements {input.judgements} --output {output.claims}"
        " --words {output.words} --log {log}"
