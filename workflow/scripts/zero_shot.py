"""Measure the zero-shot accuracy of one run on every task."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads, gpus=snakemake.resources.get("gpu", 0)):
    from dass.stages.zero_shot import zero_shot

    zero_shot(
        **snakemake.params,
        run=f"{snakemake.wildcards.model}/{snakemake.wildcards.run}",
        pruned=snakemake.input.pruned or None,
        result_file=snakemake.output[0],
    )
