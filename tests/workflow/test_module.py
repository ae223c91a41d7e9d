"""The workflow as a module of another one, as docs/running.md writes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.pages import blocks

from .conftest import ROOT, Finished, Workflow, copy_workflow, small_study

pytestmark = pytest.mark.workflow

TARGET = """

rule all:
    default_target: True
    input:
        rules.dass_all.input,
"""


@pytest.fixture(scope="module")
def outer(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A workflow that uses this one, which lies elsewhere."""
    folder = tmp_path_factory.mktemp("module")
    inner = copy_workflow(folder / "dass")
    (block,) = [b.text for b in blocks(ROOT / "docs/running.md") if b.language == "snakemake"]
    made = Workflow(folder / "outer")
    made.folder.mkdir()
    text = block.replace("/path/to/dass/Snakefile", str(inner.folder / "Snakefile"))
    assert text != block
    (made.folder / "Snakefile").write_text(f'configfile: "demo.yaml"\n\n\n{text}{TARGET}')
    shutil.copy2(ROOT / "config/demo.yaml", made.folder / "demo.yaml")
    made.write_study(small_study())
    return made


def test_the_demo_plans_the_same_jobs(outer: Workflow, fresh: Workflow) -> None:
    alone = fresh.plan(config="config/demo.yaml")
    within = outer.plan(config="demo.yaml")
    assert within.pop("all") == alone.pop("all") == 1
    assert within == {f"dass_{rule}": count for rule, count in alone.items()}


def test_rules_that_talk_to_a_hub_stay_local(outer: Workflow) -> None:
    """Under the prefix, too, nothing is submitted that a node without network could not do."""
    shutil.copytree(ROOT / "config", outer.folder / "config", dirs_exist_ok=True)
    plan = outer.snakemake("--dry-run", config="config/config.yaml")
    assert plan.code == 0, plan.output
    assert plan.jobs["dass_fetch_model"] == 6
    for rule in ("fetch_model", "fetch_dataset", "check_dense"):
        assert f"localrule dass_{rule}:" in verbose(outer).output


def verbose(outer: Workflow) -> Finished:
    """A dry run that shows rules instead of their messages."""
    for file in (outer.folder.parent / "dass/rules").glob("*.smk"):
        lines = file.read_text().splitlines(keepends=True)
        kept = [
            line
            for before, line in zip(["", *lines], lines, strict=False)
            if line != "    message:\n" and before != "    message:\n"
        ]
        file.write_text("".join(kept))
    return outer.snakemake("--dry-run", config="config/config.yaml")


def test_jobs_use_the_library_beside_the_module(outer: Workflow) -> None:
    library = outer.folder.parent / "dass/src/dass"
    marked = library / "standins/writing.py"
    marked.write_text(marked.read_text() + '\nPath("here").touch()\n')
    done = outer.snakemake("dass_world")
    assert done.code == 0, done.output
    assert (outer.folder / "resources/standins/toy_corpus/documents.jsonl.gz").exists()
    assert Path(outer.folder / "here").exists()
