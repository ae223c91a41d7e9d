# What a run is worth: perplexity, and five zero-shot tasks. `run` is dense or calibration/method/pattern.


rule evaluate:
    # Named target: perplexity and zero-shot results of all runs.
    input:
        [evaluated(kind) for kind in TABLE_KINDS],


rule perplexity:
    input:
        model=model_input,
        pruned=pruned_input,
        tokens=f"{RESULTS}/evaluation/{{model}}/{STUDY.perplexity.dataset}.safetensors",
        modules=modules("evaluation.perplexity", "pruning.pruned_file"),
    output:
        f"{EVALUATED}/perplexity.json",
    log:
        f"logs/perplexity/{STUDY.study}/{{model}}/{{run}}.log",
    benchmark:
        f"logs/benchmarks/perplexity/{STUDY.study}/{{model}}/{{run}}.tsv"
    conda:
        "../envs/dass.yaml"
    threads: threads_of
    resources:
        mem_mb=memory,
        runtime=minutes(per_billion=2),
        gpu=1,
    params:
        model=lambda wildcards: model_folder(wildcards.model),
        dtype=lambda wildcards: STUDY.models[wildcards.model].dtype,
        bos=lambda wildcards: STUDY.models[wildcards.model].bos,
        dataset=STUDY.perplexity.dataset,
        length=STUDY.perplexity.length,
        splits=STUDY.perplexity.splits,
    message:
        "Perplexity of {wildcards.model}, {wildcards.run}"
    script:
        "../workflow/scripts/perplexity.py"


checkpoint check_dense:
    # Between a model's dense perplexity and all pruning of it: see dense_gate.
    input:
        dense=f"{RESULTS}/runs/{{model}}/dense/perplexity.json",
        modules=modules("results.published"),
    output:
        f"{RESULTS}/runs/{{model}}/dense/checked.json",
    log:
        f"logs/check_dense/{STUDY.study}/{{model}}.log",
    benchmark:
        f"logs/benchmarks/check_dense/{STUDY.study}/{{model}}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(500),
        runtime=growing(5),
    params:
        targets=lambda wildcards: [
            row._asdict() for row in published_of(wildcards.model)
        ],
        tolerance=lambda wildcards: STUDY.published.tolerance,
    message:
        "Comparing {wildcards.model}'s dense perplexity with what is published"
    script:
        "../workflow/scripts/check_dense.py"


rule zero_shot:
    input:
        model=model_input,
        pruned=pruned_input,
        tasks=[
            dataset_input(dataset)
            for dataset in (STUDY.zero_shot.tasks.values() if STUDY.zero_shot else [])
        ],
        modules=modules("evaluation.zero_shot", "models.batches", "pruning.pruned_file"),
    output:
        f"{EVALUATED}/zero_shot.json",
    log:
        f"logs/zero_shot/{STUDY.study}/{{model}}/{{run}}.log",
    benchmark:
        f"logs/benchmarks/zero_shot/{STUDY.study}/{{model}}/{{run}}.tsv"
    conda:
        "../envs/dass.yaml"
    threads: threads_of
    resources:
        mem_mb=memory,
        runtime=minutes(per_billion=10),
        gpu=1,
    params:
        model=lambda wildcards: model_folder(wildcards.model),
        dtype=lambda wildcards: STUDY.models[wildcards.model].dtype,
        bos=lambda wildcards: STUDY.models[wildcards.model].bos,
        tasks={
            task: dataset_path(d)
            for task, d in (STUDY.zero_shot.tasks.items() if STUDY.zero_shot else [])
        },
        limit=lambda wildcards: STUDY.models[wildcards.model].zero_shot_limit,
    message:
        "Zero-shot tasks of {wildcards.model}, {wildcards.run}"
    script:
        "../workflow/scripts/zero_shot.py"
