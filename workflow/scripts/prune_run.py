"""Prune one model by one method to one pattern; write the pruned file and its result."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads, gpus=snakemake.resources.get("gpu", 0)):
    from dass.stages.prune_run import prune_run

    prune_run(
        **snakemake.params,
        run="{model}/{calibration}/{method}/{pattern}".format(**snakemake.wildcards),
        tokens=snakemake.input.tokens,
        pruned_file=snakemake.output.pruned,
        result_file=snakemake.output.result,
    )
