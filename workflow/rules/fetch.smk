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
        url=config["datasets"]["url"],
        mirror=config["datasets"]["mirror"] or "",
    shell:
        "python scripts/fetch.py --name {wildcards.file:q} --registry {input} --url {params.url:q}"
        " --mirror {params.mirror:q} --output {output:q} --log {log:q}"
