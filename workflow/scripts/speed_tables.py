"""Write a speed table as LaTeX and Markdown."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages.speed_tables import speed_tables

    tex, markdown = snakemake.output
    files = {"result_files": snakemake.input.results, "tex_file": tex, "markdown_file": markdown}
    speed_tables(**snakemake.params, **files)
