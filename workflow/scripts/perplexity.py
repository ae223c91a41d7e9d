"""Measure the perplexity of one run on every split."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads, gpus=snakemake.resources.get("gpu", 0)):
    from dass.stages.perplexity import perplexity

    perplexity(
        **snakemake.params,
        run=f"{snakemake.wildcards.model}/{snakemake.wildcards.run}",
        pruned=snakemake.input.pruned or None,
        tokens=snakemake.input.tokens,
        result_file=snakemake.output[0],
    )
