"""The reports of a finished study: ours, whose links and figures are files, and Snakemake's own."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlparse

from tests.unit.report.browser import needs_browser, show
from tests.unit.report.latex import compile_latex, latex

from .conftest import ROOT, Workflow

RESULTS = "results/small"


@needs_browser
def test_report_html_fits_and_its_links_lead_to_results(study: Workflow) -> None:
    shown, said = show(study.folder / RESULTS / "report.html")
    assert said == []
    for one in shown:
        assert (one.scrolled, one.outside) == (one.width, [])
        assert one.links
        for link in map(urlparse, one.links):
            assert link.scheme == "file" and Path(unquote(link.path)).is_file(), link


@latex
def test_report_tex_compiles_where_it_lies(study: Workflow) -> None:
    compile_latex(study.folder / RESULTS / "report.tex")


def test_a_figure_that_is_gone_is_made_before_the_latex_that_includes_it(study: Workflow) -> None:
    shutil.rmtree(study.folder / RESULTS / "figures")
    (study.folder / RESULTS / "report.tex").unlink()
    jobs = study.plan(f"{RESULTS}/report.tex")
    assert jobs["report"] == 1 and any("figures" in rule for rule in jobs)


def test_snakemakes_own_report_holds_tables_figures_and_reports(
    finished_study: Workflow, tmp_path: Path
) -> None:
    finished = finished_study.snakemake("--report", str(tmp_path / "own.zip"))
    assert finished.code == 0, finished.output
    with zipfile.ZipFile(tmp_path / "own.zip") as held:
        names = {Path(name).name for name in held.namelist()}
        page = held.read("own/report.html").decode()
    kinds, forms = ("perplexity", "zero_shot"), ("tex", "md", "pdf")
    assert names == {
        "report.html", "report.pdf", "report.tex", "summary.csv",
        *(f"{kind}.{form}" for kind in kinds for form in forms),
    }  # fmt: skip
    captions = {file.stem: file for file in (ROOT / "workflow/report").glob("*.rst")}
    for category in ("report", "summary", "tables", "figures"):
        beginning = re.split(r"[,:`]", captions.pop(category).read_text())[0]
        assert beginning in page
        assert f'"{category.capitalize()}"' in page
    assert set(captions) == {"speed"}  # a study without benchmarks has none
