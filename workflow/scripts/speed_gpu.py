"""Time dense against 2:4 on the GPU at the sizes of a model or a shape."""

from dass.runtime.job import job

gpus = snakemake.resources.get("gpu", 0)
with job(snakemake.log[0], snakemake.threads, gpus=gpus):
    from dass.stages.speed_gpu import speed_gpu

    speed_gpu(**snakemake.params, result_file=snakemake.output[0])
