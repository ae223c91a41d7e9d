"""Write a speed table as LaTeX and Markdown."""

from dass.job import job

with job(snakemake.log[0], snakemake.threads):
    from pathlib import Path

    from dass.files import write_text
    from dass.speed.tables import SpeedSettings, read_all, speed_table

    settings = SpeedSettings(**snakemake.params.settings)
    results, pruning = snakemake.input.results, snakemake.input.pruning
    table = speed_table(snakemake.wildcards.kind, *read_all(results, pruning), settings)
    for path in map(Path, snakemake.output):
        write_text(path, table.latex() if path.suffix == ".tex" else table.markdown())
