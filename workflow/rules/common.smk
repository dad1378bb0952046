# What the rules look up: studies, their settings, code versions. No rules.
import json
import re
from functools import lru_cache
from pathlib import Path

from snakemake.exceptions import WorkflowError


include: "environment.smk"


from refusal import combinations, plots
from refusal.checking import read_yaml
from refusal.errors import UserError
from refusal.judges.kinds import KINDS, judge_module
from refusal.prompts import IN_TURN
from refusal.provenance import code_version
from refusal.study import combination_ids, names, read_study

try:
    COMBINATIONS = combination_ids(config)
except UserError as error:
    raise WorkflowError(str(error)) from None


def asks(asked):
    """What jobs that load a model ask of a cluster, by a lookup of the first attempt's; a killed job asks for more."""
    return {
        "gpu": lambda wildcards: asked(wildcards)["gpus"],
        "mem_mb": lambda wildcards, attempt: int(1024 * asked(wildcards)["memory_gib"] * attempt),
        "runtime": lambda wildcards, attempt: asked(wildcards)["minutes"] * attempt,
    }


def batch_mib(wildcards, attempt):
    """The bound of batches, 0 for what is free; without a GPU that is the node's, so half of what the job asked for."""
    ask = study(wildcards.model).ask
    share = 0 if ask["gpus"] else ask["memory_gib"] * attempt / 2
    return int(1024 * (config["run"]["memory_gib"] or share))


