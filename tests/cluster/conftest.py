"""A Slurm for the tests of this folder, and a study with jobs that fail there when told to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ..workflow.conftest import Workflow, copy_workflow, small_study
from .slurm import Slurm, slurm, why_not

METHODS = '''\
"""The paper's methods, in jobs that behave badly."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from dass.pruning.methods.dass import DaSS
from dass.pruning.methods.wanda import Wanda

SEEN = []


@dataclass(frozen=True)
class Hungry(Wanda):
    """Takes 1.5 GB more than a small model's job does: too much for what it gets at first."""

    def score(self, role, weight, statistics):
        if not SEEN:
            SEEN.append(b"x" * (1500 << 20))
            time.sleep(5)
            SEEN[0] = b""
        return super().score(role, weight, statistics)


@dataclass(frozen=True)
class Waiting(DaSS):
    """Goes on when the file `go` is there; within three minutes."""

    def score(self, role, weight, statistics):
        if not Path("go").exists():
            Path("waiting-" + os.environ["SLURM_JOB_ID"]).touch()
        for _ in range(1800):
            if Path("go").exists():
                return super().score(role, weight, statistics)
            time.sleep(0.1)
        raise TimeoutError("nobody said go")
'''


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A running Slurm; one at a time on a machine: all are configured in the same place."""
    if reason := why_not():
        pytest.skip(reason)
    with FileLock("/tmp/dass-test-slurm.lock"), slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def cluster_study() -> dict[str, Any]:
    """The small study with one model and two methods."""
    study = small_study()
    del study["models"]["standin-mistral"]
    for name in ("Hungry", "Waiting"):
        study["methods"][name.lower()] = {"function": f"badly:{name}", "label": name}
    del study["methods"]["wanda"], study["methods"]["dass"]
    study["experiments"]["main"] |= {"models": ["standin-llama"]}
    study["experiments"]["main"]["methods"] = ["hungry", "waiting"]
    return study


def cluster_workflow(folder: Path) -> Workflow:
    """The workflow with that study, and profiles/slurm set up for this cluster."""
    workflow = copy_workflow(folder)
    workflow.write_study(cluster_study())
    (folder / "badly.py").write_text(METHODS)
    adapt(folder / "profiles/slurm/config.yaml", partition="main", gpu_partition="cards",
          gpu_model="a100")  # fmt: skip
    return workflow


def adapt(profile: Path, **values: str) -> None:
    """Set a profile's variables, and look at the queue more often than is polite elsewhere."""
    text = profile.read_text()
    quick = {"slurm-init-seconds-before-status-checks": "5", "max-status-checks-per-second": "1"}
    for name, value in (values | quick).items():
        text, found = re.subn(rf"^( *{name}:) [^ #\n]+", rf"\1 {value}", text, count=1, flags=re.M)
        assert found == 1, name
    profile.write_text(text)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", *arguments, "--configfile", "study.yaml"]


def environment(folder: Path) -> dict[str, str]:
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Call:
    """A call of snakemake that is under way."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._log = folder / "snakemake.out"
        with self._log.open("w") as out:
            self.process = subprocess.Popen(
                command(*arguments), cwd=folder, env=environment(folder), stdout=out, stderr=out
            )

    def finish(self, seconds: float = 300) -> str:
        """Wait for its good end; what it printed."""
        code = self.process.wait(seconds)
        assert code == 0, self.output
        return self.output

    @property
    def output(self) -> str:
        return self._log.read_text()


@contextmanager
def submitted(folder: Path, *arguments: str) -> Iterator[Call]:
    """Snakemake with profiles/slurm; ended, if a test does not see its end."""
    call = Call(folder, "--workflow-profile", "profiles/slurm", *arguments)
    try:
        yield call
    finally:
        if call.process.poll() is None:
            call.process.kill()
            call.process.wait()
