"""The DAG of a study as JSON; to be run beside the workflow: ``python dag.py CONFIG TARGET…``."""

from __future__ import annotations

import json
import sys
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


def jobs(config: Path, targets: set[str]) -> list[dict[str, Any]]:
    """Rule, params, inputs, outputs, threads and memory of every job."""
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=3),
            config_settings=ConfigSettings(configfiles=[config]),
            snakefile=Path("Snakefile"),
        )
        dag = workflow.dag(dag_settings=DAGSettings(targets=targets))
        dag.execute_workflow(executor="dryrun")
        return [
            {
                "rule": job.rule.name,
                "params": plain(dict(job.params.items())),
                "input": plain(dict(job.input.items())),
                "output": plain(dict(job.output.items())),
                "threads": job.threads,
                "mem_mb": job.resources.get("mem_mb"),
            }
            for job in workflow._workflow.dag.jobs
            if job.rule.script
        ]


if __name__ == "__main__":
    found = jobs(Path(sys.argv[1]), set(sys.argv[2:]))
    Path("dag.json").write_text(json.dumps(found))
