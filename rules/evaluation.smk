# What a run is worth: perplexity, and zero-shot tasks. `run` is dense or calibration/method/pattern.


rule evaluate:
    # Named target: perplexity and zero-shot results of all runs.
    input:
        [evaluated(kind) for kind in EVALUATIONS],
        gone("tokens", "masks"),


rule perplexity:
    input:
        model=model_input,
        pruned=pruned_input,
        tokens=TEXT,
        other_tokens=OTHER_TEXTS,
        modules=modules("perplexity"),
    output:
        result_file=f"{EVALUATED}/perplexity.json",
    log:
        f"logs/perplexity/{STUDY.study}/{{model}}/{{run}}.log",
    benchmark:
        f"logs/benchmarks/perplexity/{STUDY.study}/{{model}}/{{run}}.tsv"
    conda:
        "../envs/dass.yaml"
    threads: threads_of
    resources:
        mem_mb=evaluation_memory,
        runtime=minutes(per_billion=2),
        gpu=1,
    params:
        stage="perplexity",
        origins=origins(),
        run="{model}/{run}",
        folder=model_folder,
        dtype=of_model("dtype"),
        bos=of_model("bos"),
        dataset=STUDY.perplexity.dataset,
        splits=STUDY.perplexity.splits,
        others={name: text.split for name, text in STUDY.perplexity.others.items()},
    message:
        "Perplexity of {wildcards.model}, {wildcards.run}"
    script:
        "../workflow/scripts/stage.py"


checkpoint check_dense:
    input:
        dense=f"{RESULTS}/runs/{{model}}/dense/perplexity.json",
        modules=modules("check_dense"),
    output:
        out=f"{RESULTS}/runs/{{model}}/dense/checked.json",
    log:
        f"logs/check_dense/{STUDY.study}/{{model}}.log",
    benchmark:
        f"logs/benchmarks/check_dense/{STUDY.study}/{{model}}.tsv"
    # Between a model's dense perplexity and all pruning of it: see dense_gate.
    localrule: True
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(500),
        runtime=growing(5),
    params:
        stage="check_dense",
        targets=published_of,
        tolerance=STUDY.published.tolerance if STUDY.published else None,
    message:
        "Comparing {wildcards.model}'s dense perplexity with what is published"
    script:
        "../workflow/scripts/stage.py"


rule zero_shot:
    input:
        model=model_input,
        pruned=pruned_input,
        requests=REQUESTS,
        modules=modules("zero_shot"),
    output:
        result_file=f"{EVALUATED}/zero_shot.json",
    log:
        f"logs/zero_shot/{STUDY.study}/{{model}}/{{run}}.log",
    benchmark:
        f"logs/benchmarks/zero_shot/{STUDY.study}/{{model}}/{{run}}.tsv"
    conda:
        "../envs/dass.yaml"
    threads: threads_of
    resources:
        mem_mb=evaluation_memory,
        runtime=minutes(per_billion=10),
        gpu=1,
    params:
        stage="zero_shot",
        origins=origins(),
        run="{model}/{run}",
        folder=model_folder,
        dtype=of_model("dtype"),
    message:
        "Zero-shot tasks of {wildcards.model}, {wildcards.run}"
    script:
        "../workflow/scripts/stage.py"
