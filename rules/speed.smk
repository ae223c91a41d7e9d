# What sparsity costs and gains on this machine. Nothing here runs unless the study has a `speed` block.
rule speed:
    # Named target: every speed benchmark of the study, its tables and figures. Only prefill prunes.
    input:
        SPEED_TABLES,
        SPEED_FIGURES,
        gone("tokens", "masks", "speed"),


rule speed_metric:
    # One method, in turns with the one it is compared with: a method that is added times itself only.
    input:
        model=speed_input,
        method=speed_method_files,
        modules=modules("speed_metric"),
    output:
        result_file=f"{SPEED}/metric/{{model}}/{{method}}.json",
    log:
        f"logs/speed_metric/{STUDY.study}/{{model}}/{{method}}.log",
    benchmark:
        f"logs/benchmarks/speed_metric/{STUDY.study}/{{model}}/{{method}}.tsv"
    wildcard_constraints:
        model=one_of(speed_subjects(STUDY, "metric")),
    conda:
        "../envs/dass.yaml"
    # All cores, whatever is computed with, so that no other job disturbs what is timed.
    threads: speed_all_cores()
    resources:
        mem_mb=growing(16000),
        runtime=growing(60),
        gpu=1,
    params:
        **speed_block("metric", "repeats"),
        stage="speed_metric",
        origins=origins(),
        subject="{model}/{method}",
        source=speed_source,
        dtype=speed_dtype,
        methods=speed_methods,
        patterns=speed_patterns,
        threads=speed_threads,
    message:
        "Timing the pruning metric of {wildcards.method} at the sizes of {wildcards.model}"
    script:
        "../workflow/scripts/stage.py"


rule speed_gpu:
    input:
        model=speed_input,
        modules=modules("speed_gpu"),
    output:
        result_file=f"{SPEED}/gpu/{{model}}.json",
    log:
        f"logs/speed_gpu/{STUDY.study}/{{model}}.log",
    benchmark:
        f"logs/benchmarks/speed_gpu/{STUDY.study}/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(speed_subjects(STUDY, "gpu")),
    conda:
        "../envs/dass.yaml"
    threads: speed_all_cores()
    resources:
        mem_mb=growing(16000),
        runtime=growing(30),
        gpu=1,
    params:
        **speed_block("gpu", "tokens", "repeats"),
        stage="speed_gpu",
        origins=origins(),
        subject="{model}",
        source=speed_source,
        dtype=speed_dtype,
    message:
        "Timing 2:4 on the GPU at the sizes of {wildcards.model}"
    script:
        "../workflow/scripts/stage.py"


rule speed_prefill:
    input:
        model=model_input,
        pruned_file=PRUNED,
        modules=modules("speed_prefill"),
    output:
        result_file=PREFILL,
    log:
        f"logs/speed_prefill/{STUDY.study}/{{model}}/{{calibration}}/{{method}}/{{pattern}}.log",
    benchmark:
        f"logs/benchmarks/speed_prefill/{STUDY.study}/{{model}}/{{calibration}}/{{method}}/{{pattern}}.tsv"
    conda:
        "../envs/dass.yaml"
    threads: speed_all_cores()
    resources:
        mem_mb=lambda wildcards, attempt: int(
            (4000 + 2200 * billions(wildcards.model)) * attempt
        ),
        runtime=growing(30),
        gpu=1,
    params:
        **speed_block("gpu", "tokens", "repeats"),
        stage="speed_prefill",
        origins=origins(),
        subject="{model}/{calibration}/{method}",
        folder=model_folder,
        pattern="{pattern}",
        dtype=of_model("dtype"),
    message:
        "Timing prefill of {wildcards.model}, {wildcards.method} {wildcards.pattern}"
    script:
        "../workflow/scripts/stage.py"


