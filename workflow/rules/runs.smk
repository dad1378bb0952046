# What the rules of published.smk look up: the run, and which files come of it. No rules.
import re
from pathlib import Path

from snakemake.exceptions import WorkflowError

from refusal import plots
from refusal.published import runs as published
from refusal.checking import refuse
from refusal.errors import UserError
from refusal.provenance import code_version
from refusal.published.files import read_run

JUDGES = ["published", "substring"]


def measured():
    """The run that `--config` names, its filters, and what it measured of each combination."""
    faults = [
        f"published.smk: no {key}: add --config run=DIR name=NAME" for key in ("run", "name") if not config.get(key)
    ]
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", str(config.get("name") or "NAME")):
        faults.append(f"published.smk: name: {config['name']!r}: use letters, digits, and _ . - after the first")
    refuse(faults)
    run = read_run(Path(str(config["run"])))
    return (
        run,
        published.thresholds(run),
        published.by_combination(run, published.harmful_set(run, config.get("harmful"))),
    )


try:
    RUN, FILTERS, MEASURED = measured()
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


def harmful_flag(_wildcards):
    """Which harmful set, where the command line says it."""
    return ["--harmful", config["harmful"]] if config.get("harmful") else []


def filter_flags(_wildcards):
    """The thresholds as flags."""
    return [f"--{key.replace('_', '-')}={value}" for key, value in FILTERS.items()]


# A run answers each set under combinations of its own.
ANSWERED = [prompts for prompts in ("harmful", "harmless") if answering(prompts)]
LOSSES = results("combinations/{combination}/loss.json", [name for name, one in MEASURED.items() if one.losses])
SCORES = results("combinations/{combination}/scores.json")
VERDICTS = [*(verdicts(judge, prompts) for judge in JUDGES for prompts in ANSWERED), *imported_verdicts()]
# Without responses there is nothing to agree on.
AGREEMENT = [results("agreement.csv")] if ANSWERED else []
PLOTS = [f"plots/{file}" for file in plots.FILES]
FINDINGS = [*map(results, ("summary.csv", "claims.json", "report.html", *PLOTS)), *AGREEMENT]
LOGS = f"logs/published/{config['name']}"
