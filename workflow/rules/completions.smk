# One job, one model load, unless it is shared out.
rule completions:
    """Responses of every combination to one set of test prompts."""
    input:
        model="results/{model}/model.json",
        fetched=ancient(model_fetched),
        prompts="results/{model}/prompts/{prompts}_test.jsonl",
        bases=of_combinations("results/{model}/combinations/{combination}/basis.safetensors"),
        parts=parts_of("completions", "completions_{prompts}"),
    output:
        of_combinations("results/{model}/combinations/{combination}/completions/{prompts}.jsonl"),
    log:
        "logs/{model}/completions_{prompts}.log",
    benchmark:
        "logs/{model}/completions_{prompts}.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: MODEL_THREADS
    resources:
        **MODEL_RUN,
    params:
        code=code_version("completions"),
        max_new_tokens=setting("completions", "max_new_tokens"),
        sampling=sampling_flags,
        to=written_to("--outputs"),
    shell:
        "python scripts/completions.py --model {input.model} --prompts {input.prompts} --bases {input.bases}"
        f" --max-new-tokens {{params.max_new_tokens}} {{params.sampling}} {RUN} {{params.to}} --log {{log}}"


use rule completions as completions_part with:
    output:
        temp("results/{model}/parts/completions_{prompts}.{part}-of-{parts}.json"),
    log:
        "logs/{model}/completions_{prompts}.{part}-of-{parts}.log",
    benchmark:
        "logs/{model}/completions_{prompts}.{part}-of-{parts}.tsv"
