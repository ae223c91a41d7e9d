"""Write an experiment's tables as LaTeX and Markdown."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from functools import partial
    from pathlib import Path

    from dass.report.published_table import published_table
    from dass.report.table import TableSettings, perplexity_table, read_summary, zero_shot_table
    from dass.results.published import read_published
    from dass.runtime.files import write_text

    summary = read_summary(snakemake.input.summary)
    settings = TableSettings(**snakemake.params.settings)
    published = [row for file in snakemake.input.published for row in read_published(file)]
    make = {
        "perplexity": perplexity_table,
        "zero_shot": zero_shot_table,
        "published": partial(published_table, published=published),
    }
    for path in map(Path, snakemake.output):
        table = make[path.stem](summary, settings)
        write_text(path, table.latex() if path.suffix == ".tex" else table.markdown())
