"""Export one run as a plain Hugging Face checkpoint."""

from dass.job import job

with job(snakemake.log[0], snakemake.threads):
    import torch

    from dass.checkpoint import export

    params = snakemake.params
    export(params.model, snakemake.input.pruned, snakemake.output[0], getattr(torch, params.dtype))
