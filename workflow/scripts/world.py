"""Write the toy world's text and tasks."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages.world import world

    world(**snakemake.params, out=snakemake.output[0])
