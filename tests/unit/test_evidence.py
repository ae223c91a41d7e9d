"""docs/evidence.md is what the archived results give."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dass.report.experiment_tables import perplexity_table
from dass.report.findings import findings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def evidence() -> ModuleType:
    """The script that writes the page."""
    found = importlib.util.spec_from_file_location("evidence", ROOT / "benchmarks/evidence.py")
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules["evidence"] = module
    found.loader.exec_module(module)
    return module


def parts() -> dict[str, str]:
    """The generated parts of the page, by what they are about."""
    page = (ROOT / "docs/evidence.md").read_text("utf-8")
    found = re.findall(r"<!-- \w+ ([\w-]+) -->\n(.*?)\n<!-- end -->", page, flags=re.DOTALL)
    return dict(found)


def test_every_run_of_the_study_is_in_the_archive(evidence: ModuleType) -> None:
    from dass.config.runs import runs, zero_shot_runs

    study = evidence.study()
    rows = {tuple(str(row.run).split("/")): row for row in evidence.summary_rows()}
    assert rows.keys() == {tuple(run) for run in runs(study)} | {("smollm2", "dense")}
    with_tasks = {run for run, row in rows.items() if row.zero_shot}
    assert with_tasks == {tuple(run) for run in zero_shot_runs(study)} | {("smollm2", "dense")}


def test_the_page_says_what_was_run(evidence: ModuleType) -> None:
    assert parts()["runs"] == evidence.about()


def test_the_look_into_the_blocks_is_made_of_the_archive(evidence: ModuleType) -> None:
    assert parts()["blocks"] == evidence.blocks_part()


def test_tables_are_made_of_the_archive(evidence: ModuleType) -> None:
    """Perplexities of all experiments; accuracies take half a minute: ``--check`` makes them."""
    for name in evidence.experiments():
        table = perplexity_table(evidence.summary_rows(), evidence.settings_of(name))
        assert table.markdown().strip() in parts()[name]


def test_sentences_are_made_of_the_archive(evidence: ModuleType) -> None:
    settings = {name: evidence.settings_of(name) for name in evidence.experiments()}
    for name in [name for name, own in settings.items() if not own.tasks]:
        for sentence in findings(evidence.summary_rows(), settings[name]):
            assert f"- {sentence}\n" in parts()[name]


def test_figures_of_the_summary_stand_in_the_tables() -> None:
    """Its sentences are written by hand."""
    page = (ROOT / "docs/evidence.md").read_text("utf-8")
    summary = page.split("## In short\n")[1].split("\n## ")[0]
    tables = "\n".join(parts().values())
    figures = set(re.findall(r"\d+\.\d+", summary))
    assert len(figures) > 4
    assert {figure for figure in figures if figure not in tables} == set()


def test_what_attention_adds_to_the_loss() -> None:
    """The shares that the summary rounds: of what pruning the MLPs alone costs."""
    rows = re.findall(
        r"^\| (50 %|2:4) +\| (.+?) +\| +\W*([\d.]+)", parts()["targets"], re.MULTILINE
    )
    values = {(sparsity, method): float(value) for sparsity, method, value in rows}
    dense = 22.73
    for sparsity, least, most in (("50 %", 0.59, 0.70), ("2:4", 0.75, 1.15)):
        for method in ("Wanda", "SparseGPT", "DaSS"):
            alone, both = (values[sparsity, f"{method}{more}"] for more in ("", " (attention too)"))
            assert least <= (both - alone) / (alone - dense) <= most
