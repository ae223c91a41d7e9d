"""Export one run as a plain Hugging Face checkpoint."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    import torch

    from dass.pruning.pruned_file import export

    params = snakemake.params
    export(params.model, snakemake.input.pruned, snakemake.output[0], getattr(torch, params.dtype))