rule speed_cpu:
    input:
        model=speed_input,
        modules=modules("speed_cpu"),
    output:
        result_file=f"{SPEED}/cpu/{{model}}.json",
    log:
        f"logs/speed_cpu/{STUDY.study}/{{model}}.log",
    benchmark:
        f"logs/benchmarks/speed_cpu/{STUDY.study}/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(speed_subjects(STUDY, "cpu")),
    conda:
        "../envs/dass.yaml"
    threads: speed_all_cores()
    resources:
        mem_mb=speed_memory,
        runtime=growing(240),
        gpu=0,
    params:
        **speed_block(
            "cpu", "tokens", "patterns", "parts", "engines", "repeats", "threads"
        ),
        stage="speed_cpu",
        origins=origins(),
        subject="{model}",
        source=speed_source,
    message:
        "Timing sparse engines on the CPU at the sizes of {wildcards.model}"
    script:
        "../workflow/scripts/stage.py"


rule speed_tables:
    input:
        result_files=lambda wildcards: speed_results(wildcards.kind),
        modules=modules("speed_tables"),
    output:
        tex_file=in_report(
            f"{SPEED}/tables/{{kind}}.tex",
            "Speed",
            benchmark="{kind}",
            form="tex",
        ),
        markdown_file=in_report(
            f"{SPEED}/tables/{{kind}}.md",
            "Speed",
            benchmark="{kind}",
            form="md",
        ),
    log:
        f"logs/speed_tables/{STUDY.study}/{{kind}}.log",
    benchmark:
        f"logs/benchmarks/speed_tables/{STUDY.study}/{{kind}}.tsv"
    wildcard_constraints:
        kind=one_of(SPEED_KINDS),
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        stage="speed_tables",
        kind="{kind}",
        settings=lambda wildcards: speed_settings(wildcards.kind),
    message:
        "Speed table: {wildcards.kind}"
    script:
        "../workflow/scripts/stage.py"


rule speed_figures:
    input:
        result_files=lambda wildcards: speed_results(wildcards.kind),
        modules=modules("speed_figures"),
    output:
        figure_file=in_report(
            f"{SPEED}/figures/{{kind}}.pdf",
            "Speed",
            benchmark="{kind}",
            form="pdf",
        ),
    log:
        f"logs/speed_figures/{STUDY.study}/{{kind}}.log",
    benchmark:
        f"logs/benchmarks/speed_figures/{STUDY.study}/{{kind}}.tsv"
    wildcard_constraints:
        kind=one_of([kind for kind in SPEED_KINDS if kind != "metric"]),
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        stage="speed_figures",
        kind="{kind}",
        settings=lambda wildcards: speed_settings(wildcards.kind),
    message:
        "Speed figure: {wildcards.kind}"
    script:
        "../workflow/scripts/stage.py"


rule speed_accuracy:
    # Of the runs that are timed, also what they are worth: not part of the target `speed`.
    input:
        result_files=pruned(PREFILL, among=PREFILLED),
        perplexity=evaluated("perplexity", these=PREFILLED),
        zero_shot=evaluated("zero_shot", these=PREFILLED),
        modules=modules("speed_accuracy"),
    output:
        tex_file=in_report(
            f"{SPEED}/tables/{{part}}.tex", "Speed", benchmark="{part}", form="tex"
        ),
        markdown_file=in_report(
            f"{SPEED}/tables/{{part}}.md", "Speed", benchmark="{part}", form="md"
        ),
        figure_file=in_report(
            f"{SPEED}/figures/{{part}}.pdf", "Speed", benchmark="{part}", form="pdf"
        ),
    log:
        f"logs/speed_accuracy/{STUDY.study}/{{part}}.log",
    benchmark:
        f"logs/benchmarks/speed_accuracy/{STUDY.study}/{{part}}.tsv"
    wildcard_constraints:
        part=one_of(PREFILLED_PARTS),
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        stage="speed_accuracy",
        part="{part}",
        settings=speed_accuracy_shown(),
    message:
        "Accuracy against speed: {wildcards.part}"
    script:
        "../workflow/scripts/stage.py"
