# Candidate directions, and how well each bypasses and induces refusal.
rule activations:
    """Mean residual stream of harmful and harmless train prompts, by position and layer."""
    input:
        model="results/{model}/model.json",
        fetched=ancient(model_fetched),
        harmful="results/{model}/prompts/harmful_train.jsonl",
        harmless="results/{model}/prompts/harmless_train.jsonl",
    output:
        "results/{model}/activations.safetensors",
    log:
        "logs/{model}/activations.log",
    benchmark:
        "logs/{model}/activations.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: MODEL_THREADS
    resources:
        **MODEL_RUN,
    params:
        code=code_version("activations"),
        draws=config["controls"]["shuffled_draws"] if config["controls"]["sizes"] else 0,
        seed=setting("seed"),
    shell:
        "python scripts/activations.py --model {input.model} --harmful {input.harmful} --harmless {input.harmless}"
        " --shuffled-draws {params.draws} --seed {params.seed}"
        f" --output {{output}} {RUN} --log {{log}}"


rule directions:
    """Candidate directions: differences of these means."""
    input:
        "results/{model}/activations.safetensors",
    output:
        "results/{model}/directions.safetensors",
    log:
        "logs/{model}/directions.log",
    benchmark:
        "logs/{model}/directions.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("directions"),
    shell:
        "python scripts/directions.py --activations {input} --output {output} --log {log}"


rule scores:
    """The sweep: how well each candidate bypasses and induces refusal on val prompts, and its KL."""
    input:
        model="results/{model}/model.json",
        fetched=ancient(model_fetched),
        directions="results/{model}/directions.safetensors",
        harmful="results/{model}/prompts/harmful_val.jsonl",
        harmless="results/{model}/prompts/harmless_val.jsonl",
        parts=parts_of("scores"),
    output:
        "results/{model}/candidate_scores.csv",
    log:
        "logs/{model}/scores.log",
    benchmark:
        "logs/{model}/scores.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: MODEL_THREADS
    resources:
        **MODEL_RUN,
    params:
        code=code_version("scores"),
        sweep=sweep_flags,
        scoring=scoring_flags,
        ablation=setting("ablation"),
        to=written_to("--output"),
    shell:
        "python scripts/scores.py --model {input.model} --directions {input.directions} --harmful {input.harmful}"
        " --harmless {input.harmless} {params.sweep} {params.scoring} --ablation {params.ablation}"
        f" {RUN} {{params.to}} --log {{log}}"


use rule scores as scores_part with:
    output:
        temp("results/{model}/parts/scores.{part}-of-{parts}.json"),
    log:
        "logs/{model}/scores.{part}-of-{parts}.log",
    benchmark:
        "logs/{model}/scores.{part}-of-{parts}.tsv"
