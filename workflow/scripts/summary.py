"""Put the summaries of all models below one another."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from pathlib import Path

    from dass.report.table import merge_summaries

    models = snakemake.input.models
    paths = [models] if isinstance(models, str) else models
    merge_summaries(map(Path, paths), Path(snakemake.output[0]))
