"""Run the stage of a rule: with its params, and with those of its files that the stage names."""

from dass.runtime.job import job

asked = dict(snakemake.params.items())
params = dict(asked)
stage = params.pop("stage")
params.pop("origins", None)  # for Snakemake alone; see rules/common.smk
if "threads" in params:  # None: as many as the job has
    params["threads"] = params["threads"] or snakemake.threads

with job(
    snakemake.log[0],
    params.get("threads", snakemake.threads),
    offline=not stage.startswith("fetch_"),
    gpus=snakemake.resources.get("gpu"),
    memory=snakemake.resources.get("mem_mb"),
):
    from importlib import import_module
    from inspect import signature

    from dass.runtime.imports import importing
    from dass.runtime.records import keep_records

    with importing():
        function = getattr(import_module(f"dass.stages.{stage}"), stage)
    named = signature(function).parameters.keys() - params.keys()
    files = [*snakemake.input.items(), *snakemake.output.items()]
    function(**params, **{name: file for name, file in files if name in named})
    keep_records(snakemake.output, snakemake.input, asked)
