# Prompts: train and val are filtered by the model's refusal score, test is not.
rule prompts:
    """Train and val prompts, drawn, then filtered by the model's refusal score."""
    input:
        model="results/{model}/model.json",
        fetched=ancient(model_fetched),
        harmful_train=prompt_file("harmful", "train"),
        harmful_val=prompt_file("harmful", "val"),
        harmless_train=prompt_file("harmless", "train"),
        harmless_val=prompt_file("harmless", "val"),
        kept_out=kept_out,
    output:
        expand("results/{{model}}/prompts/{kind}_{split}.jsonl", kind=["harmful", "harmless"], split=["train", "val"]),
        report="results/{model}/prompts/report.json",
    log:
        "logs/{model}/prompts.log",
    benchmark:
        "logs/{model}/prompts.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: MODEL_THREADS
    resources:
        **MODEL_RUN,
    params:
        code=code_version("prompts"),
        train=setting("prompts", "counts", "train"),
        val=setting("prompts", "counts", "val"),
        seed=setting("seed"),
        sampling=setting("prompts", "sampling"),
        filter=lambda w: "--filter" if study(w.model).settings["prompts"]["filter_by_refusal_score"] else "--no-filter",
    shell:
        "python scripts/prompts.py --model {input.model} --harmful-train {input.harmful_train:q}"
        " --harmful-val {input.harmful_val:q} --harmless-train {input.harmless_train:q}"
        " --harmless-val {input.harmless_val:q} --kept-out {input.kept_out:q} --train {params.train} --val {params.val}"
        " --seed {params.seed} --sampling {params.sampling} {params.filter}"
        f" --output-dir results/{{wildcards.model}}/prompts {RUN} --log {{log}}"


rule test_prompts:
    """A set of test prompts, drawn; the model has no say in which."""
    input:
        prompts=test_file,
        before=drawn_before,
    output:
        "results/{model}/prompts/{prompts}_test.jsonl",
    log:
        "logs/{model}/test_prompts_{prompts}.log",
    benchmark:
        "logs/{model}/test_prompts_{prompts}.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("test_prompts"),
        number=setting("prompts", "counts", "test"),
        seed=setting("seed"),
        sampling=setting("prompts", "sampling"),
        before=drawn_before_flags,
    shell:
        "python scripts/test_prompts.py --prompts {input.prompts:q} --count {params.number} --seed {params.seed}"
        " --sampling {params.sampling} {params.before:q} --output {output} --log {log}"
