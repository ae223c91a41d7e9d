# Result files -> typed rows (JSON, and CSV for people) -> tables, figures, report.
from dataclasses import asdict

from dass.report.differences import paper_differences
from dass.report.settings import table_settings

SUMMARIES = expand(f"{RESULTS}/summary/{{model}}.json", model=MODELS)
SUMMARY = f"{RESULTS}/summary.json"
TEMPLATES = [
    os.path.relpath(f"{SOURCE}/dass/report/templates/report.{form}")
    for form in ["typ", "html", "tex"]
]


rule tables:
    # Named target: the summary and every table.
    input:
        f"{RESULTS}/summary.csv",
        TABLES,
        gone("tokens", "masks", "results", "summaries"),


rule summary_of_model:
    input:
        pruning=lambda wildcards: pruned(f"{RUN}/pruning.json", wildcards.model),
        perplexity=evaluations("perplexity"),
        zero_shot=evaluations("zero_shot") if STUDY.zero_shot else [],
        modules=modules("summary_of_model"),
    output:
        rows=f"{RESULTS}/summary/{{model}}.json",
        csv=f"{RESULTS}/summary/{{model}}.csv",
    log:
        f"logs/summary_of_model/{STUDY.study}/{{model}}.log",
    benchmark:
        f"logs/benchmarks/summary_of_model/{STUDY.study}/{{model}}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        stage="summary_of_model",
    message:
        "Summing up {wildcards.model}"
    script:
        "../workflow/scripts/stage.py"


rule summary:
    input:
        models=SUMMARIES,
        modules=modules("summary"),
    output:
        rows=SUMMARY,
        csv=in_report(
            f"{RESULTS}/summary.csv", "Summary", shows="every run", form="csv"
        ),
    log:
        f"logs/summary/{STUDY.study}.log",
    benchmark:
        f"logs/benchmarks/summary/{STUDY.study}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        stage="summary",
    message:
        "Summing up all models"
    script:
        "../workflow/scripts/stage.py"


rule tables_of_experiment:
    input:
        summary=SUMMARY,
        published=published_file(),
        modules=modules("tables_of_experiment"),
    output:
        out=in_reports(TABLES_OF_EXPERIMENT, "Tables"),
    log:
        f"logs/tables_of_experiment/{STUDY.study}/{{experiment}}.log",
    benchmark:
        f"logs/benchmarks/tables_of_experiment/{STUDY.study}/{{experiment}}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        stage="tables_of_experiment",
        settings=shown,
    message:
        "Tables of experiment {wildcards.experiment}"
    script:
        "../workflow/scripts/stage.py"


rule figures_of_experiment:
    input:
        summary=SUMMARY,
        modules=modules("figures_of_experiment"),
    output:
        out=in_reports(FIGURES_OF_EXPERIMENT, "Figures"),
    log:
        f"logs/figures_of_experiment/{STUDY.study}/{{experiment}}.log",
    benchmark:
        f"logs/benchmarks/figures_of_experiment/{STUDY.study}/{{experiment}}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        stage="figures_of_experiment",
        settings=shown,
    message:
        "Figures of experiment {wildcards.experiment}"
    script:
        "../workflow/scripts/stage.py"


rule report:
    input:
        summary=SUMMARY,
        published=published_file(),
        speed_results=all_speed_results(),
        speed_pruning=speed_pruning(),
        figures=FIGURES + SPEED_FIGURES,  # report.tex includes them
        templates=TEMPLATES,
        modules=modules("report"),
    output:
        pdf=in_report(f"{RESULTS}/report.pdf", "Report", form="pdf"),
        html=in_report(f"{RESULTS}/report.html", "Report", form="html"),
        tex=in_report(f"{RESULTS}/report.tex", "Report", form="tex"),
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
        stage="report",
        experiments=[asdict(table_settings(STUDY, name)) for name in EXPERIMENTS],
        study=STUDY.study,
        description=STUDY.description,
        note=STUDY.note,
        differences=paper_differences(STUDY),
        speed={kind: speed_settings(kind) for kind in SPEED_KINDS},
    message:
        "Report of study {params.study}"
    script:
        "../workflow/scripts/stage.py"


rule verify:
    # Named target: compares every file of the results with what was recorded when it was made.
    log:
        f"logs/verify/{STUDY.study}.log",
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        stage="verify",
        study=RESULTS,
        models={model: folder_of(model) for model in MODELS},
        texts={name: dataset_path(name) for name in STUDY.datasets},
        tasks={task: dataset_path(dataset) for task, dataset in TASKS.items()},
    message:
        "Verifying {params.study}"
    script:
        "../workflow/scripts/stage.py"
