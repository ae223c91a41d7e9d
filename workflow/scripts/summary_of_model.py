"""Put the results of one model's runs into one summary."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages.summary_of_model import summary_of_model

    summary_of_model(
        pruning=snakemake.input.pruning,
        perplexity=snakemake.input.perplexity,
        zero_shot=snakemake.input.zero_shot,
        rows=snakemake.output.rows,
        csv=snakemake.output.csv,
    )
