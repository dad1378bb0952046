# Filters and ranks, then what each combination of ranks does.
rule conditional_scores:
    """The second sweep of ranking mode `conditional`: bypass while the candidates taken before are ablated too."""
    input:
        model="results/{model}/model.json",
        fetched=ancient(model_fetched),
        scores="results/{model}/candidate_scores.csv",
        directions="results/{model}/directions.safetensors",
        harmful="results/{model}/prompts/harmful_val.jsonl",
    output:
        "results/{model}/conditional_scores.csv",
    log:
        "logs/{model}/conditional_scores.log",
    benchmark:
        "logs/{model}/conditional_scores.tsv"
    conda:
        "../envs/refusal.yaml"
    threads: MODEL_THREADS
    resources:
        **MODEL_RUN,
    params:
        code=code_version("conditional_scores"),
        filters=filter_flags,
        scoring=scoring_flags,
        ablation=setting("ablation"),
        steps=RANKS,
    shell:
        "python scripts/conditional_scores.py --model {input.model} --scores {input.scores}"
        " --directions {input.directions} --harmful {input.harmful} --steps {params.steps} {params.filters}"
        " {params.scoring} --ablation {params.ablation}"
        f" --output {{output}} {RUN} --log {{log}}"


rule ranking:
    """Filters the candidates and gives those left their ranks."""
    input:
        model="results/{model}/model.json",
        scores="results/{model}/candidate_scores.csv",
        directions="results/{model}/directions.safetensors",
        conditional=conditional_scores_file,
    output:
        table=report(
            "results/{model}/ranking.csv", caption="../report/ranking.rst", category="Ranking", subcategory="{model}"
        ),
        directions="results/{model}/top_directions.safetensors",
        cosines="results/{model}/cosines.csv",
    log:
        "logs/{model}/ranking.log",
    benchmark:
        "logs/{model}/ranking.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("ranking"),
        mode=setting("ranking", "mode"),
        max_cosine=setting("ranking", "max_cosine"),
        filters=filter_flags,
        conditional=lambda _, input: ["--conditional", input.conditional] if input.conditional else [],
    shell:
        "python scripts/ranking.py --model {input.model} --scores {input.scores} --directions {input.directions}"
        " {params.conditional} --mode {params.mode} --max-cosine {params.max_cosine} {params.filters}"
        " --output {output.table} --top-directions {output.directions} --cosines {output.cosines} --log {log}"


rule bases:
    """What each combination of ranks ablates or adds."""
    input:
        top="results/{model}/top_directions.safetensors",
        directions="results/{model}/directions.safetensors",
    output:
        of_combinations("results/{model}/combinations/{combination}/basis.safetensors"),
    log:
        "logs/{model}/bases.log",
    benchmark:
        "logs/{model}/bases.tsv"
    localrule: True
    conda:
        "../envs/refusal.yaml"
    params:
        code=code_version("bases"),
        combinations=COMBINATIONS,
        ablation=setting("ablation"),
        seed=setting("seed"),
    shell:
        "python scripts/bases.py --top-directions {input.top} --directions {input.directions}"
        " --combinations {params.combinations} --outputs {output} --ablation {params.ablation} --seed {params.seed} --log {log}"
