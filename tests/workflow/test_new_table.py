"""The steps of CONTRIBUTING.md, "A table"; and its other examples are those that tests follow."""

from __future__ import annotations

import inspect
import re
import textwrap

from tests.docs.pages import blocks

from . import test_extending
from .conftest import ROOT, Workflow
from .test_extending import TASK


def examples() -> list[str]:
    """The Python blocks of the page: a task's entry and questions, a table, its entry."""
    return [b.text for b in blocks(ROOT / "CONTRIBUTING.md") if b.language == "python"]


def test_a_method_and_a_task_are_those_of_the_tests() -> None:
    task, *_ = examples()
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert "the class of [docs/comparing.md](docs/comparing.md), as\n   `both.py`" in page
    assert '"src/dass/pruning/methods/both.py"' in inspect.getsource(test_extending)
    assert textwrap.indent(task, "    ") in TASK


def test_a_table_is_one_function_and_two_entries(study: Workflow) -> None:
    *_, table, entry = examples()
    (study.folder / "src/dass/report/sparsity_table.py").write_text(table)
    insert(
        study,
        "src/dass/stages/experiment_tables.py",
        r"(?<=\nfrom dass.report.published_table import published_table\n)",
        "from dass.report.sparsity_table import sparsity_table\n",
    )
    insert(
        study,
        "src/dass/stages/experiment_tables.py",
        r'(?<="zero_shot": zero_shot_table,\n)',
        textwrap.indent(entry, "        "),
    )
    insert(study, "rules/common.smk", r"(?<=\nALSO_PRINTED = )", '["sparsity"] + ')
    assert study.plan() == {"experiment_tables": 1, "all": 1}
    finished = study.snakemake()
    assert finished.code == 0, finished.output
    folder = study.folder / "results/small/tables/main"
    assert re.search(r"\| 2:4 +\| DaSS +\| +50.0 \| +50.0 \|", (folder / "sparsity.md").read_text())
    assert r"\label{tab:main-sparsity}" in (folder / "sparsity.tex").read_text()


def insert(study: Workflow, file: str, place: str, text: str) -> None:
    """Insert a line at the one place that the pattern finds."""
    path = study.folder / file
    changed, found = re.subn(place, lambda _: text, path.read_text())
    assert found == 1, f"{file}: {place}"
    path.write_text(changed)
