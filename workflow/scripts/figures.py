"""Draw an experiment's figures."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from pathlib import Path

    from dass.report.figures import perplexity_figure, save_figure, zero_shot_figure
    from dass.report.table import TableSettings, read_summary

    summary = read_summary(snakemake.input.summary)
    settings = TableSettings(**snakemake.params.settings)
    draw = {"perplexity": perplexity_figure, "zero_shot": zero_shot_figure}
    for path in map(Path, snakemake.output):
        save_figure(draw[path.stem](summary, settings), path)
