# Verdicts of one judge on all responses to one set of prompts.
rule judge:
    input:
        "config/judges/{judge}.yaml",
    output:
        "results/{model}/judges/{judge}.json",
    log:
        "logs/{model}/judge_{judge}.log",
    benchmark:
        "logs/{model}/judge_{judge}.tsv"
    # before other work: a missing key is said before a GPU has worked for hours
    priority: 100
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("judge"),
    shell:
        "python scripts/judge.py --judge {input:q} --output {output:q} --log {log:q}"


rule judgements:
    input:
        checked="results/{model}/judges/{judge}.json",
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
    threads: judge_threads
    resources:
        cache=CACHE,
        gpu=judge_gpus,
    params:
        code=code_version("judgements"),
    shell:
        "python scripts/judgements.py --judge {input.judge:q} --completions {input.completions} --cache {resources.cache:q}"
        " --outputs {output:q} --threads {threads} --log {log:q}"
