"""Time dense against sparse engines on the CPU at the sizes of a model or a shape."""

from dass.runtime.job import job

# None is as many as the job has: the params do not change with them, and nothing is timed again.
threads = snakemake.params.threads or snakemake.threads
with job(snakemake.log[0], threads, gpus=0):
    from dass.stages.speed_cpu import speed_cpu

    speed_cpu(**{**snakemake.params, "threads": threads}, result_file=snakemake.output[0])
