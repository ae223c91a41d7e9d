"""Time the pruning metric of one method at the sizes of a model or a shape."""

from dass.runtime.job import job

gpus = snakemake.resources.get("gpu", 0)
with job(snakemake.log[0], snakemake.params.threads, gpus=gpus):
    from dass.stages.speed_metric import speed_metric

    speed_metric(**snakemake.params, result_file=snakemake.output[0])
