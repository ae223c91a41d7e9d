"""Hold a model's dense perplexity against what is published of it."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.results.published import DenseTarget, check_dense

    check_dense(
        dense=snakemake.input.dense,
        targets=[DenseTarget(**target) for target in snakemake.params.targets],
        tolerance=snakemake.params.tolerance,
        out=snakemake.output[0],
    )
