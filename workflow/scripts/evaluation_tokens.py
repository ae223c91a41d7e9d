"""Tokenise an evaluation text for one model and save its windows, split by split."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages import evaluation_tokens

    params = snakemake.params
    evaluation_tokens(
        folder=params.model,
        text=params.text,
        rows=params.rows,
        splits=params.splits,
        length=params.length,
        bos=params.bos,
        out=snakemake.output.tokens,
    )
