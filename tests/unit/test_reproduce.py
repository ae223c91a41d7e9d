"""docs/reproduce.md: written by its script, by formulas that agree with what was measured."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dass.config.load import read_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reproduce() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "benchmarks/reproduce.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reproduce"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current() -> None:
    command = [sys.executable, "benchmarks/reproduce.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("file", "shapes"), [("config.yaml", "PAPER"), ("small.yaml", "SMALL")])
def test_shapes_have_the_parameters_that_the_config_says(
    file: str, shapes: str, reproduce: ModuleType
) -> None:
    models = read_config(ROOT / "config" / file).models
    assert list(getattr(reproduce, shapes)) == list(models)
    for name, shape in getattr(reproduce, shapes).items():
        assert shape.parameters / 1e9 == pytest.approx(models[name].parameters, rel=0.01), name
        assert (shape.label, shape.limit) == (models[name].label, models[name].zero_shot_limit)
        for group in (4, 8):  # 2:4 and 4:8 fit along both dimensions
            assert shape.hidden % group == shape.inner % group == 0


@pytest.mark.parametrize("size", ["7b", "70b"])
def test_operations_are_those_of_the_benchmark(size: str, reproduce: ModuleType) -> None:
    shape = reproduce.MEASURED[size]
    rows = [row for row in reproduce.measurement(size)["rows"] if "operations" in row]
    assert rows
    for row in rows:
        gram = row["method"] == "sparsegpt"
        ours = reproduce.CALIBRATION * shape.operations(5 / 3, gram=gram)
        assert ours == pytest.approx(row["operations"], rel=1e-9)


def test_memory_and_scaled_seconds_agree_with_what_was_measured(reproduce: ModuleType) -> None:
    rows = re.findall(r"\| ([\d.]+) \| ([\d.]+) \|$", reproduce.agreement(), re.MULTILINE)
    assert len(rows) == 9
    for formula, measured in rows:
        assert float(formula) == pytest.approx(float(measured), rel=0.12)


def test_pruned_files_are_as_large_as_the_format_makes_them(reproduce: ModuleType) -> None:
    """LLaMA2-7B: 0.54 GB of masks (see dass.pruning.pruned_file)."""
    shape = reproduce.PAPER["llama2-7b"]
    assert reproduce.run_bytes(shape, "dass") / 1e9 == pytest.approx(0.54, abs=0.005)
    assert reproduce.run_bytes(shape, "sparsegpt") - reproduce.run_bytes(shape, "dass") == (
        32 * 3 * 4096 * 11008
    )


def test_a_slower_card_takes_longer_but_jobs_start_as_fast(reproduce: ModuleType) -> None:
    shape = reproduce.PAPER["mistral-7b"]
    fast, slow = (sum(reproduce.hours(shape, slower).values()) for slower in (1, 10))
    starting = 38 * 15 / 3600
    assert fast - starting > 0
    assert slow - starting < 10 * (fast - starting)
    assert slow > 5 * fast
