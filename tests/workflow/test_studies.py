"""The studies that come with the project: what they ask for; none inherits from another."""

from __future__ import annotations

import pytest

from .conftest import Workflow, write_model_folder

PAPER = ["llama2-7b", "llama2-13b", "llama2-70b", "llama3.1-8b", "mistral-7b", "gemma-7b"]


def test_the_papers_study_has_the_full_grid(fresh: Workflow) -> None:
    finished = fresh.snakemake("--dry-run", config="config/config.yaml")
    assert finished.code == 0, finished.output
    ablations = 106  # of one model, without zero-shot tasks
    assert finished.jobs["prune_run"] == 6 * 4 * 3 + ablations
    assert finished.jobs["zero_shot"] == 6 * (1 + 4 * 3)
    assert finished.jobs["perplexity"] == 6 * (1 + 4 * 3) + ablations
    assert finished.jobs["fetch_model"] == 6
    assert finished.jobs["check_dense"] == 4  # those with a published dense perplexity
    assert all(model in finished.output for model in PAPER)


def test_the_small_study_is_planned_whole(fresh: Workflow) -> None:
    finished = fresh.snakemake("--dry-run", config="config/small.yaml")
    assert finished.code == 0, finished.output
    assert finished.jobs["prune_run"] == 3 * 4 * 3
    assert finished.jobs["perplexity"] == finished.jobs["zero_shot"] == 3 * (1 + 4 * 3)
    assert finished.jobs["fetch_model"] == finished.jobs["calibration_tokens"] == 3
    assert "check_dense" not in finished.jobs
    assert not any(model in finished.output for model in PAPER)


def test_your_own_model_is_the_only_one(fresh: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model_folder(fresh.folder / "my-model")
    monkeypatch.setenv("MODEL", "my-model")
    jobs = fresh.plan(config="config/own.yaml")
    assert jobs["prune_run"] == 2 * 2
    assert jobs["perplexity"] == jobs["zero_shot"] == 1 + 2 * 2
    assert jobs["calibration_tokens"] == 1 and jobs["fetch_dataset"] == 7
    assert "fetch_model" not in jobs and jobs.total() < 35
    monkeypatch.delenv("MODEL")
    refused = fresh.snakemake("--dry-run", config="config/own.yaml")
    assert refused.code != 0 and refused.output.strip().splitlines()[-1].startswith(
        "error: models.my-model.path: environment variable MODEL is not set; set it"
    )


def test_the_demo_inherits_nothing_from_the_paper(fresh: Workflow) -> None:
    finished = fresh.snakemake("--dry-run", config="config/demo.yaml")
    assert finished.jobs["prune_run"] == 3 * 4 * 3 + 9
    assert finished.jobs["perplexity"] == 3 * (1 + 4 * 3) + 9
    assert not any(rule.startswith("fetch") for rule in finished.jobs)
    # The sizes of one of the paper's models are timed, under its name; the model is not used.
    paths = [part for model in PAPER for part in (f"models/{model}", f"/{model}/")]
    assert not any(path in finished.output for path in paths)
