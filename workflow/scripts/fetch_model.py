"""Fetch one model from the hub."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads, offline=False):
    from dass.data.hub import fetch_model

    fetch_model(snakemake.params.repository, snakemake.params.revision, snakemake.output[0])
