"""Write an experiment's tables as LaTeX and Markdown."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages.tables_of_experiment import tables_of_experiment

    tables_of_experiment(
        **snakemake.params,
        summary=snakemake.input.summary,
        published=snakemake.input.published,
        out=snakemake.output,
    )
