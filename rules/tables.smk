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
        zero_shot=evaluations("zero_shot"),
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


rule experiment_tables:
    input:
        summary=SUMMARY,
        published=published_file(),
        modules=modules("experiment_tables"),
    output:
        out=in_reports(TABLES, "Tables"),
    log:
        f"logs/experiment_tables/{STUDY.study}.log",
    benchmark:
        f"logs/benchmarks/experiment_tables/{STUDY.study}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        stage="experiment_tables",
        experiments=shown(),
    message:
        "Tables of all experiments"
    script:
        "../workflow/scripts/stage.py"


rule experiment_figures:
    input:
        summary=SUMMARY,
        modules=modules("experiment_figures"),
    output:
        out=in_reports(FIGURES, "Figures"),
    log:
        f"logs/experiment_figures/{STUDY.study}.log",
    benchmark:
        f"logs/benchmarks/experiment_figures/{STUDY.study}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        stage="experiment_figures",
        experiments=shown(),
    message:
        "Figures of all experiments"
    script:
        "../workflow/scripts/stage.py"


rule report:
    input:
        summary=SUMMARY,
        published=published_file(),
        speed_results=all_speed_results(),
        speed_pruning=speed_pruning(),
        activations=BLOCK_ACTIVATIONS,
        block_errors=BLOCK_ERRORS,
        # report.tex includes them
        figures=FIGURES + BLOCK_FIGURES + SPEED_FIGURES + SPEED_ACCURACY_FIGURES,
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
        experiments=shown(),
        study=STUDY.study,
        # by functions: Snakemake would fill in the braces of plain text
        description=lambda _: STUDY.description,
        note=lambda _: STUDY.note,
        differences=lambda _: paper_differences(STUDY),
        speed={kind: speed_settings(kind) for kind in SPEED_KINDS},
        speed_accuracy=speed_accuracy_shown(),
        blocks=blocks_shown(),
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
