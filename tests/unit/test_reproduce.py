"""The pages of benchmarks: written from raw results, disk space by hand, commands as documented."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dass.config.load import read_config
from dass.speed.shapes import SHAPES

ROOT = Path(__file__).parents[2]
EMBEDDINGS = {
    "llama2-7b": 2 * 32000, "llama2-13b": 2 * 32000, "llama2-70b": 2 * 32000,
    "llama3.1-8b": 2 * 128256, "mistral-7b": 2 * 32000, "gemma-7b": 256000,
    "tinyllama-1.1b": 2 * 32000, "qwen2.5-0.5b": 151936, "smollm2-360m": 49152,
}  # fmt: skip
"""Rows of embeddings and head; one set where they are tied."""


def run_as_documented(*words: str) -> subprocess.CompletedProcess[str]:
    """From the root, without PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_pages_are_current() -> None:
    done = run_as_documented("benchmarks/tables.py", "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("study", ["config", "small"])
def test_shapes_have_the_parameters_that_the_config_says(study: str) -> None:
    for name, model in read_config(ROOT / f"config/{study}.yaml").models.items():
        shape = SHAPES[name.removeprefix("llama2-")]
        weights = shape.blocks * (shape.attention + shape.mlp) + EMBEDDINGS[name] * shape.hidden
        assert weights / 1e9 == pytest.approx(model.parameters, rel=0.01), name
        for group in (4, 8):  # 2:4 and 4:8 fit along both dimensions
            assert shape.hidden % group == shape.intermediate % group == 0


def test_disk_space_by_hand() -> None:
    page = (ROOT / "docs/reproduce.md").read_text()
    row = re.search(r"\| LLaMA2-7B \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", page)
    assert row is not None
    weights, run, sparsegpt, runs = map(float, row.groups())
    bits = 32 * 3 * 4096 * 11008
    assert weights == 13.5  # 6.74 billion parameters of two bytes
    assert run == pytest.approx(bits / 8e9, abs=0.05)
    assert sparsegpt == pytest.approx((bits / 8 + bits) / 1e9, abs=0.05)  # half of them, two bytes
    # The main grid's 12 and the ablations' 106 have masks. SparseGPT's have values, too: those of
    # 3, 15 draws, 4 numbers, 3 lengths, 2 propagations of half; of the sparsities 40, 30 and 20 %.
    values = (3 + 15 + 4 + 3 + 2) / 2 + 0.4 + 0.3 + 0.2
    assert runs == pytest.approx((118 * bits / 8 + values * 2 * bits) / 1e9, abs=0.05)


def test_raw_results_are_compact() -> None:
    for file in (ROOT / "benchmarks/results").glob("*.json"):
        assert len(file.read_text().splitlines()) == 1, file.name


@pytest.mark.workflow
def test_the_dag_is_timed_as_documented(tmp_path: Path) -> None:
    out = tmp_path / "dag.json"
    few = ["--repeats", "1", "--models", "2", "--seeds", "1", "--out", str(out)]
    done = run_as_documented("benchmarks/dag.py", *few)
    assert done.returncode == 0, done.stdout + done.stderr
    (paper, wide) = json.loads(out.read_text())["rows"]
    published = json.loads((ROOT / "benchmarks/results/dag.json").read_text())["rows"]
    assert (published[0]["study"], published[0]["jobs"]) == (paper["study"], paper["jobs"])
    assert wide["jobs"] > 2 * 12 * 3  # two models, each run pruned and evaluated twice


@pytest.mark.parametrize("page", ["performance.md", "reproduce.md"])
def test_benchmark_scripts_that_pages_name_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert (named := set(re.findall(r"benchmarks/\w+\.py", text)))
    assert all((ROOT / script).is_file() for script in named)
