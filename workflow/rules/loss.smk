# What an ablation costs: CE loss on corpora and on the model's own responses, scores and KL on val prompts.
rule corpus:
    """The first rows of a corpus for CE loss."""
    input:
        # not read: a model that cannot be had is said before anything is streamed
        model=ancient("results/{model}/model.json"),
        corpus=lambda wildcards: corpus_settings(wildcards).get("path", []),
    output:
        "results/{model}/corpora/{corpus}.jsonl",
    log:
        "logs/{model}/corpus_{corpus}.log",
    benchmark:
        "logs/{model}/corpus_{corpus}.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("corpus"),
        flags=corpus_flags,
    shell:
        "python scripts/corpus.py {params.flags:q} --output {output} --log {log}"


rule loss:
    """CE loss of every combination on corpora and on the model's own responses: what an ablation costs."""
    input:
        model="results/{model}/model.json",
        fetched=ancient(model_fetched),
        bases=of_combinations("results/{model}/combinations/{combination}/basis.safetensors"),
        text=corpora("text"),
        chat=corpora("chat"),
        completions=own_responses,
        parts=parts_of("loss"),
    output:
        of_combinations("results/{model}/combinations/{combination}/loss.json"),
    log:
        "logs/{model}/loss.log",
    benchmark:
        "logs/{model}/loss.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: MODEL_THREADS
    resources:
        **MODEL_RUN,
    params:
        code=code_version("loss"),
        max_tokens=setting("loss", "max_tokens"),
        completions=own_responses_flag,
        to=written_to("--outputs"),
    shell:
        "python scripts/loss.py --model {input.model} --bases {input.bases} --text {input.text} --chat {input.chat}"
        f" {{params.completions}} --max-tokens {{params.max_tokens}} {RUN} {{params.to}} --log {{log}}"


use rule loss as loss_part with:
    output:
        temp("results/{model}/parts/loss.{part}-of-{parts}.json"),
    log:
        "logs/{model}/loss.{part}-of-{parts}.log",
    benchmark:
        "logs/{model}/loss.{part}-of-{parts}.tsv"


rule combination_scores:
    """Refusal scores and KL of every combination on val prompts."""
    input:
        model="results/{model}/model.json",
        fetched=ancient(model_fetched),
        bases=of_combinations("results/{model}/combinations/{combination}/basis.safetensors"),
        harmful="results/{model}/prompts/harmful_val.jsonl",
        harmless="results/{model}/prompts/harmless_val.jsonl",
        parts=parts_of("combination_scores"),
    output:
        of_combinations("results/{model}/combinations/{combination}/scores.json"),
    log:
        "logs/{model}/combination_scores.log",
    benchmark:
        "logs/{model}/combination_scores.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: MODEL_THREADS
    resources:
        **MODEL_RUN,
    params:
        code=code_version("combination_scores"),
        scoring=scoring_flags,
        to=written_to("--outputs"),
    shell:
        "python scripts/combination_scores.py --model {input.model} --harmful {input.harmful} --harmless {input.harmless}"
        f" --bases {{input.bases}} {{params.scoring}} {RUN} {{params.to}} --log {{log}}"


use rule combination_scores as combination_scores_part with:
    output:
        temp("results/{model}/parts/combination_scores.{part}-of-{parts}.json"),
    log:
        "logs/{model}/combination_scores.{part}-of-{parts}.log",
    benchmark:
        "logs/{model}/combination_scores.{part}-of-{parts}.tsv"
