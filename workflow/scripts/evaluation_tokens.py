"""Tokenise an evaluation text for one model and save its windows, split by split."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages.evaluation_tokens import evaluation_tokens

    evaluation_tokens(**snakemake.params, out=snakemake.output[0])
