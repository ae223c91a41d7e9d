"""Fetch one data set from the hub as JSON lines."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads, offline=False):
    from dass.stages.fetch_dataset import fetch_dataset

    fetch_dataset(snakemake.params.dataset, snakemake.output[0])
