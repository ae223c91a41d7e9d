"""Do the jobs of ``plan.py``, forked from one process: for runs that take less than a start.

    python workflow/scripts/run_plan.py jobs.json --workers 4 [--rules prune_run perplexity]

Each job is what its rule would do, with the same log and records; once ``plan.py --record`` has
told Snakemake, it finds nothing to do. No Snakemake is needed here, so that the jobs may be done on
another machine, in a copy of the tree. Jobs are shared out among the GPUs, several to each. A job
that was done since the plan is not done again. Nothing is fetched: ``snakemake fetch`` comes first.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import runpy
import shutil
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


def done_since(job: Job, moment: float) -> bool:
    """Whether all its outputs are there and none is older than that."""
    files = list(files_of(job["output"]))
    return all(map(os.path.exists, files)) and min(map(os.path.getmtime, files)) >= moment


def do(job: Job, card: str | None) -> None:
    """What the job's rule would do, in this process, which sees this GPU only."""
    import torch

    from dass.runtime.gpus import VISIBLE
    from dass.runtime.provenance import CONFIG

    if card is not None:  # CUDA looks when it is first used
        os.environ[VISIBLE] = card
    torch.set_num_threads(job["threads"])
    os.environ[CONFIG] = job["config"]
    for file in map(Path, files_of(job["output"])):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            shutil.rmtree(file)
        file.unlink(missing_ok=True)
    snakemake = SimpleNamespace(
        params=job["params"], input=Files(job["input"]), output=Files(job["output"]),
        log=job["log"], threads=job["threads"], resources={"mem_mb": job["mem_mb"]},
    )  # fmt: skip
    runpy.run_path(str(SCRIPT), {"snakemake": snakemake})


def run(jobs: list[Job], workers: int, cards: list[str]) -> int:
    """Do all jobs, each after those that write its inputs; returns how many were not done.

    A job is given the GPU on which the fewest jobs are.
    """
    waiting = list(jobs)
    running: list[tuple[BaseProcess, Job, str | None]] = []
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
            busy = [used for *_, used in running]
            card = min(cards, key=busy.count, default=None)
            process = fork.Process(target=do, args=(job, card))
            process.start()
            running.append((process, job, card))
            waiting.remove(job)
        time.sleep(0.01)
        for ended in [one for one in running if not one[0].is_alive()]:
            running.remove(ended)
            process, job, _ = ended
            coming.difference_update(files_of(job["output"]))
            if process.exitcode:
                not_done += 1
                lost.update(files_of(job["output"]))
                print(f"failed: see {job['log'][0]}", file=sys.stderr)
    return not_done


def preload(jobs: list[Job]) -> None:
    """Import once what every job would; no GPU is touched, so that processes can be forked."""
    folders = {job["params"].get("folder") for job in jobs} - {None}
    configs = [file for f in folders if (file := Path(f) / "config.json").exists()]
    types = {json.loads(file.read_text())["model_type"] for file in configs}
    names = [f"dass.stages.{job['params']['stage']}" for job in jobs]
    names += [f"dass.{m}" for m in ("models.fused_triton", "pruning.masks_triton",
                                    "pruning.columns_triton")]  # fmt: skip
    names += [f"transformers.models.{t}.modeling_{t}" for t in types] + ["torch._dynamo"]
    for name in dict.fromkeys(names):
        with suppress(ImportError):
            importlib.import_module(name)


def settle(threads: int) -> None:
    """What a job tells libraries before it imports them, said before all jobs import them here."""
    sys.path.insert(0, str(SOURCE))
    sys.path.append(str(Path.cwd()))  # custom methods beside the Snakefile, as Snakemake finds them
    from dass.runtime.job import NUMERIC, OFFLINE, QUIET

    os.environ |= QUIET | OFFLINE | {"OMP_NUM_THREADS": str(threads)}
    for name in NUMERIC:
        os.environ.pop(name, None)


def read_plan(path: Path) -> list[Job]:
    """What ``plan.py`` wrote, or one line that says why not."""
    try:
        return list(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {path}: no plan ({error}); plan.py writes one")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("jobs", type=Path, help="what plan.py wrote")
    parser.add_argument("--workers", type=int, default=1, help="jobs at the same time")
    parser.add_argument("--rules", nargs="+", help="only jobs of these rules")
    asked = parser.parse_args()
    if asked.workers < 1:
        parser.error("--workers must be at least 1")
    plan = read_plan(asked.jobs)
    made = asked.jobs.stat().st_mtime
    found = [
        job
        for job in plan
        if (asked.rules is None or job["rule"] in asked.rules)
        and not done_since(job, made if job["needed"] else 0)
    ]
    if fetched := [job["rule"] for job in found if job["rule"].startswith("fetch_")]:
        sys.exit(f"error: the plan has {fetched[0]}; run snakemake --cores 1 fetch, and plan again")
    settle(max((job["threads"] for job in found), default=1))
    preload(found)
    from dass.runtime.gpus import pool

    not_done = run(found, asked.workers, pool(os.environ))
    print(
        f"{len(found) - not_done} jobs done, {not_done} not; next: plan.py … {asked.jobs} --record"
    )
    sys.exit(not_done > 0)
