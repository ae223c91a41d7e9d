"""Do the jobs of ``plan.py``, forked from one process: for runs that take less than a start.

    python workflow/scripts/run_plan.py jobs.json --workers 4 [--rules prune_run perplexity]

Each job is what its rule would do, with the same log and records; Snakemake then finds nothing to
do. It needs no Snakemake, so that the jobs may be done on another machine, in a copy of the tree.
Several jobs share a GPU. A job whose output is there is not done again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Job = dict[str, Any]
SCRIPT = Path(__file__).with_name("stage.py")
SOURCE = Path(__file__).parents[2] / "src"


class Files(list[str]):
    """Files as scripts get them from Snakemake: a list, some of it by name."""

    def __init__(self, named: dict[str, Any]) -> None:
        self.named = named
        super().__init__(files_of(named))

    def items(self) -> Any:
        """Name and file, or files."""
        return self.named.items()


def files_of(named: dict[str, Any]) -> Iterator[str]:
    """All files, whatever their names."""
    for one in named.values():
        yield from [one] if isinstance(one, str) else one


def do(job: Job) -> None:
    """What the job's rule would do, in this process."""
    import torch

    torch.set_num_threads(job["threads"])
    for file in files_of(job["output"]):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    snakemake = SimpleNamespace(
        params=job["params"], input=Files(job["input"]), output=Files(job["output"]),
        log=job["log"], threads=job["threads"], resources={"mem_mb": job["mem_mb"]},
    )  # fmt: skip
    runpy.run_path(str(SCRIPT), {"snakemake": snakemake})


def run(jobs: list[Job], workers: int) -> int:
    """Do all jobs, each after those that write its inputs; returns how many were not done."""
    waiting = [job for job in jobs if not all(map(os.path.exists, files_of(job["output"])))]
    running: list[tuple[BaseProcess, Job]] = []
    coming = {file for job in waiting for file in files_of(job["output"])}
    lost: set[str] = set()
    fork, not_done = multiprocessing.get_context("fork"), 0
    while waiting or running:
        for job in [one for one in waiting if not lost.isdisjoint(files_of(one["input"]))]:
            waiting.remove(job)
            lost.update(files_of(job["output"]))
            not_done += 1
        ready = [job for job in waiting if coming.isdisjoint(files_of(job["input"]))]
        for job in ready[: workers - len(running)]:
            process = fork.Process(target=do, args=(job,))
            process.start()
            running.append((process, job))
            waiting.remove(job)
        time.sleep(0.01)
        for process, job in [one for one in running if not one[0].is_alive()]:
            running.remove((process, job))
            coming.difference_update(files_of(job["output"]))
            if process.exitcode:
                not_done += 1
                lost.update(files_of(job["output"]))
                print(f"failed: see {job['log'][0]}", file=sys.stderr)
    return not_done


def preload(jobs: list[Job]) -> None:
    """Import once what every job would; no GPU is touched, so that processes can be forked."""
    folders = {job["params"].get("folder") for job in jobs} - {None}
    types = {json.loads((Path(f) / "config.json").read_text())["model_type"] for f in folders}
    names = [f"dass.stages.{job['params']['stage']}" for job in jobs]
    names += [f"dass.{m}" for m in ("models.fused_triton", "pruning.masks_triton",
                                    "pruning.columns_triton")]  # fmt: skip
    names += [f"transformers.models.{t}.modeling_{t}" for t in types] + ["torch._dynamo"]
    for name in dict.fromkeys(names):
        with suppress(ImportError):
            importlib.import_module(name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("jobs", type=Path, help="what plan.py wrote")
    parser.add_argument("--workers", type=int, default=1, help="jobs at the same time")
    parser.add_argument("--rules", nargs="+", help="only jobs of these rules")
    asked = parser.parse_args()
    found = json.loads(asked.jobs.read_text())
    sys.path.insert(0, str(SOURCE))
    os.environ["OMP_NUM_THREADS"] = str(max((job["threads"] for job in found), default=1))
    preload(found)
    sys.exit(
        run([j for j in found if asked.rules is None or j["rule"] in asked.rules], asked.workers)
        > 0
    )
