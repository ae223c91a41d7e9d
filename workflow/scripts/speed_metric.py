"""Time the pruning metrics at the sizes of a model or a shape."""

from dass.runtime.job import job

gpus = snakemake.resources.get("gpu", 0)
with job(snakemake.log[0], snakemake.params.threads, gpus=gpus):
    from dass.speed.stages import metric_of_shape, shape_of

    params = snakemake.params
    metric_of_shape(
        subject=snakemake.wildcards.model,
        shape=shape_of(params.folder, params.sizes),
        dtype=params.dtype,
        methods=params.methods,
        patterns=params.patterns,
        repeats=params.repeats,
        threads=params.threads,
        result_file=snakemake.output[0],
    )
