# Tokens, drawn and cut once for each model: windows to calibrate on, splits to evaluate on.
rule calibrate:
    # Named target: all calibration and evaluation tokens.
    input:
        pruned(f"{RESULTS}/calibration/{{model}}/{{calibration}}.safetensors"),
        [
            f"{RESULTS}/evaluation/{model}/{STUDY.perplexity.dataset}.safetensors"
            for model in MODELS
        ],


rule calibration_tokens:
    input:
        model=model_input,
        documents=lambda wildcards: dataset_input(
            STUDY.calibrations[wildcards.calibration].dataset
        ),
        modules=modules("data.windows"),
    output:
        tokens=f"{RESULTS}/calibration/{{model}}/{{calibration}}.safetensors",
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
        model=lambda wildcards: model_folder(wildcards.model),
        bos=lambda wildcards: STUDY.models[wildcards.model].bos,
        documents=lambda wildcards: dataset_path(
            STUDY.calibrations[wildcards.calibration].dataset
        ),
        calibration=lambda wildcards: STUDY.calibrations[
            wildcards.calibration
        ].model_dump(),
    message:
        "Drawing calibration windows: {wildcards.model}, {wildcards.calibration}"
    script:
        "../workflow/scripts/calibration_tokens.py"


rule evaluation_tokens:
    input:
        model=model_input,
        text=lambda wildcards: dataset_input(wildcards.dataset),
        modules=modules("evaluation.perplexity", "data.documents"),
    output:
        tokens=f"{RESULTS}/evaluation/{{model}}/{{dataset}}.safetensors",
    log:
        f"logs/evaluation_tokens/{STUDY.study}/{{model}}/{{dataset}}.log",
    benchmark:
        f"logs/benchmarks/evaluation_tokens/{STUDY.study}/{{model}}/{{dataset}}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        model=lambda wildcards: model_folder(wildcards.model),
        bos=lambda wildcards: STUDY.models[wildcards.model].bos,
        text=lambda wildcards: dataset_path(wildcards.dataset),
        rows=lambda wildcards: STUDY.datasets[wildcards.dataset].rows,
        length=STUDY.perplexity.length,
        splits=STUDY.perplexity.splits,
    message:
        "Tokenising {wildcards.dataset} for {wildcards.model}"
    script:
        "../workflow/scripts/evaluation_tokens.py"
