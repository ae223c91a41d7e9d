"""Draw an experiment's figures."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages.figures_of_experiment import figures_of_experiment

    figures_of_experiment(
        **snakemake.params,
        summary=snakemake.input.summary,
        out=snakemake.output,
    )
