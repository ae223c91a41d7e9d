# What the rules of blocks.smk share: which results are made, params and sizes of their jobs.
from dataclasses import asdict

from dass.report.block_tables import ERRORS
from dass.report.settings import block_settings

BLOCK_RUNS = block_runs(STUDY)
BLOCK_WINDOWS = STUDY.blocks.windows if STUDY.blocks else None
ACTIVATIONS = f"{RESULTS}/activations/{{model}}/{{calibration}}"
BLOCK_ACTIVATIONS = list(dict.fromkeys(pruned(f"{ACTIVATIONS}.json", among=BLOCK_RUNS)))
BLOCK_ERRORS = pruned(f"{RUN}/blocks.json", among=BLOCK_RUNS)
BLOCK_TABLES = [
    f"{RESULTS}/tables/blocks/{kind}.{form}"
    for kind in ERRORS
    for form in ("tex", "md")
    if BLOCK_RUNS
]
BLOCK_FIGURES = [
    f"{RESULTS}/figures/blocks/{kind}.pdf"
    for kind in ("norms", "outliers", *ERRORS, "kept")
    if BLOCK_RUNS
]


def blocks_shown():
    """What tables and figures show: fields of dass.report.block_tables.BlockSettings, or None."""
    settings = block_settings(STUDY)
    return settings and asdict(settings)


def activations_memory(wildcards, attempt):
    """mem_mb of a dense pass of the calibration windows."""
    calibration = DRAWS[wildcards.calibration]
    states = calibration.sequences * calibration.length
    dtype = STUDY.models[wildcards.model].dtype
    return attempt * job_memory(billions(wildcards.model), dtype, states)


def block_errors_memory(wildcards, attempt):
    """mem_mb of a dense and a pruned model side by side."""
    states = (BLOCK_WINDOWS or 0) * STUDY.perplexity.length
    dtype = STUDY.models[wildcards.model].dtype
    return attempt * 2 * job_memory(billions(wildcards.model), dtype, states)
