"""Draw a speed figure."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.report.figures import save_figure
    from dass.report.speed_figures import speed_figure
    from dass.report.speed_tables import SpeedSettings, read_all

    settings = SpeedSettings(**snakemake.params.settings)
    results, _ = read_all(snakemake.input.results, [])
    save_figure(speed_figure(snakemake.wildcards.kind, results, settings), snakemake.output[0])
