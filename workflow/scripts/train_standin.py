"""Train one stand-in model on the toy world's documents."""

from dass.runtime.job import job

gpus = snakemake.resources.get("gpu", 0)
with job(snakemake.log[0], snakemake.threads, gpus=gpus):
    from pathlib import Path

    from dass.standins import train_standin

    train_standin(
        snakemake.params.family,
        Path(snakemake.input.world),
        Path(snakemake.output[0]),
        seed=snakemake.params.seed,
        steps=snakemake.params.steps,
    )
