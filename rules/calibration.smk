# Tokens, once for each model: windows to calibrate on, splits to evaluate on, the tasks' requests.
rule calibrate:
    # Named target: all calibration and evaluation tokens, and zero-shot requests.
    input:
        pruned(WINDOWS),
        expand(TEXTS, model=MODELS),
        expand(REQUESTS, model=MODELS) if TASKS else [],


rule calibration_tokens:
    input:
        model=model_input,
        documents=calibration_documents_input,
        modules=modules("calibration_tokens"),
    output:
        out=WINDOWS,
    log:
        f"logs/calibration_tokens/{STUDY.study}/{{model}}/{{calibration}}.log",
    benchmark:
        f"logs/benchmarks/calibration_tokens/{STUDY.study}/{{model}}/{{calibration}}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        stage="calibration_tokens",
        origins=origins(lambda wildcards: [of_calibration("dataset")(wildcards)]),
        folder=model_folder,
        bos=of_model("bos"),
        dataset=of_calibration("dataset"),
        documents=calibration_documents,
        sequences=of_calibration("sequences"),
        length=of_calibration("length"),
        seed=of_calibration("seed"),
    message:
        "Drawing calibration windows: {wildcards.model}, {wildcards.calibration}"
    script:
        "../workflow/scripts/stage.py"


rule evaluation_tokens:
    input:
        model=model_input,
        text=text_input,
        modules=modules("evaluation_tokens"),
    output:
        out=TEXT_TOKENS,
    log:
        f"logs/evaluation_tokens/{STUDY.study}/{{model}}/{{dataset}}.log",
    benchmark:
        f"logs/benchmarks/evaluation_tokens/{STUDY.study}/{{model}}/{{dataset}}.tsv"
    wildcard_constraints:
        dataset=one_of(STUDY.perplexity.datasets),
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        stage="evaluation_tokens",
        origins=origins(lambda wildcards: [wildcards.dataset]),
        folder=model_folder,
        bos=of_model("bos"),
        dataset="{dataset}",
        text=text_folder,
        rows=of_dataset("rows"),
        length=STUDY.perplexity.length,
        splits=splits_of_text,
        kind=of_dataset("kind"),
        documents=of_text("documents"),
        most=of_text("windows"),
    message:
        "Tokenising {wildcards.dataset} for {wildcards.model}"
    script:
        "../workflow/scripts/stage.py"


rule zero_shot_requests:
    input:
        model=model_input,
        tasks=[dataset_input(dataset) for dataset in TASKS.values()],
        modules=modules("zero_shot_requests"),
    output:
        out=REQUESTS,
    log:
        f"logs/zero_shot_requests/{STUDY.study}/{{model}}.log",
    benchmark:
        f"logs/benchmarks/zero_shot_requests/{STUDY.study}/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(STUDY.models if TASKS else []),
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(3000),
        runtime=growing(20),
    params:
        stage="zero_shot_requests",
        origins=origins(lambda wildcards: TASKS.values()),
        folder=model_folder,
        bos=of_model("bos"),
        tasks={task: dataset_path(dataset) for task, dataset in TASKS.items()},
        limit=of_model("zero_shot_limit"),
    message:
        "Building the zero-shot requests of {wildcards.model}"
    script:
        "../workflow/scripts/stage.py"
