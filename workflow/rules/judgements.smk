# Verdicts of one judge on all responses to one set of prompts.
rule judgements:
    input:
        judge="config/judges/{judge}.yaml",
        completions=of_combinations("results/{model}/combinations/{combination}/completions/{prompts}.jsonl"),
    output:
        of_combinations("results/{model}/combinations/{combination}/judgements/{judge}/{prompts}.jsonl"),
    log:
        "logs/{model}/judgements_{judge}_{prompts}.log",
    benchmark:
        "logs/{model}/judgements_{judge}_{prompts}.tsv"
    conda:
        "../envs/refusal.yaml"
    resources:
        cache=CACHE,
    params:
        code=code_version("judgements"),
    shell:
        "python scripts/judgements.py --judge {input.judge:q} --completions {input.completions} --cache {resources.cache:q}"
        " --outputs {output:q} --log {log:q}"
