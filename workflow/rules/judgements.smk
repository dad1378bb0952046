# Judges are checked first; each then judges all responses to a set of prompts.
rule judge:
    """Checks a judge before other work: its settings, its key, its model."""
    output:
        "results/{model}/judges/{judge}.json",
    log:
        "logs/{model}/judge_{judge}.log",
    benchmark:
        "logs/{model}/judge_{judge}.tsv"
    # before other work: a missing key is said before a GPU has worked for hours; again only for another model, since what
    # has nothing to ask needs no key
    # below that of `model`: two judges at once would outweigh it
    priority: 1
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        settings=judge_settings,
    shell:
        "python scripts/judge.py --judge config/judges/{wildcards.judge}.yaml --output {output:q} --log {log:q}"


# By rule or by a service: light, and where the network is, so not on a node of a cluster.
rule judgements:
    """A judge's verdicts on all responses to one set of test prompts."""
    input:
        checked="results/{model}/judges/{judge}.json",
        judge="config/judges/{judge}.yaml",
        weights=judge_weights,
        fetched=ancient(judge_fetched),
        completions=of_combinations("results/{model}/combinations/{combination}/completions/{prompts}.jsonl"),
    output:
        of_combinations("results/{model}/combinations/{combination}/judgements/{judge}/{prompts}.jsonl"),
    log:
        "logs/{model}/judgements_{judge}_{prompts}.log",
    benchmark:
        "logs/{model}/judgements_{judge}_{prompts}.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    resources:
        gpu=0,
        cache=CACHE,
    params:
        code=code_version("judgements"),
    shell:
        "python scripts/judgements.py --judge {input.judge:q} --completions {input.completions} --cache {resources.cache:q}"
        " --outputs {output:q} --gpus {resources.gpu} --threads {threads} --log {log:q}"


use rule judgements as judgements_by_model with:
    wildcard_constraints:
        judge="|".join(map(re.escape, JUDGE_MODELS)) or "(?!)",
    localrule: False
    threads: MODEL_THREADS
    resources:
        **asks(lambda wildcards: config["run"]["ask"]),
        cache=CACHE,


ruleorder: judgements_by_model > judgements
