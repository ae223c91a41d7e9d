"""The workflow as a module of another one, as docs/running.md writes it."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.docs.pages import blocks

from .conftest import ROOT, Workflow, copy_workflow, small_study

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
    (made.folder / "Snakefile").write_text(text + TARGET)
    shutil.copy2(ROOT / "config/demo.yaml", made.folder / "demo.yaml")
    made.write_study(small_study())
    return made


def test_the_demo_plans_the_same_jobs(outer: Workflow, fresh: Workflow) -> None:
    alone = fresh.plan(config="config/demo.yaml")
    within = outer.plan(config="demo.yaml")
    assert within.pop("all") == alone.pop("all") == 1
    assert within == {f"dass_{rule}": count for rule, count in alone.items()}


def test_local_rules_are_local_under_any_name() -> None:
    """The directive `localrules` names rules as they are called here, without a module's prefix."""
    files = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]
    text = "\n".join(file.read_text() for file in files)
    assert not re.search(r"^localrules:", text, re.MULTILINE)
    rules = re.split(r"^(?=(?:rule|checkpoint) )", text, flags=re.MULTILINE)
    local = {re.split(r"[ :]", rule)[1] for rule in rules if "\n    localrule: True\n" in rule}
    assert local == {"fetch_model", "fetch_dataset", "check_dense"}


def test_jobs_use_the_library_beside_the_module(outer: Workflow) -> None:
    library = outer.folder.parent / "dass/src/dass"
    marked = library / "standins/writing.py"
    marked.write_text(marked.read_text() + '\nPath("here").touch()\n')
    done = outer.snakemake("dass_toy_corpus")
    assert done.code == 0, done.output
    assert (outer.folder / "resources/standins/toy_corpus/documents.jsonl.gz").exists()
    assert (outer.folder / "here").exists()
