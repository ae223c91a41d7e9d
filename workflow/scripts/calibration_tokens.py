"""Draw a model's calibration windows and save their tokens."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.stages import calibration_tokens

    params = snakemake.params
    calibration_tokens(
        folder=params.model,
        documents=params.documents,
        sequences=params.calibration["sequences"],
        length=params.calibration["length"],
        seed=params.calibration["seed"],
        bos=params.bos,
        out=snakemake.output.tokens,
    )
