# Result files -> summary.csv -> tables, figures, report.
rule tables:
    # Named target: the summary and every table.
    input:
        f"{RESULTS}/summary.csv",
        TABLES,


rule summary_of_model:
    input:
        pruning=lambda wildcards: pruned(f"{RUN}/pruning.json", wildcards.model),
        perplexity=lambda wildcards: evaluated("perplexity", wildcards.model),
        zero_shot=lambda wildcards: (
            evaluated("zero_shot", wildcards.model) if STUDY.zero_shot else []
        ),
        modules=modules("report.table"),
    output:
        f"{RESULTS}/summary/{{model}}.csv",
    log:
        f"logs/summary/{STUDY.study}/{{model}}.log",
    benchmark:
        f"logs/benchmarks/summary/{STUDY.study}/{{model}}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    message:
        "Summing up {wildcards.model}"
    script:
        "../workflow/scripts/summary_of_model.py"


rule summary:
    input:
        models=[f"{RESULTS}/summary/{model}.csv" for model in MODELS],
        modules=modules("report.table"),
    output:
        f"{RESULTS}/summary.csv",
    log:
        f"logs/summary/{STUDY.study}.log",
    benchmark:
        f"logs/benchmarks/summary/{STUDY.study}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    message:
        "Summing up all models"
    script:
        "../workflow/scripts/summary.py"


rule tables_of_experiment:
    input:
        summary=f"{RESULTS}/summary.csv",
        published=published_file(),
        modules=modules("report.table", "report.published_table"),
    output:
        outputs_of(
            "tables",
            "tex",
            "md",
            kinds=TABLE_KINDS + (["published"] if STUDY.published else []),
        ),
    log:
        f"logs/tables/{STUDY.study}/{{experiment}}.log",
    benchmark:
        f"logs/benchmarks/tables/{STUDY.study}/{{experiment}}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        settings=lambda wildcards: table_settings(wildcards.experiment),
    message:
        "Tables of experiment {wildcards.experiment}"
    script:
        "../workflow/scripts/tables.py"


rule figures_of_experiment:
    input:
        summary=f"{RESULTS}/summary.csv",
        modules=modules("report.figures"),
    output:
        outputs_of("figures", "pdf"),
    log:
        f"logs/figures/{STUDY.study}/{{experiment}}.log",
    benchmark:
        f"logs/benchmarks/figures/{STUDY.study}/{{experiment}}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        settings=lambda wildcards: table_settings(wildcards.experiment),
    message:
        "Figures of experiment {wildcards.experiment}"
    script:
        "../workflow/scripts/figures.py"


rule report:
    input:
        summary=f"{RESULTS}/summary.csv",
        published=published_file(),
        speed=[file for kind in SPEED_KINDS for file in speed_results(kind)],
        speed_pruning=speed_pruning(),
        modules=modules("report.document", "report.speed_sections"),
    output:
        pdf=f"{RESULTS}/report.pdf",
        html=f"{RESULTS}/report.html",
    log:
        f"logs/report/{STUDY.study}.log",
    benchmark:
        f"logs/benchmarks/report/{STUDY.study}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        experiments=[table_settings(experiment) for experiment in EXPERIMENTS],
        study=STUDY.study,
        description=STUDY.description,
        note=STUDY.note,
        speed={kind: speed_settings(kind) for kind in SPEED_KINDS},
    message:
        "Report of study {params.study}"
    script:
        "../workflow/scripts/report.py"
