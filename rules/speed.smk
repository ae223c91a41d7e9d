# What sparsity buys on this machine. Nothing here runs unless the study has a `speed` block.
localrules:
    speed,
    deepsparse_environment,


rule speed:
    # Named target: every speed benchmark of the study, its tables and figures.
    input:
        SPEED_TABLES,
        SPEED_FIGURES,


rule deepsparse_environment:
    input:
        requirements=workflow.source_path("../envs/deepsparse.txt"),
    output:
        "resources/environments/deepsparse/python.json",
    log:
        "logs/deepsparse_environment/deepsparse.log",
    benchmark:
        "logs/benchmarks/deepsparse_environment/deepsparse.tsv"
    conda:
        "../envs/deepsparse.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        python=sys.executable,
    message:
        "Installing DeepSparse into an environment of its own: its licence allows evaluation only"
    shell:
        "{params.python} -m dass.speed.environment --requirements {input.requirements} "
        "--import deepsparse --out {output} 2> >(tee {log} >&2)"


rule speed_metric:
    input:
        model=speed_input,
        modules=modules(
            "speed.metric",
            classes=tuple(find_class(m.function) for m in STUDY.methods.values()),
        ),
    output:
        f"{SPEED}/metric/{{model}}.json",
    log:
        f"logs/speed_metric/{STUDY.study}/{{model}}.log",
    benchmark:
        f"logs/benchmarks/speed_metric/{STUDY.study}/{{model}}.tsv"
    conda:
        "../envs/dass.yaml"
    threads: speed_all_cores()
    resources:
        mem_mb=growing(16000),
        runtime=growing(60),
        gpu=1,
    params:
        folder=speed_folder,
        sizes=speed_sizes,
        dtype=speed_dtype,
        methods={
            name: (method.function, method.arguments)
            for name, method in STUDY.methods.items()
        },
        patterns=list(dict.fromkeys(run.pattern for run in RUNS)),
        repeats=lambda wildcards: STUDY.speed.metric.repeats,
        # As many as the pruning itself has; the cores are this job's alone all the same.
        threads=lambda wildcards: min(speed_threads(wildcards), speed_all_cores()),
    message:
        "Timing the pruning metrics at the sizes of {wildcards.model}"
    script:
        "../workflow/scripts/speed_metric.py"


rule speed_gpu:
    input:
        model=speed_input,
        modules=modules("speed.gpu"),
    output:
        f"{SPEED}/gpu/{{model}}.json",
    log:
        f"logs/speed_gpu/{STUDY.study}/{{model}}.log",
    benchmark:
        f"logs/benchmarks/speed_gpu/{STUDY.study}/{{model}}.tsv"
    conda:
        "../envs/dass.yaml"
    threads: speed_all_cores()
    resources:
        mem_mb=growing(16000),
        runtime=growing(30),
        gpu=1,
    params:
        folder=speed_folder,
        sizes=speed_sizes,
        dtype=speed_dtype,
        tokens=lambda wildcards: STUDY.speed.gpu.tokens,
        repeats=lambda wildcards: STUDY.speed.gpu.repeats,
    message:
        "Timing 2:4 on the GPU at the sizes of {wildcards.model}"
    script:
        "../workflow/scripts/speed_gpu.py"


rule speed_prefill:
    input:
        model=model_input,
        pruned=f"{RUN}/pruned.safetensors",
        modules=modules("speed.gpu", "pruning.pruned_file"),
    output:
        f"{SPEED}/prefill/{{model}}/{{calibration}}/{{method}}/{{pattern}}.json",
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
        folder=speed_folder,
        dtype=speed_dtype,
        tokens=lambda wildcards: STUDY.speed.gpu.tokens,
        repeats=lambda wildcards: STUDY.speed.gpu.repeats,
    message:
        "Timing prefill of {wildcards.model}, {wildcards.method} {wildcards.pattern}"
    script:
        "../workflow/scripts/speed_prefill.py"


rule speed_cpu:
    input:
        model=speed_input,
        deepsparse=lambda wildcards: (
            ["resources/environments/deepsparse/python.json"]
            if "deepsparse" in STUDY.speed.cpu.engines
            else []
        ),
        modules=modules("speed.cpu"),
    output:
        f"{SPEED}/cpu/{{model}}.json",
    log:
        f"logs/speed_cpu/{STUDY.study}/{{model}}.log",
    benchmark:
        f"logs/benchmarks/speed_cpu/{STUDY.study}/{{model}}.tsv"
    conda:
        "../envs/dass.yaml"
    # All cores, whatever the engines use, so that no other job disturbs what is timed.
    threads: speed_all_cores()
    resources:
        mem_mb=speed_memory,
        runtime=growing(240),
    params:
        folder=speed_folder,
        sizes=speed_sizes,
        settings=lambda wildcards: STUDY.speed.cpu.model_dump(
            include={"tokens", "patterns", "parts", "repeats"}
        ),
        options=lambda wildcards: STUDY.speed.cpu.engines,
        threads=lambda wildcards: STUDY.speed.cpu.threads,
    message:
        "Timing sparse engines on the CPU at the sizes of {wildcards.model}"
    script:
        "../workflow/scripts/speed_cpu.py"


rule speed_tables:
    input:
        results=lambda wildcards: speed_results(wildcards.kind),
        pruning=lambda wildcards: speed_pruning() if wildcards.kind == "metric" else [],
        modules=modules("report.speed_tables"),
    output:
        f"{SPEED}/tables/{{kind}}.tex",
        f"{SPEED}/tables/{{kind}}.md",
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
        settings=lambda wildcards: speed_settings(wildcards.kind),
    message:
        "Speed table: {wildcards.kind}"
    script:
        "../workflow/scripts/speed_tables.py"


rule speed_figures:
    input:
        results=lambda wildcards: speed_results(wildcards.kind),
        modules=modules("report.speed_figures"),
    output:
        f"{SPEED}/figures/{{kind}}.pdf",
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
        settings=lambda wildcards: speed_settings(wildcards.kind),
    message:
        "Speed figure: {wildcards.kind}"
    script:
        "../workflow/scripts/speed_figures.py"
