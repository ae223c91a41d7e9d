"""Hold a model's dense perplexity against what is published about it."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages.check_dense import check_dense

    check_dense(
        **snakemake.params,
        dense=snakemake.input.dense,
        out=snakemake.output[0],
    )
