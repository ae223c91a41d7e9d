# Masks: one small file per run; and plain checkpoints of them for who wants one.
rule prune:
    # Named target: the pruned files of all runs.
    input:
        pruned(PRUNED),
        gone("tokens"),


rule exports:
    # Named target: a plain Hugging Face checkpoint of every selected run.
    input:
        pruned(f"{RESULTS}/exports/{{model}}/{{calibration}}/{{method}}/{{pattern}}"),
        gone("tokens", "masks"),


rule prune_run:
    input:
        model=model_input,
        tokens=WINDOWS,
        gate=dense_gate,
        ratios=ratios_of_run,
        method=files_of_method,
        given=files_given,
        modules=modules("prune_run"),
    output:
        pruned_file=PRUNED,
        result_file=f"{RUN}/pruning.json",
    log:
        f"logs/prune_run/{STUDY.study}/{{model}}/{{calibration}}/{{method}}/{{pattern}}.log",
    benchmark:
        f"logs/benchmarks/prune_run/{STUDY.study}/{{model}}/{{calibration}}/{{method}}/{{pattern}}.tsv"
    conda:
        "../envs/dass.yaml"
    threads: threads_of
    resources:
        mem_mb=pruning_memory,
        runtime=minutes(per_billion=3),
        gpu=1,
    params:
        stage="prune_run",
        origins=origins(),
        run="{model}/{calibration}/{method}/{pattern}",
        folder=model_folder,
        dtype=of_model("dtype"),
        bos=of_model("bos"),
        function=of_method("function"),
        arguments=arguments_of_run,
        propagation=of_calibration("propagation"),
        targets=of_method("targets"),
        permute=of_method("permute"),
    message:
        "Pruning {wildcards.model} by {wildcards.method} to {wildcards.pattern}"
    script:
        "../workflow/scripts/stage.py"


rule export:
    input:
        model=exported_input,
        pruned=PRUNED,
        modules=modules("export"),
    output:
        out=directory(
            f"{RESULTS}/exports/{{model}}/{{calibration}}/{{method}}/{{pattern}}"
        ),
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
        stage="export",
        origins=origins(),
        folder=model_folder,
        dtype=of_model("dtype"),
    message:
        "Exporting {wildcards.model}, {wildcards.method} {wildcards.pattern}, as a plain checkpoint"
    script:
        "../workflow/scripts/stage.py"
