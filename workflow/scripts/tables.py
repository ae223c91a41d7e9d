"""Write an experiment's tables as LaTeX and Markdown."""

from dass.job import job

with job(snakemake.log[0], snakemake.threads):
    from pathlib import Path

    from dass.files import write_text
    from dass.tables import TableSettings, perplexity_table, read_summary, zero_shot_table

    summary = read_summary(snakemake.input.summary)
    settings = TableSettings(**snakemake.params.settings)
    make = {"perplexity": perplexity_table, "zero_shot": zero_shot_table}
    for path in map(Path, snakemake.output):
        table = make[path.stem](summary, settings)
        write_text(path, table.latex() if path.suffix == ".tex" else table.markdown())
