"""Prune one model by one method to one pattern; write the pruned file and its result."""

from dass.runtime.job import job

gpus = snakemake.resources.get("gpu", 0)
with job(snakemake.log[0], snakemake.threads, gpus=gpus):
    from dass.results.schema import Run
    from dass.stages import prune_run

    wildcards, params = snakemake.wildcards, snakemake.params
    prune_run(
        folder=params.model,
        tokens=snakemake.input.tokens,
        run=Run(
            model=wildcards.model,
            calibration=wildcards.calibration,
            method=wildcards.method,
            pattern=wildcards.pattern,
        ),
        dtype=params.dtype,
        bos=params.bos,
        function=params.function,
        arguments=params.arguments,
        pruned_file=snakemake.output.pruned,
        result_file=snakemake.output.result,
    )
