"""Put the summaries of all models below one another."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages.summary import summary

    summary(
        models=snakemake.input.models,
        rows=snakemake.output.rows,
        csv=snakemake.output.csv,
    )
