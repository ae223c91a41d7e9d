"""The study on a real Slurm, with what goes wrong on clusters."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from dass.config.sizes import job_memory

from ..workflow.conftest import Workflow
from .conftest import cluster_study, cluster_workflow, command, environment, submitted
from .slurm import Slurm, Submitted, wait

WAITING = "rule_prune_run_wildcards_standin-llama_toy_waiting"
HUNGRY = "rule_prune_run_wildcards_standin-llama_toy_hungry"
OUT_OF_MEMORY = ("FAILED", "OUT_OF_MEMORY")
"""What Slurm calls it depends on who notices: its accounting, as here, or the kernel."""


@dataclass
class Done:
    """What a whole day of bad luck gave."""

    workflow: Workflow
    output: str
    killed: list[Submitted]
    """Slurm's jobs of the first call, which was killed."""
    jobs: list[Submitted]
    """Those of the second call, which came to its end."""


@pytest.fixture(scope="session")
def done(cluster: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A job runs out of time, another out of memory; snakemake is killed and called again; a job is
    cancelled; the controller is restarted; and the node goes away."""
    workflow = cluster_workflow(tmp_path_factory.mktemp("cluster") / "study")
    with submitted(workflow.folder) as call:
        cluster.end_time(in_the_middle(cluster, workflow.folder))
        cluster.wait_for(HUNGRY, *OUT_OF_MEMORY)
        cluster.wait_for(WAITING, "TIMEOUT")
        waiting = in_the_middle(cluster, workflow.folder)
        call.process.kill()
    # A job cancelled at its last breath has made its result and yet is not COMPLETED.
    cluster.wait_until_over(besides=waiting)
    killed = cluster.jobs()
    cluster.cancel(waiting)
    unlock(workflow.folder)
    with submitted(workflow.folder) as call:
        cluster.cancel(in_the_middle(cluster, workflow.folder))
        in_the_middle(cluster, workflow.folder)
        cluster.end_controller()
        time.sleep(5)
        cluster.start_controller()
        cluster.lose_node()
        (workflow.folder / "go").touch()
        output = call.finish()
    return Done(workflow, output, cluster.jobs()[: len(killed)], cluster.jobs()[len(killed) :])


def in_the_middle(cluster: Slurm, folder: Path) -> Submitted:
    """The job that waits, once it does."""
    job = cluster.wait_for(WAITING, "RUNNING")
    wait(lambda: (folder / f"waiting-{job.id}").exists(), f"job {job.id} does not come to wait")
    return job


@pytest.fixture(scope="session")
def local(done: Done, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The same study, with the models that the cluster has trained, run on this machine alone."""
    folder = tmp_path_factory.mktemp("local") / "study"
    shutil.copytree(done.workflow.folder, folder, copy_function=shutil.copy2)
    for made in ("results", "logs"):
        shutil.rmtree(folder / made)
    finished = subprocess.run(
        command("--cores", "2"), cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return Workflow(folder)


def unlock(folder: Path) -> None:
    done = subprocess.run(
        command("--unlock"), cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def of(jobs: list[Submitted], comment: str) -> list[Submitted]:
    return [job for job in jobs if job.comment.startswith(comment)]


def log_of(done: Done, job: Submitted) -> str:
    """What Slurm keeps of a job that failed."""
    (log,) = (done.workflow.folder / "logs/slurm").rglob(f"{job.id}.log")
    return log.read_text()


def memory_of_attempts() -> list[str]:
    """What pruning asks for at first, and when it is retried."""
    calibration = cluster_study()["calibrations"]["toy"]
    states = 2 * calibration["sequences"] * calibration["length"]  # and attention's outputs
    return [f"{n * job_memory(0.001, 'float32', states)}M" for n in (1, 2, 3)]


def test_every_job_was_a_job_of_slurms(done: Done) -> None:
    finished = {job.comment for job in done.killed + done.jobs if job.state == "COMPLETED"}
    counts = {
        rule: sum(comment.startswith(rule) for comment in finished)
        for rule in ("rule_prune_run", "rule_perplexity", "rule_zero_shot", "rule_inputs",
                     "rule_tables")
    }  # fmt: skip
    assert counts == {
        "rule_prune_run": 2,
        "rule_perplexity": 3,
        "rule_zero_shot": 3,
        "rule_inputs": 1,
        "rule_tables": 1,
    }
    assert len(finished) == 10


def test_tables_are_those_of_a_local_run(done: Done, local: Workflow) -> None:
    tables = sorted((local.folder / "results/small/tables").rglob("*.*"))
    assert len(tables) == 4
    for table in tables:
        mine = done.workflow.folder / table.relative_to(local.folder)
        assert mine.read_text() == table.read_text()


def test_a_job_that_was_cancelled_or_lost_its_node_is_retried_with_more(done: Done) -> None:
    attempts = of(done.jobs, WAITING)
    assert [job.state for job in attempts] == ["CANCELLED", "NODE_FAIL", "COMPLETED"]
    assert [job.memory for job in attempts] == memory_of_attempts()
    assert [job.limit for job in attempts] == ["10:00", "20:00", "30:00"]
    assert "ended from outside" in log_of(done, attempts[0])


def test_a_job_that_runs_out_of_time_gets_more(done: Done) -> None:
    first, second = of(done.killed, WAITING)
    assert first.state == "TIMEOUT"
    assert (second.memory, second.limit) == (memory_of_attempts()[1], "20:00")


def test_a_job_that_exceeds_its_memory_gets_more(done: Done) -> None:
    attempts = of(done.killed + done.jobs, HUNGRY)
    first = next(job for job in attempts if job.state in OUT_OF_MEMORY)
    last = attempts[-1]
    assert first.memory == memory_of_attempts()[0]
    assert "exceeded memory limit" in log_of(done, first)
    assert last.state == "COMPLETED" and last.memory in memory_of_attempts()[1:]


def test_gpu_jobs_ask_for_a_card_of_the_model_named_and_others_for_none(
    done: Done, cluster: Slurm
) -> None:
    for job in done.killed + done.jobs:
        asked = cluster.asked_for(job)
        if job.comment.startswith(("rule_prune_run", "rule_perplexity", "rule_zero_shot")):
            assert job.partition == "cards"
            assert "gres:gpu:a100:1" in asked
        else:
            assert job.partition == "main"
            assert "gpu" not in asked.replace("rule_", "")


def test_what_slurm_gave_is_what_the_job_computed_on(done: Done) -> None:
    log = done.workflow.folder / "logs/prune_run/small/standin-llama/toy/waiting/2of4.log"
    assert "on GPU" in log.read_text()
    assert "waiting for" not in log.read_text()


def test_nothing_half_written_is_left(done: Done) -> None:
    assert not [name for name in done.workflow.results() if name.endswith(".part")]
    for result in (done.workflow.folder / "results").rglob("*.json"):
        json.loads(result.read_text())
