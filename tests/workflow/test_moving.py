"""Results in another clone, and what a dry run says of a change; as docs/cluster.md writes it."""

from __future__ import annotations

import shutil
from pathlib import Path

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


def test_a_dry_run_says_why(study: Workflow) -> None:
    file = "src/dass/pruning/methods/dass.py"
    study.append(file, "# changed")
    by_rule = study.snakemake("--dry-run").output
    assert "updated input files:\n        prune_run" in by_rule
    assert file not in by_rule
    by_job = study.snakemake("--dry-run", "--quiet", "host").output
    assert f"Reason: Updated input files: {file}" in by_job
