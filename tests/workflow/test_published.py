"""Published numbers in a study: the gate on dense models, the table, and what makes what stale."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from .conftest import Workflow, small_study
from .test_bad_input import error_lines

HEAD = "table,model,method,pattern,split,metric,value,source"


def dense_perplexity(study: Workflow, model: str) -> float:
    path = study.folder / f"results/small/runs/{model}/dense/perplexity.json"
    return float(json.loads(path.read_text())["splits"]["test"]["perplexity"])


def publish(study: Workflow, *rows: str, **settings: object) -> str:
    """Write the file of published numbers and a study that names it."""
    (study.folder / "mine.csv").write_text("\n".join([HEAD, *rows, ""]))
    config = small_study() | {"published": {"file": "mine.csv", **settings}}
    return study.write_study(config, "published.yaml")


def dense_row(model: str, value: float) -> str:
    return f"t. 1,{model},dense,,test,perplexity,{value},A paper"


MODELS = ["standin-llama", "standin-mistral"]


def run_folder(study: Workflow, model: str) -> Path:
    return study.folder / f"results/small/runs/{model}/toy/dass/2of4"


def test_a_dense_model_that_is_off_stops_its_own_runs_and_no_others(study: Workflow) -> None:
    right = 1.01 * dense_perplexity(study, "standin-mistral")
    wrong = 1.5 * dense_perplexity(study, "standin-llama")
    rows = dense_row("standin-llama", wrong), dense_row("standin-mistral", right)
    config = publish(study, *rows)
    for model in MODELS:
        shutil.rmtree(run_folder(study, model))
    finished = study.snakemake("prune", config=config)
    assert finished.code != 0
    assert finished.jobs == {"check_dense": 2, "prune_run": 2, "prune": 1}
    (line,) = error_lines(finished)
    assert line.startswith("standin-llama: its dense perplexity is")
    assert "(A paper, t. 1; mine.csv): -33.3 % off" in line
    assert "models.standin-llama (revision, dtype, bos)" in line
    assert "published.gate: false" in line
    assert "Traceback" not in finished.output
    assert not run_folder(study, "standin-llama").exists()
    assert (run_folder(study, "standin-mistral") / "pruned.safetensors").exists()
    dense = study.folder / "results/small/runs/standin-llama/dense"
    assert sorted(path.name for path in dense.iterdir()) == ["perplexity.json", "zero_shot.json"]
    # Asked again it stops again; switched off it goes on; so it does with the right number.
    assert study.plan("prune", config=config) == {"check_dense": 1, "prune_run": 1, "prune": 1}
    off = ["--config", "published={gate: false}"]
    assert study.plan("prune", *off, config=config) == {"prune_run": 1, "prune": 1}
    publish(study, dense_row("standin-llama", wrong / 1.5), rows[1])
    finished = study.snakemake("prune", config=config)
    assert finished.code == 0, finished.output
    assert (run_folder(study, "standin-llama") / "pruned.safetensors").exists()
    (check,) = json.loads((dense / "checked.json").read_text())["checks"]
    assert abs(check["off"]) < 1e-6


def test_magnitude_is_gated_too(study: Workflow) -> None:
    settings = small_study() | {"published": {"file": "mine.csv"}}
    settings["methods"]["magnitude"] = {"function": "magnitude"}
    settings["experiments"]["main"]["methods"] = ["magnitude"]
    (study.folder / "mine.csv").write_text(f"{HEAD}\n{dense_row('standin-llama', 5.0)}\n")
    plan = study.plan("prune", config=study.write_study(settings, "published.yaml"))
    assert plan == {"check_dense": 1, "prune_run": 2, "prune": 1}


def test_what_a_published_number_makes_stale(study: Workflow) -> None:
    """Tables and the report; no mask, no evaluation, also where a dense perplexity is new."""
    dense = dense_row("standin-llama", dense_perplexity(study, "standin-llama"))
    config = publish(study, dense)
    ends = {"experiment_tables": 1, "report": 1, "all": 1}
    finished = study.snakemake(config=config)
    assert finished.code == 0, finished.output
    assert finished.jobs == ends
    tables = study.folder / "results/small/tables/main"
    assert "+0.00" in (tables / "published.md").read_text()
    assert "A paper, t. 1" in (tables / "published.tex").read_text()
    assert "A paper, t. 1" in (study.folder / "results/small/report.html").read_text()
    publish(study, dense, "t. 1,standin-llama,dass,2of4,test,perplexity,9.9,A paper")
    assert study.plan(config=config) == ends
    publish(study, dense, dense_row("standin-mistral", 5.0))
    assert study.plan(config=config) == ends
    # Another dtype is another model: its dense perplexity is measured and checked first.
    settings = small_study() | {"published": {"file": "mine.csv"}}
    settings["models"]["standin-llama"]["dtype"] = "bfloat16"
    plan = study.plan(config=study.write_study(settings, "half.yaml"))
    assert (plan["check_dense"], plan["perplexity"], plan["prune_run"]) == (1, 3, 2)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("t,x,dense,,test,perplexity,none,A", "mine.csv:2: value 'none' is no perplexity"),
        (None, "published.file: mine.csv cannot be read (No such file or directory)"),
    ],
)
def test_a_malformed_file_is_one_line_before_the_first_job(
    row: str | None, line: str, fresh: Workflow
) -> None:
    config = publish(fresh, row or "")
    if row is None:
        (fresh.folder / "mine.csv").unlink()
    finished = fresh.snakemake(config=config)
    assert finished.code != 0
    assert f"error: {line}" in finished.output
    assert "Traceback" not in finished.output
    assert not (fresh.folder / "results").exists()
