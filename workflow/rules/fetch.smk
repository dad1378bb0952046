# What comes from elsewhere, brought here where snakemake runs: jobs need no network.
rule fetch:
    """A published prompt set, from its repository or a mirror, checked by hash."""
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


# Into HF_HOME. Not made again for other code: its files are known by their commit.
rule weights:
    """The files of a model of the hub, into HF_HOME."""
    output:
        "resources/hub/{repository}@{revision}.json",
    log:
        "logs/hub/{repository}@{revision}.log",
    localrule: True
    conda:
        "../envs/refusal.yaml"
    shell:
        "python scripts/weights.py --id {wildcards.repository:q} --revision {wildcards.revision:q} --output {output:q}"
        " --log {log:q}"
