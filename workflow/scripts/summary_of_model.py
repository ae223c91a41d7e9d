"""Put the results of one model's runs into one CSV file."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from pathlib import Path

    from dass.report.table import write_summary

    write_summary(
        Path(snakemake.output[0]),
        pruning=map(Path, snakemake.input.pruning),
        perplexity=map(Path, snakemake.input.perplexity),
        zero_shot=map(Path, snakemake.input.zero_shot),
    )
