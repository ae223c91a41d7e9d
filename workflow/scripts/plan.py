"""The jobs of a study as JSON, for ``run_plan.py``: beside the Snakefile, or where it is told.

    python workflow/scripts/plan.py config/smollm2.yaml jobs.json [--all] [TARGET…]
    python workflow/scripts/plan.py config/smollm2.yaml jobs.json --record

What Snakemake would run, each job with its params, files, log, threads and memory; with ``--all``
what is there already, too. ``--record`` tells Snakemake of the jobs of the plan that were done
since: without it, a changed argument would not make their results stale.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from run_plan import Job, done_since, files_of, read_plan
from snakemake.api import SnakemakeApi
from snakemake.exceptions import RuleException, WorkflowError
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


@contextmanager
def one_line(file: Path) -> Iterator[None]:
    """End with one line in place of a traceback: no such file, no YAML, no such target."""
    try:
        yield
    except (WorkflowError, RuleException, OSError, UnicodeError) as error:
        sys.exit(f"error: {file}: {' '.join(str(error).split())}")


@contextmanager
def planned(config: Path, targets: set[str]) -> Iterator[Any]:
    """The workflow with its graph of jobs, none of them started; or one line that says why not."""
    with one_line(config), SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=3),
            config_settings=ConfigSettings(configfiles=[config]),
            snakefile=Path("Snakefile"),
        )
        workflow.dag(dag_settings=DAGSettings(targets=targets)).execute_workflow(executor="dryrun")
        yield workflow._workflow


def jobs(config: Path, targets: set[str], everything: bool = False) -> list[Job]:
    """Rule, params, inputs, outputs, log, threads and memory of every job that has a script."""
    with planned(config, targets) as workflow:
        from dass.runtime.provenance import CONFIG  # the Snakefile has found the library

        needed = set(workflow.dag.needrun_jobs(exclude_finished=False))
        return [
            {
                "rule": job.rule.name,
                "params": plain(dict(job.params.items())),
                "input": plain(dict(job.input.items())),
                "output": plain(dict(job.output.items())),
                "log": plain(job.log),
                "threads": job.threads,
                "mem_mb": job.resources.get("mem_mb"),
                "needed": job in needed,
                "config": os.environ[CONFIG],
            }
            for job in workflow.dag.jobs
            if job.rule.script and (everything or job in needed)
        ]


def record(config: Path, done: Iterable[Job]) -> None:
    """Write what Snakemake would have recorded of these jobs.

    A job that the config would now run otherwise stops it: its results are not what they claim.
    """
    by_output = {next(files_of(job["output"])): job for job in done}
    if not by_output:
        return
    with planned(config, set(by_output)) as workflow:
        now = [job for job in workflow.dag.jobs if str(next(iter(job.output), "")) in by_output]
        for job in now:
            output = str(job.output[0])
            if plain(dict(job.params.items())) != by_output[output]["params"]:
                sys.exit(f"error: {output}: made with other params; delete it, or undo the change")
        for job in now:
            workflow.async_run(workflow.persistence.finished(job))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path, metavar="jobs.json")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("targets", nargs="*")
    asked = parser.parse_intermixed_args()
    if asked.record:
        plan = read_plan(asked.out)
        made = asked.out.stat().st_mtime
        record(asked.config, [job for job in plan if job["needed"] and done_since(job, made)])
    else:
        plan = jobs(asked.config, set(asked.targets), asked.all)
        with one_line(asked.out):
            asked.out.write_text(json.dumps(plan))
