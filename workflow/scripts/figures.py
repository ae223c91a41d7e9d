"""Draw an experiment's figures."""

from dass.job import job

with job(snakemake.log[0], snakemake.threads):
    from pathlib import Path

    from dass.figures import perplexity_figure, save_figure, zero_shot_figure
    from dass.tables import TableSettings, read_summary

    summary = read_summary(snakemake.input.summary)
    settings = TableSettings(**snakemake.params.settings)
    draw = {"perplexity": perplexity_figure, "zero_shot": zero_shot_figure}
    for path in map(Path, snakemake.output):
        save_figure(draw[path.stem](summary, settings), path)
