"""Write the toy world's text and tasks."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from pathlib import Path

    from dass.standins import write_world

    write_world(Path(snakemake.output[0]), snakemake.params.seed, snakemake.params.documents)
