# A run folder of the published scripts (andyrdt/refusal_direction) -> ranking, judgements, summary; no model is needed.
#
#     snakemake --snakefile workflow/published.smk --cores 1 --config run=DIR name=NAME
#
# run: the folder (pipeline/runs/MODEL); name: of its folder in results/published/; harmful: the harmful evaluation set,
# where the run holds several. The filters are the published ones, which are the defaults of scripts/ranking.py.
import re
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")


include: "rules/environment.smk"


from refusal import published
from refusal.errors import UserError
from refusal.provenance import code_version
from refusal.published_files import read_run

JUDGES = ["published", "substring"]


def measured():
    """The run that `--config` names, and what it measured of each combination: they decide which files there are."""
    if lacking := [key for key in ("run", "name") if not config.get(key)]:
        raise UserError(f"published.smk: no {' and no '.join(lacking)}: add --config run=DIR name=NAME")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", str(config["name"])):
        raise UserError(f"published.smk: name: {config['name']!r}: use letters, digits, and _ . - after the first")
    found = read_run(Path(str(config["run"])))
    return found, published.by_combination(found, published.harmful_set(found, config.get("harmful")))


try:
    RUN, MEASURED = measured()
except UserError as error:
    raise WorkflowError(str(error)) from None


def results(path, names=MEASURED):
    """A path below results/published/NAME; with the wildcard `combination`, that of each combination."""
    found = f"results/published/{config['name']}/{path}"
    return expand(found, combination=names, allow_missing=True) if "{combination}" in path else found


def answering(prompts):
    """The combinations whose responses to a prompt set the run holds."""
    return [name for name, one in MEASURED.items() if prompts in one.responses]


def completions(prompts):
    """Their responses."""
    return results(f"combinations/{{combination}}/completions/{prompts}.jsonl", answering(prompts))


def verdicts(judge, prompts):
    """A judge's verdicts on them."""
    return results(f"combinations/{{combination}}/judgements/{judge}/{prompts}.jsonl", answering(prompts))


def imported_verdicts():
    """The verdicts that the run itself holds."""
    for name, one in MEASURED.items():
        for prompts, methodologies in one.verdicts.items():
            for judge in map(published.judge_of, methodologies):
                yield results(f"combinations/{name}/judgements/{judge}/{prompts}.jsonl")


ANSWERED = [prompts for prompts in ("harmful", "harmless") if answering(prompts)]
LOSSES = results("combinations/{combination}/loss.json", [name for name, one in MEASURED.items() if one.losses])
SCORES = results("combinations/{combination}/scores.json")
LOGS = f"logs/published/{config['name']}"


rule all:
    input:
        results("summary.csv"),


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
        run=str(RUN.folder),
        harmful=["--harmful", config["harmful"]] if config.get("harmful") else [],
        output=results(""),
    shell:
        "python scripts/import_published.py {params.run:q} {params.harmful:q} --output-dir {params.output} --log {log}"


rule ranking:
    input:
        model=results("model.json"),
        scores=results("candidate_scores.csv"),
        directions=results("directions.safetensors"),
    output:
        table=results("ranking.csv"),
        directions=results("top_directions.safetensors"),
    log:
        f"{LOGS}/ranking.log",
    localrule: True
    conda:
        "envs/refusal.yaml"
    params:
        code=code_version("ranking"),
    shell:
        "python scripts/ranking.py --model {input.model} --scores {input.scores} --directions {input.directions}"
        " --output {output.table} --top-directions {output.directions} --log {log}"


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


# A run answers each set under combinations of its own, so a rule a set.
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
        judgements=[*(verdicts(judge, prompts) for judge in JUDGES for prompts in ANSWERED), *imported_verdicts()],
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


onerror:
    withdraw_orphans()
