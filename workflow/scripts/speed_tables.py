"""Write a speed table as LaTeX and Markdown."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from pathlib import Path

    from dass.report.speed_tables import SpeedSettings, read_all, speed_table
    from dass.runtime.files import write_text

    settings = SpeedSettings(**snakemake.params.settings)
    results, pruning = snakemake.input.results, snakemake.input.pruning
    table = speed_table(snakemake.wildcards.kind, *read_all(results, pruning), settings)
    for path in map(Path, snakemake.output):
        write_text(path, table.latex() if path.suffix == ".tex" else table.markdown())
