"""The commands of docs/running.md that select parts of the paper's study: what they would run."""

from __future__ import annotations

import re
import shlex

import pytest

from .conftest import ROOT, Workflow, copy_workflow

ROW = re.compile(
    r"^\| ([^|]+) \| `\.venv/bin/snakemake -n ?([^`]*)` \|((?: \d+ \|)+)$", re.MULTILINE
)


def documented() -> list[tuple[str, str, list[int]]]:
    """What, the arguments after -n, and the four counts."""
    page = (ROOT / "docs" / "running.md").read_text()
    return [
        (what, arguments, [int(count) for count in counts.split(" |")[:-1]])
        for what, arguments, counts in ROW.findall(page)
    ]


def test_the_page_has_such_commands() -> None:
    kinds = " ".join(what for what, _, _ in documented())
    for kind in ("one model", "one method", "one experiment's tables", "one result"):
        assert kind in kinds
    assert len(documented()) == 11


@pytest.mark.parametrize(("what", "arguments", "counts"), documented(), ids=lambda value: None)
def test_the_documented_counts_are_those_of_the_dry_run(
    what: str, arguments: str, counts: list[int], selecting: Workflow
) -> None:
    finished = selecting.snakemake(
        "--dry-run", *shlex.split(arguments), config="config/config.yaml"
    )
    assert finished.code == 0, finished.output
    jobs = finished.jobs
    found = [jobs["prune_run"], jobs["perplexity"], jobs["zero_shot"], sum(jobs.values())]
    assert counts == found, f"docs/running.md, Selecting, {what}: write {found}"


@pytest.fixture(scope="module")
def selecting(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The workflow with nothing made yet; dry runs leave it as it is."""
    return copy_workflow(tmp_path_factory.mktemp("selecting") / "workflow")
