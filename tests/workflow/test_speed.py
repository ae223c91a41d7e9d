"""Speed benchmarks as rules: in a study only where it asks, in the DAG only where they can run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dass.models.shape import Shape
from dass.speed.results import make_result, write_speed
from dass.speed.timing import Measurement, Outcome

from .conftest import Workflow, small_study

SIZES = {"hidden": 64, "intermediate": 128, "heads": 4, "key_value_heads": 2, "blocks": 2}


def speed_study(**changes: Any) -> dict[str, Any]:
    speed = {
        "shapes": {"mine": SIZES},
        "metric": {"of": "all", "repeats": 1},
        "gpu": {"of": ["mine", "standin-llama"], "tokens": [128]},
        "cpu": {"of": ["mine"], "parts": ["mlp"], "patterns": ["u50", "2of4"], "tokens": [1],
                "repeats": 2, "threads": 1},
    }  # fmt: skip
    return small_study() | {"speed": speed | changes}


def write_prefill(file: Path, subject: str) -> None:
    """What a GPU might have said of a run."""
    measured = [
        Measurement("prefill", engine, variant, 128, "float16", [seconds] * 3, "graph")
        for engine, variant, seconds in (("torch", "dense", 0.02), ("packed", "2of4", 0.01))
    ]
    settings = SimpleNamespace(pattern="2of4")
    write_speed(file, make_result("gpu", subject, Shape(**SIZES), settings, Outcome(measured)))


def test_a_study_without_the_block_measures_nothing(finished_study: Workflow) -> None:
    assert not (finished_study.folder / "results/small/speed").exists()


def test_benchmarks_end_in_tables_figures_and_the_report(
    study: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASS_SPEED_GPU", "0")
    config = study.write_study(speed_study(), "speed.yaml")
    jobs = {"speed_metric": 4, "speed_cpu": 1, "speed_tables": 3, "speed_figures": 1}
    assert study.plan(config=config) == jobs | {"report": 1, "all": 1}
    study.forked("all", config=config)

    folder = study.folder / "results/small/speed"
    tables = {path.stem: path.read_text() for path in (folder / "tables").glob("*.md")}
    assert "not measured here" in tables["gpu"]
    assert [path.name for path in (folder / "figures").iterdir()] == ["cpu.pdf"]
    assert "not measured here" not in tables["cpu"] + tables["metric"]
    assert "torch CSR 2:4" in tables["cpu"] and "onnxruntime dense" in tables["cpu"]
    assert "1 threads" in tables["cpu"]
    assert "Stand-in Mistral" in tables["metric"] and "Wanda" in tables["metric"]
    page = (study.folder / "results/small/report.html").read_text()
    assert "Speed: 2:4 on a GPU" in page and "Not measured here" in page

    result = json.loads((folder / "cpu" / "mine.json").read_text())
    assert result["settings"]["threads"] == 1
    assert all(len(one["seconds"]) == 2 for one in result["measurements"])
    assert study.plan(config=config) == {}

    tried = speed_study()
    tried["methods"]["dass-a0.25"] = {"function": "dass", "alpha": 0.25, "label": "DaSS, 0.25"}
    tried["experiments"]["main"]["methods"].append("dass-a0.25")
    jobs = study.plan("speed", config=study.write_study(tried, "tried.yaml"))
    assert jobs == {"speed_metric": 2, "speed_tables": 3, "speed_figures": 1, "speed": 1}

    study.append("src/dass/report/speed_tables.py", "# changed")
    assert set(study.plan(config=config)) == {"speed_tables", "speed_figures", "report", "all"}


def test_where_there_is_a_gpu_its_benchmarks_are_part_of_the_study(
    study: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASS_SPEED_GPU", "1")
    config = study.write_study(speed_study(), "speed.yaml")
    jobs = study.plan(config=config)
    assert jobs["speed_gpu"] == 2
    assert jobs["speed_prefill"] == 2  # wanda and dass of the model, none of the mere shape
    assert jobs["speed_accuracy"] == 1  # prefill: at 128 tokens decode is not measured

    runs = [f"standin-llama/toy/{method}" for method in ("wanda", "dass")]
    for subject in runs:
        write_prefill(study.folder / f"results/small/speed/prefill/{subject}/2of4.json", subject)
    tables = "results/small/speed/tables/prefill"
    study.forked(f"{tables}.md", config=config)
    written = (study.folder / f"{tables}.md").read_text()
    assert "DaSS, packed" in written and "2.00 ± 0" in written and "stand-ins" in written
    assert (study.folder / "results/small/speed/figures/prefill.pdf").read_bytes()[:4] == b"%PDF"
    assert study.plan(f"{tables}.md", config=config) == {}
    again = {"speed_accuracy": 1}
    study.append("src/dass/report/speed_accuracy_figure.py", "# changed")
    assert study.plan(f"{tables}.md", config=config) == again
    study.append("src/dass/pruning/methods/dass.py", "# changed")
    anew = again | dict.fromkeys(("prune_run", "perplexity", "zero_shot", "speed_prefill"), 1)
    assert study.plan(f"{tables}.md", config=config) == anew


def test_the_target_speed_prunes_for_prefill_only(
    fresh: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASS_SPEED_GPU", "1")
    jobs = fresh.plan("speed", config="config/demo.yaml")  # whose prefill is off
    assert (jobs["speed_metric"], jobs["speed_gpu"], jobs["speed_cpu"]) == (4, 1, 1)
    assert "prune_run" not in jobs and "speed_prefill" not in jobs
    jobs = fresh.plan("speed", config=fresh.write_study(speed_study(), "speed.yaml"))
    assert jobs["prune_run"] == jobs["speed_prefill"] == 2


def test_a_gpu_benchmark_without_a_gpu_ends_in_one_line(study: Workflow) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    config = study.write_study(speed_study(), "speed.yaml")
    finished = study.snakemake("results/small/speed/gpu/mine.json", config=config)
    assert finished.code != 0
    assert "speed_gpu mine | error: there is no GPU here" in finished.output
    assert "Traceback" not in finished.output
