"""Fetch one model from the hub."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads, offline=False):
    from dass.stages.fetch_model import fetch_model

    fetch_model(**snakemake.params, out=snakemake.output[0])
