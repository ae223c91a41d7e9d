"""Draw a speed figure."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages.speed_figures import speed_figures

    files = {"result_files": snakemake.input.results, "figure_file": snakemake.output[0]}
    speed_figures(**snakemake.params, **files)
