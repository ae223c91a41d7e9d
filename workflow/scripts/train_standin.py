"""Train one stand-in model on the toy world's documents."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads, gpus=snakemake.resources.get("gpu", 0)):
    from dass.stages.train_standin import train_standin

    train_standin(**snakemake.params, world=snakemake.input.world, out=snakemake.output[0])
