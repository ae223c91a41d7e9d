"""Runs real snakemake on copies of the workflow, with a study that is small but whole."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from .dry_runs import dry_run

ROOT = Path(__file__).parents[2]
PARTS = ["Snakefile", "rules", "workflow", "config", "src", "envs", "profiles"]


def small_study() -> dict:
    """The demo's study with two models, two methods, and little of everything."""
    study = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    study["study"] = "small"
    study["standins"] = {"seed": 0, "documents": 400, "steps": 4}
    study["calibrations"]["toy"] |= {"sequences": 8, "length": 64}
    study["perplexity"] |= {"length": 64, "splits": ["validation", "test"]}
    del study["models"]["standin-gemma"]
    for model in study["models"].values():
        model["zero_shot_limit"] = 10
    for method in ("magnitude", "sparsegpt"):
        del study["methods"][method]
    main = study["experiments"]["main"] | {"methods": ["wanda", "dass"], "patterns": ["2of4"]}
    study["experiments"] = {"main": main}
    del study["speed"], study["blocks"]  # test_speed.py and test_blocks.py have their own
    return study


@dataclass
class Finished:
    """A finished call of snakemake."""

    code: int
    output: str

    @property
    def jobs(self) -> Counter[str]:
        """Jobs by rule, from the table that snakemake prints before it starts."""
        table = re.search(r"^job +count\n[- ]+\n((?:\w+ +\d+\n)+)", self.output, re.MULTILINE)
        if table is None:
            return Counter()
        rows = (line.split() for line in table[1].splitlines())
        return Counter({name: int(count) for name, count in rows if name != "total"})


@dataclass
class Workflow:
    """A folder with the workflow and whatever it has made."""

    folder: Path

    def snakemake(self, *arguments: str, config: str = "study.yaml", cores: int = 2) -> Finished:
        """Run snakemake here; the config file may be another one."""
        given = [*arguments, "--cores", str(cores), "--configfile", config]
        if "--dry-run" in arguments:
            return Finished(*dry_run(given, self.folder))
        command = [sys.executable, "-m", "snakemake", *given]
        # The same jobs on a machine with a GPU, unless a test says otherwise.
        environment = {"DASS_SPEED_GPU": "0"} | os.environ
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout + done.stderr)

    def forked(self, *targets: str, config: str = "study.yaml") -> None:
        """Do and record the jobs of these targets, in a fraction of the time Snakemake takes.

        That its results are the same, and that Snakemake then knows of them, is test_plan.py's.
        """
        environment = {"DASS_SPEED_GPU": "0"} | os.environ
        for command in forked_commands(config, *targets):
            done = subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, text=True,
                timeout=600, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr

    def plan(self, *arguments: str, config: str = "study.yaml") -> Counter[str]:
        """The jobs that a call would run."""
        finished = self.snakemake(*arguments, "--dry-run", config=config)
        assert finished.code == 0, finished.output
        return finished.jobs

    def write_study(self, study: dict, name: str = "study.yaml") -> str:
        """Write a config file; returns its name."""
        (self.folder / name).write_text(yaml.safe_dump(study, sort_keys=False))
        return name

    def copied(self, folder: Path, *left_out: str) -> Workflow:
        """A copy in a new folder, times of files included, without what has these names."""
        ignored = shutil.ignore_patterns(*left_out)
        shutil.copytree(self.folder, folder, copy_function=shutil.copy2, ignore=ignored)
        return Workflow(folder)

    def append(self, file: str, line: str) -> None:
        """Change one line of a file of the workflow."""
        path = self.folder / file
        path.write_text(path.read_text() + line + "\n")

    def results(self) -> list[str]:
        """All result files, relative to the folder; not what is recorded of them."""
        found = (self.folder / "results").rglob("*")
        files = (path for path in found if path.is_file() and ".sha256" not in path.parts)
        return sorted(str(path.relative_to(self.folder)) for path in files)


def forked_commands(config: str, *targets: str) -> Iterator[list[str]]:
    """Plan the jobs of the targets, do them in forks of one process, and tell Snakemake."""
    for name, *arguments in (
        ["plan", config, "jobs.json", *targets],
        ["run_plan", "jobs.json", "--workers", "2"],
        ["plan", config, "jobs.json", "--record"],
    ):
        yield [sys.executable, f"workflow/scripts/{name}.py", *arguments]


def copy_workflow(folder: Path) -> Workflow:
    """The workflow alone, with nothing made yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, folder / part, ignore=ignored)
        else:
            shutil.copy2(source, folder / part)
    return Workflow(folder)


def write_model_folder(folder: Path) -> None:
    """What a plan looks at of a model in a folder of the user's own: enough for dry runs."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file({"model.norm.weight": torch.ones(8)}, folder / "model.safetensors")


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The small study, run to its end. Tests must not change it: see `study`.

    One worker makes it while the others wait, and each has a copy of its own.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "finished").exists():
            _finish(shared / "unfinished").rename(shared / "finished")
    return Workflow(shared / "finished").copied(tmp_path_factory.mktemp("workflow") / "study")


def _finish(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)  # of a worker that could not finish it
    workflow = copy_workflow(folder)
    workflow.write_study(small_study())
    finished = workflow.snakemake()
    assert finished.code == 0, finished.output
    return folder


@pytest.fixture
def study(finished_study: Workflow, tmp_path: Path) -> Workflow:
    """A copy of the finished small study, times of files included, to change at will."""
    return finished_study.copied(tmp_path / "study")


@pytest.fixture
def fresh(tmp_path: Path) -> Workflow:
    """The workflow with nothing made yet."""
    workflow = copy_workflow(tmp_path / "fresh")
    workflow.write_study(small_study())
    return workflow
