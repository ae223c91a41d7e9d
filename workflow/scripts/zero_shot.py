"""Measure the zero-shot accuracy of one run on every task."""

from dass.runtime.job import job

gpus = snakemake.resources.get("gpu", 0)
with job(snakemake.log[0], snakemake.threads, gpus=gpus):
    from dass.results.schema import Run
    from dass.stages import zero_shot_of_run

    params = snakemake.params
    zero_shot_of_run(
        folder=params.model,
        pruned=snakemake.input.pruned or None,
        tasks=params.tasks,
        run=Run.parse(snakemake.wildcards.model, snakemake.wildcards.run),
        dtype=params.dtype,
        bos=params.bos,
        limit=params.limit,
        result_file=snakemake.output[0],
    )
