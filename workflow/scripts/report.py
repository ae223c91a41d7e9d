"""Write the study's report, as PDF and as HTML."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages.report import report

    report(
        **snakemake.params,
        summary=snakemake.input.summary,
        published=snakemake.input.published,
        speed_results=snakemake.input.speed,
        speed_pruning=snakemake.input.speed_pruning,
        pdf=snakemake.output.pdf,
        html=snakemake.output.html,
    )
