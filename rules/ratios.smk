# How far each block is pruned, for methods that name `ratios`. Nothing here runs for the others.
rule outlier_shares:
    input:
        model=model_input,
        norms=f"{RESULTS}/activations/{{model}}/{{calibration}}.safetensors",
        modules=modules("outlier_shares"),
    output:
        result_file=f"{RATIOS}/outlier_shares.json",
    log:
        f"logs/outlier_shares/{STUDY.study}/{{model}}/{{calibration}}/{{ratios}}.log",
    benchmark:
        f"logs/benchmarks/outlier_shares/{STUDY.study}/{{model}}/{{calibration}}/{{ratios}}.tsv"
    wildcard_constraints:
        ratios=one_of(
            name for name, block in STUDY.ratios.items() if block.kind == "owl"
        ),
    conda:
        "../envs/dass.yaml"
    threads: threads_of
    resources:
        mem_mb=weights_memory,
        runtime=minutes(per_billion=3),
        gpu=1,
    params:
        stage="outlier_shares",
        origins=origins(),
        model="{model}",
        calibration="{calibration}",
        folder=model_folder,
        dtype=of_model("dtype"),
        outlier=of_ratios("outliers_above"),
    message:
        "Outliers among the weights of {wildcards.model}, {wildcards.ratios}"
    script:
        "../workflow/scripts/stage.py"


rule tail_exponents:
    input:
        model=model_input,
        modules=modules("tail_exponents"),
    output:
        result_file=f"{RESULTS}/ratios/{{model}}/tail_exponents.json",
    log:
        f"logs/tail_exponents/{STUDY.study}/{{model}}.log",
    benchmark:
        f"logs/benchmarks/tail_exponents/{STUDY.study}/{{model}}.tsv"
    conda:
        "../envs/dass.yaml"
    threads: threads_of
    resources:
        mem_mb=weights_memory,
        runtime=minutes(per_billion=20),
        gpu=1,
    params:
        stage="tail_exponents",
        origins=origins(),
        model="{model}",
        folder=model_folder,
        dtype=of_model("dtype"),
    message:
        "Tails of the spectra of {wildcards.model}"
    script:
        "../workflow/scripts/stage.py"


rule ratios:
    input:
        model=model_input,
        scores=scores_of_blocks,
        modules=modules("ratios"),
    output:
        result_file=f"{RATIOS}/{{pattern}}.json",
    log:
        f"logs/ratios/{STUDY.study}/{{model}}/{{calibration}}/{{ratios}}/{{pattern}}.log",
    benchmark:
        f"logs/benchmarks/ratios/{STUDY.study}/{{model}}/{{calibration}}/{{ratios}}/{{pattern}}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=weights_memory,
        runtime=growing(10),
    params:
        stage="ratios",
        origins=origins(),
        model="{model}",
        calibration="{calibration}",
        name="{ratios}",
        pattern="{pattern}",
        kind=of_ratios("kind"),
        arguments=of_ratios("arguments"),
        folder=model_folder,
        dtype=of_model("dtype"),
    message:
        "Ratios of {wildcards.model}'s blocks, {wildcards.ratios}, for {wildcards.pattern}"
    script:
        "../workflow/scripts/stage.py"
