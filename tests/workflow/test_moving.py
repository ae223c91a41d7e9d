"""Results in another clone, and what a dry run says of a change; as docs/cluster.md writes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import Workflow, copy_workflow, small_study


def test_a_clone_with_results_and_records_runs_nothing(
    finished_study: Workflow, tmp_path: Path
) -> None:
    """Its sources are newer than the results, but the same."""
    clone = copy_workflow(tmp_path / "clone")
    for path in (p for p in clone.folder.rglob("*") if p.is_file()):
        path.touch()
    for part in ("results", "resources", ".snakemake"):
        shutil.copytree(finished_study.folder / part, clone.folder / part)
    clone.write_study(small_study())
    assert clone.plan() == {}


def test_copied_results_are_of_another_study_only_if_it_asks_for_the_same(study: Workflow) -> None:
    """Of a copy Snakemake has no record: it sees that the files are there, and no more."""
    shutil.copytree(
        study.folder / "results/small", study.folder / "results/other", copy_function=shutil.copy2
    )
    settings = small_study() | {"study": "other"}
    study.write_study(settings)
    assert study.plan() == {}
    run = "results/other/runs/standin-llama/toy/dass/2of4"
    for change, key, kind, says in (
        (
            settings["methods"]["dass"],
            "alpha",
            "pruning",
            r"arguments is {'alpha': 0.5}, not {'alpha': 0.9}",
        ),
        (settings["calibrations"]["toy"], "seed", "pruning", "seed is 0, not 9"),
        (settings["models"]["standin-llama"], "zero_shot_limit", "zero_shot", "limit is 10, not 9"),
    ):
        before = change.get(key)
        change[key] = 0.9 if key == "alpha" else 9
        study.write_study(settings)
        change[key] = before
        for more in ((), ("--touch",)):
            finished = study.snakemake(*(more or ("--dry-run",)))
            assert finished.code != 0
            assert (
                f"{kind}.json: {says} as the config asks, and Snakemake has no" in finished.output
            )
    assert (study.folder / run).exists()


DENSE = "runs/standin-llama/dense/perplexity.json"
MASKS = "runs/standin-llama/toy/dass/2of4/pruned.safetensors"
WINDOWS = "calibration/standin-llama/toy.safetensors"


@pytest.mark.parametrize(
    ("target", "block", "change", "says"),
    [
        (DENSE, "models", {"dtype": "bfloat16"}, f"{DENSE}: dtype is 'float32', not 'bfloat16'"),
        (DENSE, "perplexity", {"length": 32}, f"{DENSE}: length is 64, not 32"),
        (MASKS, "calibrations", {"seed": 9}, "toy/dass/2of4/pruning.json: seed is 0, not 9"),
        (WINDOWS, "calibrations", {"seed": 9}, f"{WINDOWS}: seed is 0, not 9"),
        ("tables/main/perplexity.md", "perplexity", {"length": 32}, ": length is 64, not 32"),
        (WINDOWS, "perplexity", {"length": 32}, None),  # not made of it
        (DENSE, "calibrations", {"seed": 9}, None),
    ],
)
def test_a_single_copied_file_is_compared_with_what_it_is_made_of(
    target: str, block: str, change: dict, says: str | None, study: Workflow
) -> None:
    shutil.copytree(
        study.folder / "results/small", study.folder / "results/other", copy_function=shutil.copy2
    )
    settings = small_study() | {"study": "other"}
    names = {"models": "standin-llama", "calibrations": "toy"}
    (settings[block][names[block]] if block in names else settings[block]).update(change)
    study.write_study(settings)
    finished = study.snakemake(f"results/other/{target}", "--dry-run")
    if says is None:
        assert finished.code == 0, finished.output
    else:
        assert finished.code != 0
        (line,) = (line for line in finished.output.splitlines() if line.startswith("error: "))
        assert f"{says} as the config asks, and Snakemake has no record" in line


def test_a_dry_run_says_why(study: Workflow) -> None:
    file = "src/dass/pruning/methods/dass.py"
    study.append(file, "# changed")
    by_rule = study.snakemake("--dry-run").output
    assert "updated input files:\n        prune_run" in by_rule
    assert file not in by_rule
    by_job = study.snakemake("--dry-run", "--quiet", "host").output
    assert f"Reason: Updated input files: {file}" in by_job
