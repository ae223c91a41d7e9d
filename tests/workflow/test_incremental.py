"""What runs again after a change, and what does not."""

from __future__ import annotations

import json
import re

import pytest

from .conftest import Workflow, small_study

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("workflow")]

ENDS = {
    "summary_of_model": 2,
    "summary": 1,
    "tables_of_experiment": 1,
    "figures_of_experiment": 1,
    "report": 1,
    "all": 1,
}


def test_the_study_ends_in_its_tables(finished_study: Workflow) -> None:
    results = set(finished_study.results())
    wanted = {
        "results/small/summary.csv",
        "results/small/report.html",
        "results/small/report.pdf",
        "results/small/tables/main/perplexity.tex",
        "results/small/tables/main/perplexity.md",
        "results/small/tables/main/zero_shot.tex",
        "results/small/figures/main/perplexity.pdf",
        "results/small/runs/standin-llama/dense/zero_shot.json",
        "results/small/runs/standin-mistral/toy/dass/2of4/pruned.safetensors",
    }
    assert wanted <= results
    assert not [name for name in results if name.endswith(".part")]


def test_tables_say_what_the_models_are(finished_study: Workflow) -> None:
    for kind in ("perplexity", "zero_shot"):
        table = (finished_study.folder / f"results/small/tables/main/{kind}.tex").read_text()
        assert "stand-ins" in table
    assert "10" in re.findall(r"[Aa]t most (\d+)", table)  # the limit stands in the caption


def test_results_say_how_they_came_to_be(finished_study: Workflow) -> None:
    run = finished_study.folder / "results/small/runs/standin-llama/toy/dass/2of4"
    pruning = json.loads((run / "pruning.json").read_text())
    perplexity = json.loads((run / "perplexity.json").read_text())
    assert pruning["settings"]["arguments"] == {"alpha": 0.5}
    assert set(pruning["sparsity"].values()) == {0.5}
    assert perplexity["mask_hash"] == pruning["mask_hash"]
    assert set(perplexity["splits"]) == {"validation", "test"}


def test_a_second_call_runs_nothing(study: Workflow) -> None:
    finished = study.snakemake()
    assert finished.code == 0
    assert "Nothing to be done" in finished.output


def test_a_changed_method_makes_its_own_runs_stale_and_no_others(study: Workflow) -> None:
    study.append("src/dass/methods/dass.py", "# changed")
    finished = study.snakemake("--dry-run")
    assert finished.jobs == {"prune_run": 2, "perplexity": 2, "zero_shot": 2} | ENDS
    pruned = set(re.findall(r"Pruning (\S+) by (\S+) to (\S+)", finished.output))
    assert pruned == {("standin-llama", "dass", "2of4"), ("standin-mistral", "dass", "2of4")}


def test_changed_tables_make_tables_only(study: Workflow) -> None:
    study.append("src/dass/tables.py", "# changed")
    assert study.plan() == ENDS


def test_a_changed_comment_in_config_runs_nothing(study: Workflow) -> None:
    study.append("study.yaml", "# a remark")
    assert study.plan() == {}


def test_a_new_alpha_runs_only_what_is_new(study: Workflow) -> None:
    settings = small_study()
    settings["methods"]["dass-a0.25"] = {"function": "dass", "alpha": 0.25}
    settings["experiments"]["main"]["methods"].append("dass-a0.25")
    config = study.write_study(settings, "alpha.yaml")
    assert study.plan(config=config) == {"prune_run": 2, "perplexity": 2, "zero_shot": 2} | ENDS


def test_a_changed_argument_makes_its_method_stale(study: Workflow) -> None:
    settings = small_study()
    settings["methods"]["dass"]["alpha"] = 1.0
    config = study.write_study(settings, "alpha.yaml")
    assert study.plan(config=config) == {"prune_run": 2, "perplexity": 2, "zero_shot": 2} | ENDS


def test_one_model_asked_for_runs_that_model_only(fresh: Workflow) -> None:
    finished = fresh.snakemake("results/small/summary/standin-mistral.csv", "--dry-run")
    assert finished.jobs == {
        "world": 1,
        "train_standin": 1,
        "calibration_tokens": 1,
        "evaluation_tokens": 1,
        "prune_run": 2,
        "perplexity": 3,
        "zero_shot": 3,
        "summary_of_model": 1,
    }
    assert "standin-llama" not in finished.output


def test_select_restricts_models_methods_and_patterns(fresh: Workflow) -> None:
    select = "select={models: [standin-mistral], methods: [dass]}"
    finished = fresh.snakemake("--dry-run", "--config", select)
    assert finished.jobs["prune_run"] == 1
    assert finished.jobs["perplexity"] == 2
    assert "standin-llama" not in finished.output


def test_export_is_a_target(study: Workflow) -> None:
    from transformers import AutoModelForCausalLM

    target = "results/small/exports/standin-llama/toy/dass/2of4"
    finished = study.snakemake(target)
    assert finished.code == 0, finished.output
    model = AutoModelForCausalLM.from_pretrained(study.folder / target)
    weight = model.model.layers[0].mlp.down_proj.weight
    assert (weight == 0).float().mean().item() == 0.5
