"""Time prefill with one run's pruned model on the GPU."""

from dass.runtime.job import job

gpus = snakemake.resources.get("gpu", 0)
with job(snakemake.log[0], snakemake.threads, gpus=gpus):
    from dass.stages.speed_prefill import speed_prefill

    files = {"pruned_file": snakemake.input.pruned, "result_file": snakemake.output[0]}
    speed_prefill(**snakemake.params, **files)
