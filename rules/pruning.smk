# Masks: one small file a run; and plain checkpoints of them for who wants one.
rule prune:
    # Named target: the pruned files of all runs.
    input:
        pruned(f"{RUN}/pruned.safetensors"),


rule exports:
    # Named target: a plain Hugging Face checkpoint of every selected run.
    input:
        pruned(f"{RESULTS}/exports/{{model}}/{{calibration}}/{{method}}/{{pattern}}"),


rule prune_run:
    input:
        model=model_input,
        tokens=f"{RESULTS}/calibration/{{model}}/{{calibration}}.safetensors",
        gate=dense_gate,
        modules=lambda wildcards: modules("pruning.prune", classes=(method_class(wildcards),)),
    output:
        pruned=f"{RUN}/pruned.safetensors",
        result=f"{RUN}/pruning.json",
    log:
        f"logs/prune/{STUDY.study}/{{model}}/{{calibration}}/{{method}}/{{pattern}}.log",
    benchmark:
        f"logs/benchmarks/prune/{STUDY.study}/{{model}}/{{calibration}}/{{method}}/{{pattern}}.tsv"
    conda:
        "../envs/dass.yaml"
    threads: threads_of
    resources:
        mem_mb=memory,
        runtime=minutes(per_billion=3),
        gpu=1,
    params:
        model=lambda wildcards: model_folder(wildcards.model),
        dtype=lambda wildcards: STUDY.models[wildcards.model].dtype,
        bos=lambda wildcards: STUDY.models[wildcards.model].bos,
        function=lambda wildcards: STUDY.methods[wildcards.method].function,
        arguments=lambda wildcards: STUDY.methods[wildcards.method].arguments_dict(),
    message:
        "Pruning {wildcards.model} by {wildcards.method} to {wildcards.pattern}"
    script:
        "../workflow/scripts/prune.py"


rule export:
    input:
        model=model_input,
        pruned=f"{RUN}/pruned.safetensors",
        modules=modules("pruning.pruned_file"),
    output:
        directory(f"{RESULTS}/exports/{{model}}/{{calibration}}/{{method}}/{{pattern}}"),
    log:
        f"logs/export/{STUDY.study}/{{model}}/{{calibration}}/{{method}}/{{pattern}}.log",
    benchmark:
        f"logs/benchmarks/export/{STUDY.study}/{{model}}/{{calibration}}/{{method}}/{{pattern}}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(20000),
        runtime=growing(120),
    params:
        model=lambda wildcards: model_folder(wildcards.model),
        dtype=lambda wildcards: STUDY.models[wildcards.model].dtype,
    message:
        "Exporting {wildcards.model}, {wildcards.method} {wildcards.pattern}, as a plain checkpoint"
    script:
        "../workflow/scripts/export.py"
