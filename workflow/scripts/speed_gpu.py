"""Time dense against 2:4 on the GPU at the sizes of a model or a shape."""

from dass.runtime.job import job

gpus = snakemake.resources.get("gpu", 0)
with job(snakemake.log[0], snakemake.threads, gpus=gpus):
    from dass.speed.stages import gpu_of_shape, shape_of

    params = snakemake.params
    gpu_of_shape(
        subject=snakemake.wildcards.model,
        shape=shape_of(params.folder, params.sizes),
        dtype=params.dtype,
        tokens=params.tokens,
        repeats=params.repeats,
        result_file=snakemake.output[0],
    )