def share_of_threads(most=8):
    """Threads of a job that loads a model: with several GPUs in one machine, what leaves each of them as many."""
    bounds = workflow.global_resources
    # on a cluster neither is bounded
    cores, gpus = (bounds[name].value if name in bounds else None for name in ("_cores", "gpu"))
    return max(1, min(most, cores // gpus)) if cores and gpus else most


# Of the stages that run a model. None of it changes a result, so it goes by resources, which are no reason to run again.
CACHE = config["run"]["cache"]
MODEL_THREADS = share_of_threads()
MODEL_RUN = {
    **asks(lambda wildcards: study(wildcards.model).ask),
    "batch_rows": config["run"]["batch_rows"],
    "batch_mib": batch_mib,
    "device_map": config["run"]["device_map"],
    "cache": CACHE,
}
RUN = (
    "--cache {resources.cache:q} --batch-rows {resources.batch_rows} --memory-mib {resources.batch_mib}"
    " --device-map {resources.device_map:q} --gpus {resources.gpu} --threads {threads}"
)

# Ranks that some combination names, so that many are needed.
RANKS = 1 + max(rank for name in COMBINATIONS for rank in combinations.parse(name).ranks)


wildcard_constraints:
    model="[^/]+",
    combination=combinations.PATTERN,
    prompts="harmful|harmless|borderline",
    split="train|val|test",
    judge="[^/]+",
    corpus="[a-z][a-z0-9_]*",
    part="[0-9]+",
    parts="[0-9]+",
    repository="[^@]+",
    revision="[^@]+",


@lru_cache
def study(name):
    """The checked study of a model."""
    try:
        return read_study(config, name)
    except UserError as error:
        raise WorkflowError(str(error)) from None


def setting(*keys):
    """A lookup of the model's study: setting("ranking", "mode")."""

    def look_up(wildcards):
        value = study(wildcards.model).settings
        for key in keys:
            value = value[key]
        return value

    return look_up


def of_combinations(path):
    """A path of each combination; the model stays a wildcard."""
    return expand(path, combination=COMBINATIONS, allow_missing=True)


def parts_of(stage, name=None):
    """A lookup of the markers of a stage's parts; none where one job does it all, or for a part itself."""

    def look_up(wildcards):
        count = config["run"]["jobs"][stage]
        if count == 1 or "part" in wildcards.keys():
            return []
        path = f"results/{{model}}/parts/{name or stage}.{{part}}-of-{count}.json"
        return expand(path, part=range(count), **wildcards)

    return look_up


def written_to(flag):
    """The flags of where results go; a part leaves them in the cache, and its output says that it is done."""

    def look_up(wildcards, output):
        if "part" in wildcards.keys():
            return ["--part", f"{wildcards.part}/{wildcards.parts}", output]
        return [flag, *output]

    return look_up


def as_flags(values):
    """{"max_kl": 0.1, "layers": [3, 5], "hub": None} as --max-kl 0.1 --layers 3 5."""
    flags = []
    for key, value in values.items():
        if value is not None:
            flags += [f"--{key.replace('_', '-')}", *(value if isinstance(value, tuple) else [value])]
    return flags


def model_folder(wildcards):
    """Where the model's files stand; None for a model of the hub."""
    model = study(wildcards.model).model
    return {
        "hub": None,
        "local": model.get("path"),
        "package": f"resources/models/{wildcards.model}",
        "organism": f"resources/organisms/{wildcards.model}",
        "taught": f"resources/taught/{wildcards.model}",
    }[model["source"]]


def model_weights(wildcards):
    """The files whose change means another model."""
    model, folder = study(wildcards.model).model, model_folder(wildcards)
    weights = {
        "local": sorted(map(str, Path(folder or "").glob("model*.safetensors"))),
        "organism": [f"{folder}/model.safetensors"],
    }.get(model["source"], [])
    template = [model["chat_template"]] if model.get("chat_template") else []
    return [*([f"{folder}/config.json"] if folder else []), *weights, *template]


def fetched(place, revision):
    """The note that the files of a model of the hub are in HF_HOME: jobs that load it may have no network."""
    return f"resources/hub/{place}@{revision or 'main'}.json"


def model_fetched(wildcards):
    """The note, for a model of the hub."""
    model = study(wildcards.model).model
    return fetched(model["id"], model["revision"]) if model["source"] == "hub" else []


def base_fetched(wildcards):
    """The note, for a model that is taught, if it is one of the hub."""
    base = study(study(wildcards.model).model["base"]).model
    return fetched(base["id"], base["revision"]) if base["source"] == "hub" else []


def judge_fetched(wildcards):
    """The note, for a judge that is a model of the hub, run here."""
    judge = study(wildcards.model).judges[wildcards.judge]
    here = wildcards.judge not in JUDGE_MODELS or Path(judge["model"]).is_dir()
    return [] if here else fetched(judge["model"], judge["revision"])


def description_flags(wildcards):
    """The flags of scripts/model.py that say which model it is and how it is asked."""
    model, folder = study(wildcards.model).model, model_folder(wildcards)
    place = {"folder": folder} if folder else {"id": model["id"], "revision": model["revision"]}
    asked = {key: model.get(key) for key in ("dtype", "system_prompt", "chat_template")}
    # mappings as JSON; the study hands them over read-only, which JSON does not know
    asked |= {
        key: json.dumps(model[key], default=dict)
        for key in ("template_options", "think_block", "modules")
        if model.get(key)
    }
    thinking = {True: ["--thinking"], False: ["--no-thinking"], None: []}[model.get("thinking")]
    return as_flags(place | asked) + thinking


def teaching(*keys):
    """A lookup of how a model is taught: teaching("prompts", "harmful")."""

    def look_up(wildcards):
        value = study(wildcards.model).model["teaching"]
        for key in keys:
            value = value[key]
        return value or []

    return look_up


def base_description(wildcards):
    """The description of the model that is taught."""
    return f"results/{study(wildcards.model).model['base']}/description.json"


def lesson_flags(wildcards):
    """The flags of scripts/lessons.py that say which prompts are drawn, and how many."""
    course, kinds = study(wildcards.model).model["teaching"], ("harmful", "harmless", "borderline")
    files = {kind: course["prompts"][kind] for kind in kinds}
    counts = {f"{kind}_count": course["counts"][kind] for kind in kinds}
    return as_flags(files | counts | {key: course[key] for key in ("max_overlap", "reply_tokens", "seed")})


def course_flags(wildcards):
    """The flags of scripts/teach.py."""
    course = study(wildcards.model).model["teaching"]
    return as_flags({key: course[key] for key in ("steps", "batch_rows", "learning_rate", "rank", "seed")})


def proposed_tokens(wildcards):
    """The file that refusal tokens are proposed in, where the model's file does not name them."""
    proposed = study(wildcards.model).model["refusal_tokens"] == "auto"
    return f"results/{wildcards.model}/refusal_tokens.json" if proposed else []


def model_flags(wildcards):
    """The same with the refusal tokens, or where they are proposed."""
    proposed = proposed_tokens(wildcards)
    tokens = {"proposed": proposed} if proposed else {"refusal_tokens": study(wildcards.model).model["refusal_tokens"]}
    return description_flags(wildcards) + as_flags(tokens)


def prompt_file(kind, split):
    """A lookup of the file that a kind's split is sampled from."""
    return lambda wildcards: study(wildcards.model).prompt_files[f"{kind}_{split}"]


def test_files(wildcards):
    """The files of all test sets."""
    return [file for name, file in study(wildcards.model).prompt_files.items() if name.endswith("_test")]


def kept_out(wildcards):
    """The files whose prompts are kept out of train and val: those of all test sets, and what the model was taught."""
    taught = study(wildcards.model).model["source"] == "taught"
    return [*test_files(wildcards), *([f"results/{wildcards.model}/lessons.jsonl"] if taught else [])]


def test_file(wildcards):
    """The file that a kind's test set is sampled from."""
    files = study(wildcards.model).prompt_files
    if f"{wildcards.prompts}_test" not in files:
        raise WorkflowError(f"config/config.yaml: prompts.{wildcards.prompts} has no test file")
    return files[f"{wildcards.prompts}_test"]


def drawn_before(wildcards):
    """The files that published harmless test prompts are drawn after, from the same random stream."""
    chosen = study(wildcards.model)
    if chosen.settings["prompts"]["sampling"] == "apart" or wildcards.prompts != "harmless":
        return []
    return [chosen.prompt_files[name] for name in IN_TURN]


def drawn_before_flags(wildcards, input):
    """The same as flags, with how many are drawn from each."""
    counts = study(wildcards.model).settings["prompts"]["counts"]
    flags = [f"{file}:{counts[name.split('_')[1]]}" for name, file in zip(IN_TURN, input.before)]
    return ["--drawn-before", *flags] if flags else []


def scoring_flags(wildcards):
    """How refusal scores and KL are computed."""
    return as_flags({f"epsilon_{key}": value for key, value in study(wildcards.model).settings["epsilon"].items()})


def sweep_flags(wildcards):
    """What the sweep may leave out; in mode `full` thresholds are none of its business."""
    mode = study(wildcards.model).settings["ranking"]["sweep"]
    return ["--sweep", mode, *(filter_flags(wildcards) if mode == "screened" else [])]


def sampling_flags(wildcards):
    """Temperature, top_p and seed; nothing where decoding is greedy, which no seed changes."""
    settings = study(wildcards.model).settings
    sampling = settings["completions"]["sampling"]
    return as_flags({**sampling, "seed": settings["seed"]}) if sampling else []


def filter_flags(wildcards):
    """The thresholds as flags."""
    ranking = study(wildcards.model).settings["ranking"]
    return as_flags({key: ranking[key] for key in ("max_kl", "min_induce", "max_layer_share")})


def conditional_scores_file(wildcards):
    """The second sweep, in the mode that needs it."""
    conditional = study(wildcards.model).settings["ranking"]["mode"] == "conditional"
    return f"results/{wildcards.model}/conditional_scores.csv" if conditional else []


def corpus_settings(wildcards):
    """Settings of one corpus of the model's study."""
    return study(wildcards.model).settings["loss"]["corpora"][wildcards.corpus]


def corpora(form):
    """A lookup of the model's corpora in one format."""

    def look_up(wildcards):
        named = study(wildcards.model).settings["loss"]["corpora"]
        return [f"results/{wildcards.model}/corpora/{name}.jsonl" for name, c in named.items() if c["format"] == form]

    return look_up


def own_responses(wildcards):
    """The baseline's responses to harmless prompts, where the study asks for the loss on them."""
    path = f"results/{wildcards.model}/combinations/none/completions/harmless.jsonl"
    return path if study(wildcards.model).settings["loss"]["on_distribution"] else []


def own_responses_flag(wildcards):
    """The same as a flag."""
    path = own_responses(wildcards)
    return ["--completions", path] if path else []


def corpus_flags(wildcards):
    """The settings as flags."""
    return [
        part for key, value in corpus_settings(wildcards).items() if value is not None for part in (f"--{key}", value)
    ]


def judge_models():
    """Names of the judges that are local models; what is wrong in a file is said by the study that names it."""
    folder = ROOT / "config/judges"
    for name in names(folder):
        try:
            settings = read_yaml(folder / f"{name}.yaml")
        except UserError:
            continue
        if settings.get("kind") in KINDS and judge_module(settings).NEEDS == "gpu":
            yield name


JUDGE_MODELS = list(judge_models())


def judge_weights(wildcards):
    """The files of a judge that is a model in a folder here: whose change means another judge."""
    model = study(wildcards.model).judges[wildcards.judge].get("model")
    return sorted(str(path) for path in Path(model).glob("*") if path.is_file()) if model else []


def judge_settings(wildcards):
    """What of a judge's settings the check depends on."""
    settings = study(wildcards.model).judges[wildcards.judge]
    return json.dumps({key: settings.get(key) for key in ("kind", "model", "revision", "base_url")})


def first_judge(wildcards):
    """The judge of a study whose verdicts are put into words."""
    return next(iter(study(wildcards.model).judges))


def oracle_flag(wildcards):
    """Which judge knows the true labels, if one does."""
    judges = study(wildcards.model).judges
    return next((["--oracle", name] for name, judge in judges.items() if judge["kind"] == "oracle"), [])


def page_settings(wildcards):
    """What a page says of the settings: all that decides results."""
    chosen = study(wildcards.model)
    study_of_it = {key: value for key, value in chosen.settings.items() if key not in ("models", "run")}
    model = {key: value for key, value in chosen.model.items() if key != "ask"}
    # the study hands mappings over read-only, which JSON does not know
    return json.dumps({"study": study_of_it, "model": model, "judges": chosen.judges}, default=dict)


def judged_responses(wildcards):
    """The responses under the verdicts: where judges differ, they are shown."""
    return expand(
        "results/{model}/combinations/{combination}/completions/{prompts}.jsonl",
        model=wildcards.model,
        combination=COMBINATIONS,
        prompts=study(wildcards.model).test_sets,
    )


def agreement_file(name):
    """How far the judges of a model's study agree, where it has two."""
    return [f"results/{name}/agreement.csv"] if len(study(name).judges) > 1 else []


def findings(models):
    """What is found of each model: table, figures, answers, plots, agreement of judges, its page; a page of several."""
    kept = ["summary.csv", "metrics.json", "claims.json", "report.html", *(f"plots/{file}" for file in plots.FILES)]
    found = [path for name in models for path in (*(f"results/{name}/{file}" for file in kept), *agreement_file(name))]
    # a list: of a generator, Snakemake loses the first
    return found + ["results/compare.html"] * (len(models) > 1)


def verdict_files(wildcards):
    """Verdicts of every judge of the study on every test set, all combinations."""
    chosen = study(wildcards.model)
    return expand(
        "results/{model}/combinations/{combination}/judgements/{judge}/{prompts}.jsonl",
        model=wildcards.model,
        combination=COMBINATIONS,
        judge=chosen.judges,
        prompts=chosen.test_sets,
    )
