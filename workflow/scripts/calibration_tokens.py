"""Draw a model's calibration windows and save their tokens."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages.calibration_tokens import calibration_tokens

    calibration_tokens(**snakemake.params, out=snakemake.output[0])
