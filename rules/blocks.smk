# A look into decoder blocks: how far activations are spread, and what pruning does to each block.
# Nothing here runs unless the study has a `blocks` block, but for norms that OWL's ratios need.
rule blocks:
    # Named target: tables and figures of the blocks; prunes the runs that they show.
    input:
        BLOCK_TABLES,
        BLOCK_FIGURES,
        gone("tokens", "masks", "blocks"),


rule activations:
    input:
        model=model_input,
        tokens=WINDOWS,
        modules=modules("activations"),
    output:
        norms_file=f"{ACTIVATIONS}.safetensors",
        result_file=f"{ACTIVATIONS}.json",
    log:
        f"logs/activations/{STUDY.study}/{{model}}/{{calibration}}.log",
    benchmark:
        f"logs/benchmarks/activations/{STUDY.study}/{{model}}/{{calibration}}.tsv"
    conda:
        "../envs/dass.yaml"
    threads: threads_of
    resources:
        mem_mb=activations_memory,
        runtime=minutes(per_billion=3),
        gpu=1,
    params:
        stage="activations",
        origins=origins(),
        model="{model}",
        calibration="{calibration}",
        folder=model_folder,
        dtype=of_model("dtype"),
        bos=of_model("bos"),
    message:
        "Norms of activations: {wildcards.model}, {wildcards.calibration}"
    script:
        "../workflow/scripts/stage.py"


rule block_errors:
    input:
        model=model_input,
        pruned=PRUNED,
        norms=f"{ACTIVATIONS}.safetensors",
        tokens=TEXT,
        modules=modules("block_errors"),
    output:
        result_file=f"{RUN}/blocks.json",
    log:
        f"logs/block_errors/{STUDY.study}/{{model}}/{{calibration}}/{{method}}/{{pattern}}.log",
    benchmark:
        f"logs/benchmarks/block_errors/{STUDY.study}/{{model}}/{{calibration}}/{{method}}/{{pattern}}.tsv"
    conda:
        "../envs/dass.yaml"
    threads: threads_of
    resources:
        mem_mb=block_errors_memory,
        runtime=minutes(per_billion=3),
        gpu=1,
    params:
        stage="block_errors",
        origins=origins(),
        run="{model}/{calibration}/{method}/{pattern}",
        folder=model_folder,
        dtype=of_model("dtype"),
        bos=of_model("bos"),
        dataset=STUDY.perplexity.dataset,
        split=STUDY.perplexity.table_split,
        windows=BLOCK_WINDOWS,
    message:
        "Errors of each block: {wildcards.model}, {wildcards.method} {wildcards.pattern}"
    script:
        "../workflow/scripts/stage.py"


rule block_tables:
    input:
        errors=BLOCK_ERRORS,
        modules=modules("block_tables"),
    output:
        out=in_reports(BLOCK_TABLES, "Tables"),
    log:
        f"logs/block_tables/{STUDY.study}.log",
    benchmark:
        f"logs/benchmarks/block_tables/{STUDY.study}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        stage="block_tables",
        settings=blocks_shown(),
    message:
        "Tables of the blocks"
    script:
        "../workflow/scripts/stage.py"


rule block_figures:
    input:
        activations=BLOCK_ACTIVATIONS,
        errors=BLOCK_ERRORS,
        modules=modules("block_figures"),
    output:
        out=in_reports(BLOCK_FIGURES, "Figures"),
    log:
        f"logs/block_figures/{STUDY.study}.log",
    benchmark:
        f"logs/benchmarks/block_figures/{STUDY.study}.tsv"
    conda:
        "../envs/dass.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        stage="block_figures",
        settings=blocks_shown(),
    message:
        "Figures of the blocks"
    script:
        "../workflow/scripts/stage.py"
