"""Time dense against sparse engines on the CPU at the sizes of a model or a shape."""

from dass.runtime.job import job

threads = snakemake.params.threads or snakemake.threads
with job(snakemake.log[0], threads, gpus=0):
    from dass.speed.stages import cpu_of_shape, shape_of

    params = snakemake.params
    cpu_of_shape(
        subject=snakemake.wildcards.model,
        shape=shape_of(params.folder, params.sizes),
        options=params.options,
        threads=params.threads or snakemake.threads,
        deepsparse=next(iter(snakemake.input.deepsparse), None),
        result_file=snakemake.output[0],
        **params.settings,
    )
