"""The report: as LaTeX, as PDF with and without LaTeX, as HTML."""

from __future__ import annotations

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dass.report.document
from dass.errors import DataError
from dass.report.document import (
    Report,
    compile_latex,
    latex_available,
    make_report,
    provenance_lines,
    report_html,
    report_latex,
    report_pdf,
    report_pdf_without_latex,
)
from dass.report.experiment import TableSettings

needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed"
)
NOTE = "They are <stand-ins> & say 100 % nothing."


def row(model: str, method: str, pattern: str | None, value: float) -> dict[str, Any]:
    pruned = method != "dense"
    return {
        "model": model,
        "calibration": "c4" if pruned else None,
        "method": method,
        "pattern": pattern,
        "perplexity_validation": value,
        "piqa_acc": 0.5 + 1 / value,
        "piqa_acc_stderr": 0.02,
        "mean_sparsity": 0.5 if pruned else None,
        "pruning_seconds": value if pruned else None,
        "peak_memory_bytes": 2_000_000_000,
        "date": f"2026-01-0{round(value)}T00:00:00+00:00",
        "commit": "abc; def" if pruned else "abc",
        "device": "cpu",
        "versions": "torch 2.11",
    }


SUMMARY = pd.DataFrame(
    [
        row("llama_1", "dense", None, 4.0),
        row("llama_1", "wanda", "u50", 6.25),
        row("llama_1", "dass", "u50", 5.75),
    ]
)


@pytest.fixture
def report() -> Report:
    settings = TableSettings(
        experiment="main",
        title="Uniform_pruning",
        models={"llama_1": "LLaMA_1"},
        calibrations={"c4": "8 sequences"},
        methods={"wanda": "Wanda", "dass": "DaSS"},
        patterns=["u50"],
        metric="acc",
        tasks=["piqa"],
        note=NOTE,
    )
    return make_report(SUMMARY, [settings], "The study", "What it is.", NOTE)


def test_provenance_says_what_produced_the_numbers() -> None:
    assert provenance_lines(SUMMARY) == [
        ("Runs", "3"),
        ("Date", "2026-01-04T00:00:00+00:00 to 2026-01-06T00:00:00+00:00"),
        ("Commit", "abc; def"),
        ("Device", "cpu"),
        ("Versions", "torch 2.11"),
        ("Sparsity of pruned matrices", "0.5000"),
        ("Seconds of pruning, a run", "5.8 to 6.2"),
        ("Peak memory of a run, GB", "2.00"),
    ]
    assert provenance_lines(SUMMARY[["model"]]) == [("Runs", "3")]


def test_the_latex_holds_everything(report: Report, tmp_path: Path) -> None:
    report_latex(report, tmp_path / "report.tex")
    text = (tmp_path / "report.tex").read_text()
    assert r"They are $<$stand-ins$>$ \& say 100 \% nothing." in text
    assert [t.label in text for t in report.sections[0].tables] == [True, True]
    figures = re.findall(r"\\includegraphics\[[^]]*\]\{([^}]*)\}", text)
    assert len(figures) == 2
    assert all((tmp_path / name).read_bytes().startswith(b"%PDF") for name in figures)
    assert r"Commit & abc; def \\" in text


@needs_latex
@pytest.mark.latex
def test_the_pdf_by_latex_is_the_same_every_time(report: Report, tmp_path: Path) -> None:
    for name in ("one.pdf", "two.pdf"):
        report_pdf(report, tmp_path / name)
    one = (tmp_path / "one.pdf").read_bytes()
    assert one == (tmp_path / "two.pdf").read_bytes()
    assert b"pdfTeX" in one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pdf", "two.pdf"]


def test_without_latex_there_is_a_pdf_too(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert not latex_available()
    report_pdf(report, tmp_path / "report.pdf")
    drawn = (tmp_path / "report.pdf").read_bytes()
    assert drawn.startswith(b"%PDF") and b"pdfTeX" not in drawn and b"CreationDate" not in drawn
    assert len(re.findall(rb"/Type /Page\b", drawn)) == 5  # title, two tables, two figures
    with pytest.raises(DataError, match=r"x\.tex: there is no pdflatex"):
        compile_latex(tmp_path / "x.tex", tmp_path / "x.pdf")


def test_a_drawn_table_shows_every_number(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    original = dass.report.document._Sheet.at

    def at(self: Any, x: float, text: str, *rest: Any, **more: Any) -> None:
        written.append(text)
        assert 0 <= x <= self.width + 1e-9 and self.y > 0
        original(self, x, text, *rest, **more)

    monkeypatch.setattr(dass.report.document._Sheet, "at", at)
    report_pdf_without_latex(report, tmp_path / "report.pdf")
    for text in ("The study", "LLaMA_1", "Dense", "4.00", "6.25", "5.75", "67.4 ±2.0", "75.0 ±2.0"):
        assert text in written
    assert any("They are <stand-ins>" in text for text in written)


@needs_latex
@pytest.mark.latex
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (r"\nonsense", r"Undefined control sequence. l.3 \nonsense"),
        (r"\begin{table}", r"LaTeX Error: \begin{table} on input line 3 ended by"),
        (r"\includegraphics{none}", "Undefined control sequence"),
    ],
)
def test_a_latex_error_is_one_line_that_names_the_log(body: str, said: str, tmp_path: Path) -> None:
    tex, out = tmp_path / "bad.tex", tmp_path / "out" / "bad.pdf"
    tex.write_text("\\documentclass{article}\n\\begin{document}\n" + body + "\n\\end{document}\n")
    with pytest.raises(DataError) as error:
        compile_latex(tex, out)
    message = str(error.value)
    assert message.startswith(f"{tex}: LaTeX says: ") and said in message
    assert message.endswith(f"see {out.with_suffix('.log')}") and "\n" not in message
    assert "This is pdfTeX" in out.with_suffix(".log").read_text()
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["bad.tex"]


@needs_latex
@pytest.mark.latex
def test_an_earlier_pdf_outlives_a_latex_error(tmp_path: Path) -> None:
    tex, out = tmp_path / "x y.tex", tmp_path / "x.pdf"
    tex.write_text(
        "\\documentclass{article}\\begin{document}See \\ref{a}.\\label{a}\\end{document}"
    )
    compile_latex(tex, out)  # a space in the name, and a reference that takes a second run
    before = out.read_bytes()
    tex.write_text("\\documentclass{article}\\begin{document}\\oops\\end{document}")
    with pytest.raises(DataError):
        compile_latex(tex, out)
    assert out.read_bytes() == before


class Reader(HTMLParser):
    """Checks that tags are closed in order, and keeps text and pictures."""

    VOID = frozenset({"meta", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.pictures: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")
        if tag in ("td", "th", "caption", "p", "h1", "h2"):
            self.cells.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_the_html_is_one_file_with_everything(report: Report, tmp_path: Path) -> None:
    report_html(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    for shown in (NOTE, "LLaMA_1", "Uniform_pruning", "4.00", "6.25", "5.75", "67.4 ±2.0"):
        assert shown in [cell.strip() for cell in reader.cells]
    assert "<b>5.75</b>" in text and "<b>6.25</b>" not in text and "<b>4.00</b>" not in text
    assert len(reader.pictures) == 2
    for picture in reader.pictures:
        kind, data = picture.split(",")
        assert kind == "data:image/svg+xml;base64" and b"<svg" in base64.b64decode(data)
    assert not re.search(r'(src|href)="http', text)
    first = text
    report_html(report, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == first
