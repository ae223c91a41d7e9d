"""Fetch one data set from the hub as JSON lines."""

from dass.job import job

with job(snakemake.log[0], snakemake.threads, offline=False):
    from dass.hub import fetch_dataset

    fetch_dataset(snakemake.params.dataset, snakemake.output[0])
