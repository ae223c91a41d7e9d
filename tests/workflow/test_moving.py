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


def test_a_dry_run_says_why(study: Workflow) -> None:
    file = "src/dass/pruning/methods/dass.py"
    study.append(file, "# changed")
    by_rule = study.snakemake("--dry-run").output
    assert "updated input files:\n        prune_run" in by_rule
    assert file not in by_rule
    by_job = study.snakemake("--dry-run", "--quiet", "host").output
    assert f"Reason: Updated input files: {file}" in by_job
