"""A look into decoder blocks as rules: jobs, files, the report, what is stale, what is verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dass.errors import DataError
from dass.results.verify import verify

from .conftest import Workflow, small_study
from .test_verify import MODELS, STUDY, TASKS, TEXTS, flip

LOOK = {"activations": 1, "block_errors": 2, "block_tables": 1, "block_figures": 1}
FILES = [
    *("activations/standin-llama/toy.json", "activations/standin-llama/toy.safetensors"),
    *(f"figures/blocks/{name}.pdf"
      for name in ("glu_error", "hidden_error", "kept", "norms", "outliers")),
    *(f"runs/standin-llama/toy/{method}/2of4/blocks.json" for method in ("dass", "wanda")),
    *(f"tables/blocks/{name}.{form}"
      for name in ("glu_error", "hidden_error") for form in ("md", "tex")),
]  # fmt: skip


def blocks_study(**changes: Any) -> dict[str, Any]:
    blocks = {
        "models": ["standin-llama"], "calibration": "toy", "methods": ["wanda", "dass"],
        "patterns": ["2of4"], "windows": 3,
    }  # fmt: skip
    return small_study() | {"blocks": blocks | changes}


def test_the_demo_looks_into_one_stand_in(fresh: Workflow) -> None:
    jobs = fresh.plan(config="config/demo.yaml")
    assert {rule: jobs[rule] for rule in LOOK} == LOOK | {"block_errors": 3}


def test_a_study_without_the_block_has_no_such_job(fresh: Workflow) -> None:
    assert not LOOK.keys() & fresh.plan().keys()
    refused = fresh.snakemake("results/small/tables/blocks/glu_error.md", "--dry-run")
    assert refused.code != 0
    assert "no 'blocks' in experiments; there are: main" in refused.output


def test_the_target_blocks_prunes_what_it_shows(fresh: Workflow) -> None:
    config = fresh.write_study(blocks_study())
    jobs = fresh.plan("blocks", config=config)
    assert jobs == LOOK | {
        "blocks": 1, "prune_run": 2, "calibration_tokens": 1, "evaluation_tokens": 1,
        "train_standin": 1, "toy_corpus": 1,
    }  # fmt: skip
    chosen = fresh.plan("blocks", "--config", "select={methods: [dass]}", config=config)
    assert (chosen["block_errors"], chosen["prune_run"]) == (1, 1)
    none = fresh.plan("blocks", "--config", "select={models: [standin-mistral]}", config=config)
    assert none == {"blocks": 1}


def test_blocks_end_in_tables_figures_and_the_report(
    study: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = study.results()
    config = study.write_study(blocks_study())
    assert study.plan(config=config) == LOOK | {"report": 1, "all": 1}
    study.forked("all", config=config)
    folder = study.folder / "results/small"
    made = [f"results/small/{name}" for name in FILES]
    assert study.results() == sorted({*before, *made})
    table = (folder / "tables/blocks/glu_error.md").read_text()
    assert "3 windows of 64 tokens of the validation split of toy-text" in table
    page = (folder / "report.html").read_text()
    assert "What pruning" in page or "Relative error of each block" in page
    result = json.loads((folder / FILES[7]).read_text())
    assert (result["windows"], result["tokens"]) == (3, 192)
    assert study.plan(config=config) == {}

    _is_verified(study, monkeypatch)

    for module, stale in {
        "evaluation/block_errors": {"block_errors", "block_tables", "block_figures", "report"},
        "report/block_figures": {"block_figures", "report"},
        "stages/activations": set(LOOK) | {"report"},
    }.items():
        path = study.folder / f"src/dass/{module}.py"
        kept = path.read_text()
        path.write_text(kept + "# changed\n")
        assert set(study.plan(config=config)) == stale | {"all"}, module
        path.write_text(kept)
    more = study.write_study(blocks_study(windows=2), "more.yaml")
    assert set(study.plan(config=more)) == {
        "block_errors", "block_tables", "block_figures", "report", "all",
    }  # fmt: skip
    (folder / FILES[1]).unlink()
    assert set(study.plan("blocks", config=config)) == {*LOOK, "blocks"}


def _is_verified(study: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped bit in any of the new files is found."""
    monkeypatch.chdir(study.folder)
    count = verify(STUDY, MODELS, TEXTS, TASKS)
    for name in FILES:
        file = Path(STUDY, name)
        flip(file, file.stat().st_size // 2)
        with pytest.raises(DataError, match=file.name):
            verify(STUDY, MODELS, TEXTS, TASKS)
        flip(file, file.stat().st_size // 2)
    assert verify(STUDY, MODELS, TEXTS, TASKS) == count
