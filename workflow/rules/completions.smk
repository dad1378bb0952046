# Responses of every combination to one set of test prompts: one job, one model load.
rule completions:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/prompts/{prompts}_test.jsonl",
        bases=of_combinations("results/{model}/combinations/{combination}/basis.safetensors"),
    output:
        of_combinations("results/{model}/combinations/{combination}/completions/{prompts}.jsonl"),
    log:
        "logs/{model}/completions_{prompts}.log",
    benchmark:
        "logs/{model}/completions_{prompts}.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: 8
    resources:
        **MODEL_RUN,
    params:
        code=code_version("completions"),
        max_new_tokens=setting("completions", "max_new_tokens"),
    shell:
        "python scripts/completions.py --model {input.model} --prompts {input.prompts} --bases {input.bases}"
        " --max-new-tokens {params.max_new_tokens} --outputs {output}"
        f" {RUN} --log {{log}}"
