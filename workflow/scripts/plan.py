"""The jobs of a study as JSON, for ``run_plan.py``: beside the Snakefile, or where it is told.

    python workflow/scripts/plan.py config/smollm2.yaml jobs.json [--all] [TARGET…]

What Snakemake would run, each job with its params, files, log, threads and memory; with ``--all``
what is there already, too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)


def plain(value: Any) -> Any:
    """A value as JSON; files are their names."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "__iter__"):
        return [plain(one) for one in value]
    return value


def jobs(config: Path, targets: set[str], everything: bool = False) -> list[dict[str, Any]]:
    """Rule, params, inputs, outputs, log, threads and memory of every job that has a script."""
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=3),
            config_settings=ConfigSettings(configfiles=[config]),
            snakefile=Path("Snakefile"),
        )
        dag = workflow.dag(dag_settings=DAGSettings(targets=targets))
        dag.execute_workflow(executor="dryrun")
        planned = workflow._workflow.dag
        return [
            {
                "rule": job.rule.name,
                "params": plain(dict(job.params.items())),
                "input": plain(dict(job.input.items())),
                "output": plain(dict(job.output.items())),
                "log": plain(job.log),
                "threads": job.threads,
                "mem_mb": job.resources.get("mem_mb"),
            }
            for job in (
                planned.jobs if everything else planned.needrun_jobs(exclude_finished=False)
            )
            if job.rule.script
        ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("targets", nargs="*")
    asked = parser.parse_intermixed_args()
    asked.out.write_text(json.dumps(jobs(asked.config, set(asked.targets), asked.all)))
