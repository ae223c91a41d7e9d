"""The script of every rule: which of a job's params, files, threads and cards reach its stage."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.unit.bad_inputs.good import SCRIPT, unchanged_process


def called(
    stage: str, params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> dict[str, Any]:
    """What a stage is given by the script, and the environment that it runs in."""
    found: dict[str, Any] = {}

    def function(*, model: Any, threads: Any = "none", out: Any, number: int = 0) -> None:
        found.update(model=model, threads=threads, out=out, number=number, env=dict(os.environ))

    module = ModuleType(f"dass.stages.{stage}")
    setattr(module, stage, function)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    job = {
        "params": {"stage": stage} | params, "input": {"model": "a file", "modules": ["m.py"]},
        "output": {"out": "o"}, "log": [str(tmp_path / "log")], "threads": 3, "resources": {},
    } | more  # fmt: skip
    with unchanged_process():
        for name in ("HF_HUB_OFFLINE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
            os.environ.pop(name, None)
        runpy.run_path(str(SCRIPT), init_globals={"snakemake": SimpleNamespace(**job)})
    return found


def test_params_come_first_and_of_the_files_those_that_the_stage_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = called("look", {"number": 7}, tmp_path, monkeypatch)
    assert (found["model"], found["out"], found["number"]) == ("a file", "o", 7)
    found = called("look", {"model": "a param"}, tmp_path, monkeypatch)
    assert (found["model"], found["number"], found["threads"]) == ("a param", 0, "none")


@pytest.mark.parametrize(
    ("params", "given", "computed_with"),
    [({}, "none", "3"), ({"threads": None}, 3, "3"), ({"threads": 2}, 2, "2")],
)
def test_threads_are_those_of_the_job_unless_a_param_says_how_many(
    params: dict[str, Any], given: Any, computed_with: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = called("look", params, tmp_path, monkeypatch)
    assert found["threads"] == given
    assert found["env"]["OMP_NUM_THREADS"] == computed_with


@pytest.mark.parametrize(("stage", "offline"), [("look", True), ("fetch_look", False)])
def test_only_stages_that_fetch_see_the_network(
    stage: str, offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = called(stage, {}, tmp_path, monkeypatch)
    assert ("HF_HUB_OFFLINE" in found["env"]) == offline


@pytest.mark.parametrize(("gpus", "visible"), [({}, None), ({"gpu": 0}, ""), ({"gpu": 1}, "5")])
def test_a_job_sees_as_many_cards_as_it_asks_for(
    gpus: dict[str, int], visible: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASS_GPUS", "5")
    monkeypatch.setenv("SLURM_JOB_ID", str(tmp_path).replace("/", "-"))  # locks of its own
    found = called("look", {}, tmp_path, monkeypatch, resources=gpus)
    assert found["env"].get("CUDA_VISIBLE_DEVICES") == visible
