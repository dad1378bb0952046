# Published prompt sets, by hash.
rule fetch:
    input:
        "data/published.csv",
    output:
        "data/external/{file}",
    log:
        "logs/fetch/{file}.log",
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("fetch"),
        source=as_flags(config["datasets"]),
    shell:
        "python scripts/fetch.py --name {wildcards.file:q} --registry {input} {params.source:q}"
        " --output {output:q} --log {log:q}"
