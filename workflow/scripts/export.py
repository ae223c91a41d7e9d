"""Export one run as a plain Hugging Face checkpoint."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages.export import export

    export(
        **snakemake.params,
        pruned=snakemake.input.pruned,
        out=snakemake.output[0],
    )
