"""Measure the perplexity of one run on every split."""

from dass.runtime.job import job

gpus = snakemake.resources.get("gpu", 0)
with job(snakemake.log[0], snakemake.threads, gpus=gpus):
    from dass.results.schema import Run
    from dass.stages import perplexity_of_run

    params = snakemake.params
    perplexity_of_run(
        folder=params.model,
        pruned=snakemake.input.pruned or None,
        tokens=snakemake.input.tokens,
        run=Run.parse(snakemake.wildcards.model, snakemake.wildcards.run),
        dtype=params.dtype,
        bos=params.bos,
        dataset=params.dataset,
        splits=params.splits,
        result_file=snakemake.output[0],
    )
