"""What ends in the middle: the rest goes on, nothing half-written counts, a next call completes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.harness import Fault, Sick

from .conftest import Finished, Workflow, small_study

METHOD = '''\
"""Wanda, in jobs that come to a bad end as long as a file of that name is there."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from dass.pruning.methods.wanda import Wanda


@dataclass(frozen=True)
class Fragile(Wanda):
    def score(self, role, weight, statistics):
        if role == "down" and Path("die").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if role == "down" and Path("wait").exists():
            Path("waiting").touch()
            time.sleep(20)
        return super().score(role, weight, statistics)
'''
TOLD_TO_END = """\
import os
import signal

from snakemake.cli import main
from snakemake.scheduling.job_scheduler import JobScheduler

finish = JobScheduler._finish_jobs


def told_to_end(scheduler):
    assert scheduler._lock.locked()
    os.kill(os.getpid(), signal.SIGTERM)
    finish(scheduler)


JobScheduler._finish_jobs = told_to_end
main()
"""
RUNS = "results/small/runs/standin-llama/toy"
GOOD, FRAGILE = f"{RUNS}/dass-a1/2of4", f"{RUNS}/fragile/2of4"


@pytest.fixture
def fragile(study: Workflow, monkeypatch: pytest.MonkeyPatch) -> Workflow:
    """The finished study and two new methods, one of which can be made to fail."""
    settings = small_study()
    settings["methods"]["fragile"] = {"function": "fragile:Fragile"}
    settings["methods"]["dass-a1"] = {"function": "dass", "alpha": 1.0}
    settings["experiments"]["main"] |= {"methods": ["dass", "wanda", "fragile", "dass-a1"]}
    study.write_study(settings)
    (study.folder / "fragile.py").write_text(METHOD)
    monkeypatch.setenv("PYTHONPATH", str(study.folder), prepend=":")
    return study


def written(study: Workflow, folder: str) -> set[str]:
    return {path.name for path in (study.folder / folder).glob("*") if path.is_file()}


def completes(study: Workflow, *targets: str) -> Finished:
    finished = study.snakemake(*targets)
    assert finished.code == 0, finished.output
    return finished


def test_the_rest_goes_on_when_a_job_is_killed(fragile: Workflow) -> None:
    """By SIGKILL, as the kernel does when memory runs out, in the middle of pruning."""
    targets = [f"{folder}/perplexity.json" for folder in (FRAGILE, GOOD)]
    (fragile.folder / "die").touch()
    finished = fragile.snakemake(*targets)
    assert finished.code != 0
    assert "logs/prune_run/small/standin-llama/toy/fragile/2of4.log" in finished.output
    assert written(fragile, GOOD) == {"pruned.safetensors", "pruning.json", "perplexity.json"}
    assert written(fragile, FRAGILE) == set()
    (fragile.folder / "die").unlink()
    assert completes(fragile, *targets).jobs == {"prune_run": 1, "perplexity": 1}
    assert written(fragile, FRAGILE) == written(fragile, GOOD)


def test_a_full_disk_is_said_and_the_next_call_completes(fragile: Workflow) -> None:
    """A limit on the size of files stands in for the disk: the same error, at the same place."""
    target = f"{FRAGILE}/pruned.safetensors"
    command = [sys.executable, "-m", "snakemake", target, "--cores", "1"]
    limited = 'ulimit -f 40; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", limited, "bash", *command, "--configfile", "study.yaml"],
        cwd=fragile.folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "error: no space left to write to" in output
    assert "Traceback" not in output
    assert written(fragile, FRAGILE) == set()
    completes(fragile, target)
    assert {"pruned.safetensors", "pruning.json"} == written(fragile, FRAGILE)


def test_a_killed_snakemake_is_called_again(fragile: Workflow) -> None:
    """With the job still running that it had started, as after the loss of a login session."""
    target = f"{FRAGILE}/pruned.safetensors"
    (fragile.folder / "wait").touch()
    command = [sys.executable, "-m", "snakemake", target, "--cores", "1"]
    process = subprocess.Popen(
        [*command, "--configfile", "study.yaml"], cwd=fragile.folder, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(fragile.folder / "waiting")
        process.kill()
        process.wait()
        (fragile.folder / "wait").unlink()
        locked = fragile.snakemake(target)
        assert locked.code != 0
        assert "--unlock" in locked.output
        assert fragile.snakemake("--unlock").code == 0
        completes(fragile, target)
    finally:
        with suppress(ProcessLookupError):  # the next call's job has waited for the first to end
            os.killpg(process.pid, signal.SIGKILL)
    assert written(fragile, FRAGILE) == {"pruned.safetensors", "pruning.json"}


def test_snakemake_ends_when_told_to_while_it_looks_after_its_jobs(study: Workflow) -> None:
    """It holds the lock then that its handler of SIGTERM waits for: it did not end."""
    summary = "results/small/summary.csv"
    command = [sys.executable, "-c", TOLD_TO_END, summary, "--forcerun", "summary", "--cores", "1"]
    done = subprocess.run(
        [*command, "--configfile", "study.yaml"],
        cwd=study.folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Will exit after finishing currently running jobs" in done.stderr, done.stderr
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_a_sample_of_the_faults(study: Workflow, finished_study: Workflow) -> None:
    """`make faults` has hundreds; here one of each kind that ends a call, one after the other."""
    sick, undisturbed = Sick(study, "small"), Sick(finished_study, "small")
    run = f"{RUNS}/dass/2of4"
    pruned, result = f"{run}/pruned.safetensors", f"{run}/perplexity.json"
    for targets, file, event, do, rule in (
        ([pruned], pruned, "rename", "job SIGKILL", "prune_run"),
        ([pruned], f"{run}/pruning.json", "write", "all SIGTERM", "prune_run"),
        # The job that is forced brings along what the killed one took with it.
        ([result], result, "write", "full 50", "perplexity"),
        ([result], result, "write", "error EIO", "perplexity"),
    ):
        fault = Fault(do, targets[0], file, event, do)
        finished = sick.suffers(fault, *targets, "--forcerun", rule)
        assert not (study.folder / file).exists(), finished.output
        assert "Traceback" not in finished.output
    sick.completes("all")
    sick.completes("verify")
    assert sick.values() == undisturbed.values()
    assert sick.leftovers() == []


def test_what_a_failed_job_took_along_is_made_again(study: Workflow) -> None:
    """Nothing that was made from it stays as if the config had not changed."""
    sick, settings = Sick(study, "small"), small_study()
    settings["calibrations"]["toy"]["seed"] = 7
    study.write_study(settings)
    tokens, other = (
        f"results/small/calibration/standin-{name}/toy.safetensors" for name in ("llama", "mistral")
    )
    for file in (tokens, other):
        sick.suffers(Fault("", file, file, "rename", "job SIGKILL"))
    result = f"{RUNS}/dass/2of4/perplexity.json"
    refused = study.snakemake(result, "--dry-run")
    assert f"error: {result}: was made from {tokens}, which is gone" in refused.output
    assert "Traceback" not in refused.output
    assert refused.code != 0
    both = {"calibration_tokens": 1, "prune_run": 1, "perplexity": 1}
    assert study.plan(result, tokens) == both
    everything = study.plan()
    assert (everything["calibration_tokens"], everything["prune_run"]) == (2, 4)
    assert study.plan("prune") == {"calibration_tokens": 2, "prune_run": 4, "prune": 1}
    study.forked("all")
    assert study.plan() == {}
    completes(study, "verify")


def test_what_comes_from_another_model_is_stale_while_it_is_gone(study: Workflow) -> None:
    """The folder may be gone to free the disk; not so if it is to come from elsewhere."""
    shutil.rmtree(study.folder / "resources")
    assert study.plan() == {}
    settings = small_study()
    settings["standins"]["steps"] = 5
    plan = study.plan(config=study.write_study(settings, "changed.yaml"))
    assert (plan["train_standin"], plan["zero_shot_requests"], plan["prune_run"]) == (2, 2, 4)


def wait_for(file: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end, f"{file} does not come"
        time.sleep(0.1)
