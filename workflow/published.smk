# A run folder of the published scripts (andyrdt/refusal_direction) -> ranking, judgements, summary, claims, agreement,
# plots, page. No model is needed.
#
#     snakemake --snakefile workflow/published.smk --cores 1 --config run=DIR name=NAME
#
# run: the folder (pipeline/runs/MODEL); name: of its folder in results/published/; harmful: the harmful evaluation set,
# where the run holds several. The filters are the published ones; for a run made with others, the tightest that keep
# what it kept.
from snakemake.utils import min_version

min_version("9.27")


include: "rules/environment.smk"
include: "rules/runs.smk"


rule all:
    input:
        FINDINGS,


rule import_published:
    input:
        list(RUN.files.values()),
    output:
        [results(f"prompts/{prompts}_test.jsonl") for prompts in ANSWERED],
        [completions(prompts) for prompts in ANSWERED],
        list(imported_verdicts()),
        LOSSES,
        SCORES,
        model=results("model.json"),
        directions=results("directions.safetensors"),
        scores=results("candidate_scores.csv"),
    log:
        f"{LOGS}/import_published.log",
    localrule: True
    conda:
        "envs/refusal.yaml"
    params:
        code=code_version("import_published"),
        run=lambda _: RUN.folder,
        harmful=harmful_flag,
        folder=lambda _, output: Path(output.model).parent,
    shell:
        "python scripts/import_published.py {params.run:q} {params.harmful:q} --output-dir {params.folder} --log {log}"


rule ranking:
    input:
        model=results("model.json"),
        scores=results("candidate_scores.csv"),
        directions=results("directions.safetensors"),
    output:
        table=results("ranking.csv"),
        directions=results("top_directions.safetensors"),
        cosines=results("cosines.csv"),
    log:
        f"{LOGS}/ranking.log",
    localrule: True
    conda:
        "envs/refusal.yaml"
    params:
        code=code_version("ranking"),
        filters=filter_flags,
    shell:
        "python scripts/ranking.py --model {input.model} --scores {input.scores} --directions {input.directions}"
        " {params.filters} --output {output.table} --top-directions {output.directions} --cosines {output.cosines} --log {log}"


# The published scripts ablate one direction, at every layer's input too: `sequential` names their way of it.
rule bases:
    input:
        results("top_directions.safetensors"),
    output:
        results("combinations/{combination}/basis.safetensors"),
    log:
        f"{LOGS}/bases.log",
    localrule: True
    conda:
        "envs/refusal.yaml"
    params:
        code=code_version("bases"),
        combinations=list(MEASURED),
    shell:
        "python scripts/bases.py --top-directions {input} --combinations {params.combinations} --outputs {output}"
        " --ablation sequential --log {log}"


# A rule a set, since each has combinations of its own.
for prompts in ANSWERED:

    rule:
        name:
            f"judgements_{prompts}"
        input:
            judge="config/judges/{judge}.yaml",
            completions=completions(prompts),
        output:
            verdicts("{judge}", prompts),
        log:
            f"{LOGS}/judgements_{{judge}}_{prompts}.log",
        localrule: True
        conda:
            "envs/refusal.yaml"
        params:
            code=code_version("judgements"),
        shell:
            "python scripts/judgements.py --judge {input.judge:q} --completions {input.completions}"
            " --outputs {output:q} --log {log:q}"


rule summary:
    input:
        bases=results("combinations/{combination}/basis.safetensors"),
        scores=SCORES,
        losses=LOSSES,
        judgements=VERDICTS,
    output:
        table=results("summary.csv"),
        words=results("summary.md"),
    log:
        f"{LOGS}/summary.log",
    localrule: True
    conda:
        "envs/refusal.yaml"
    params:
        code=code_version("summary"),
        name=config["name"],
        narrator=JUDGES[0],
    shell:
        "python scripts/summary.py --partial --name {params.name} --narrator {params.narrator} --bases {input.bases}"
        " --scores {input.scores} --losses {input.losses} --judgements {input.judgements} --output {output.table}"
        " --words {output.words} --log {log}"


rule claims:
    input:
        bases=results("combinations/{combination}/basis.safetensors"),
        scores=SCORES,
        losses=LOSSES,
        judgements=verdicts(JUDGES[0], "harmful"),
    output:
        claims=results("claims.json"),
        words=results("claims.md"),
    log:
        f"{LOGS}/claims.log",
    localrule: True
    conda:
        "envs/refusal.yaml"
    params:
        code=code_version("claims"),
        name=config["name"],
        judge=JUDGES[0],
    shell:
        "python scripts/claims.py --partial --name {params.name} --judge {params.judge} --bases {input.bases}"
        " --scores {input.scores} --losses {input.losses} --judgements {input.judgements} --output {output.claims}"
        " --words {output.words} --log {log}"


rule agreement:
    input:
        judgements=VERDICTS,
        completions=[completions(prompts) for prompts in ANSWERED],
    output:
        table=results("agreement.csv"),
        words=results("agreement.md"),
    log:
        f"{LOGS}/agreement.log",
    localrule: True
    conda:
        "envs/refusal.yaml"
    params:
        code=code_version("agreement"),
        name=config["name"],
    shell:
        "python scripts/agreement.py --name {params.name} --judgements {input.judgements:q} --output {output.table}"
        " --words {output.words} --log {log}"


rule plots:
    input:
        summary=results("summary.csv"),
        ranking=results("ranking.csv"),
        cosines=results("cosines.csv"),
        agreement=AGREEMENT,
    output:
        [results(file) for file in PLOTS],
    log:
        f"{LOGS}/plots.log",
    localrule: True
    conda:
        "envs/refusal.yaml"
    params:
        code=code_version("plots"),
        name=config["name"],
        judge=JUDGES[0],
        filters=filter_flags,
        agreement=lambda _, input: ["--agreement", *input.agreement] if input.agreement else [],
        folder=lambda _, output: Path(output[0]).parent,
    shell:
        "python scripts/plots.py --name {params.name} --summary {input.summary} --ranking {input.ranking}"
        " --cosines {input.cosines} {params.agreement} --judge {params.judge} {params.filters} --output-dir {params.folder} --log {log}"


rule report:
    input:
        page_files(),
        claims=results("claims.json"),
        summary=results("summary.csv"),
        ranking=results("ranking.csv"),
        description=results("model.json"),
        agreement=AGREEMENT,
        captions=results("plots/captions.json"),
        plots=[results(f"plots/{name}.svg") for name in plots.NAMES],
        judgements=VERDICTS,
        completions=[completions(prompts) for prompts in ANSWERED],
    output:
        results("report.html"),
    log:
        f"{LOGS}/report.log",
    localrule: True
    conda:
        "envs/refusal.yaml"
    params:
        code=code_version("report"),
        name=config["name"],
        agreement=lambda _, input: ["--agreement", *input.agreement] if input.agreement else [],
    shell:
        "python scripts/report.py --name {params.name} --claims {input.claims} --summary {input.summary}"
        " --ranking {input.ranking} --model {input.description} {params.agreement:q} --plots {input.captions}"
        f" --judgements {{input.judgements:q}} --times {LOGS} --output {{output}} --log {{log}}"


onerror:
    withdraw_orphans()
