"""Result files to summary, tables, figures and report, by the stages alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from dass.errors import NumericError
from dass.report.experiment import TableSettings
from dass.stages.check_dense import check_dense
from dass.stages.figures_of_experiment import figures_of_experiment
from dass.stages.report import report
from dass.stages.summary import summary
from dass.stages.summary_of_model import summary_of_model
from dass.stages.tables_of_experiment import tables_of_experiment
from tests.unit.results.samples import perplexity_file, study_files

SETTINGS = asdict(
    TableSettings(
        experiment="main", title="Title", models={"b": "Model B", "a": "Model A"},
        calibrations={"c4": "8 sequences"}, methods={"wanda": "Wanda", "dass": "DaSS"},
        patterns=["u50", "2of4"], tasks=["piqa", "winogrande"],
    )
)  # fmt: skip


def test_a_results_way_to_a_cell_and_to_the_report(tmp_path: Path) -> None:
    for model in ("b", "a"):
        summary_of_model(
            **study_files(tmp_path, model),
            rows=tmp_path / f"{model}.json", csv=tmp_path / f"{model}.csv",
        )  # fmt: skip
    rows = tmp_path / "summary.json"
    summary(models=[tmp_path / "b.json", tmp_path / "a.json"], rows=rows, csv=tmp_path / "s.csv")
    published = tmp_path / "published.csv"
    published.write_text(
        "table,model,method,pattern,split,metric,value,source\n"
        "t. 1,b,dense,,validation,perplexity,5.47,A paper\n"
    )
    names = ["perplexity.tex", "perplexity.md", "zero_shot.md", "published.md"]
    tables_of_experiment(
        summary=rows, published=[published], settings=SETTINGS,
        out=[tmp_path / "tables" / name for name in names],
    )  # fmt: skip
    tables = {name: (tmp_path / "tables" / name).read_text() for name in names}
    assert r"\begin{tabular}" in tables["perplexity.tex"] and "5.33" in tables["perplexity.tex"]
    assert "**1.2e7**" in tables["perplexity.md"]
    assert "60.0 ± 3.0" in tables["zero_shot.md"]
    assert "−0.14" in tables["published.md"]
    figures_of_experiment(summary=rows, settings=SETTINGS, out=[tmp_path / "perplexity.pdf"])
    assert (tmp_path / "perplexity.pdf").read_bytes().startswith(b"%PDF")
    report(
        summary=rows, published=[published], study="small", description="What it is.", note="",
        experiments=[SETTINGS], speed={}, speed_results=[], speed_pruning=[],
        pdf=tmp_path / "report.pdf", html=tmp_path / "report.html",
    )  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    assert "DaSS, reproduced: study small" in page and "<b>1.2e7</b>" in page
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_a_gate_that_holds_writes_nothing(tmp_path: Path) -> None:
    dense = perplexity_file(tmp_path, "b/dense", 5.6)
    targets = [{"split": "validation", "value": 5.47, "source": "A paper"}]
    with pytest.raises(NumericError, match=r"b: its dense perplexity is 5\.6 .* \+2\.4 % off"):
        check_dense(dense=dense, targets=targets, tolerance=0.02, out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
