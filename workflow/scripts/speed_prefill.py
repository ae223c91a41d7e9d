"""Time prefill with one run's pruned model on the GPU."""

from dass.runtime.job import job

gpus = snakemake.resources.get("gpu", 0)
with job(snakemake.log[0], snakemake.threads, gpus=gpus):
    from dass.speed.stages import prefill_of_run

    wildcards, params = snakemake.wildcards, snakemake.params
    prefill_of_run(
        subject=f"{wildcards.model}/{wildcards.calibration}/{wildcards.method}",
        folder=params.folder,
        pruned=snakemake.input.pruned,
        pattern=wildcards.pattern,
        dtype=params.dtype,
        tokens=params.tokens,
        repeats=params.repeats,
        result_file=snakemake.output[0],
    )
