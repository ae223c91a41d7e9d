"""The report: what is in it, as PDF and as HTML, and that the same numbers give the same bytes."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dass.report.document import Report, Section, make_report, provenance_lines, write_report
from dass.report.experiment import TableSettings
from dass.report.figures import figure_captions
from dass.report.published_table import published_table
from dass.report.table import Cell, RowGroup, Table, TableSection
from dass.results.published import Published, Quantity
from dass.results.summary import SummaryRow

from .rows import accuracy, row

needs_poppler = pytest.mark.skipif(
    shutil.which("pdftotext") is None, reason="poppler-utils is not installed"
)
NOTE = "They are <stand-ins> & say 100 % nothing: #let $x_1$ *b* @a `c` \\n //d [e] {~}."
SETTINGS = TableSettings(
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


def measured(run: str, value: float) -> SummaryRow:
    pruned = not run.endswith("dense")
    origin = {
        "date": f"2026-01-0{round(value)}T00:00:00+00:00",
        "commit": "def" if pruned else "abc",
        "device": "cpu",
        "versions": {"torch": "2.11"},
        "peak_memory_bytes": {"host": 2_000_000_000, "device": None},
    }
    tasks = {"piqa": accuracy(0.5 + 1 / value, 0.02)}
    return row(run, value, tasks, seconds=value if pruned else None, provenance=origin)


ROWS = [
    measured("llama_1/dense", 4.0),
    measured("llama_1/c4/wanda/u50", 6.25),
    measured("llama_1/c4/dass/u50", 5.75),
]
PUBLISHED = Published(
    model="llama_1", calibration=None, method="dense", pattern=None,
    quantity=Quantity("perplexity", "validation"), dataset=None, length=None, value=3.9,
    source="A paper, t. 1", file="published.csv",
)  # fmt: skip


@pytest.fixture
def report() -> Report:
    return make_report(ROWS, [SETTINGS], "The study", "What it is.", NOTE)


def written(report: Report, folder: Path) -> tuple[Path, str]:
    """The PDF's path and the HTML."""
    write_report(report, folder / "report.pdf", folder / "report.html")
    return folder / "report.pdf", (folder / "report.html").read_text()


def pages(pdf: Path) -> list[str]:
    """The text of each page; lines are broken at spaces only, which count as one."""
    done = subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, check=True)
    return [" ".join(page.split()) for page in done.stdout.decode().split("\f")[:-1]]


def test_provenance_says_what_produced_the_numbers() -> None:
    assert provenance_lines(ROWS) == [
        ("Runs", "3"),
        ("Date", "2026-01-04T00:00:00+00:00 to 2026-01-06T00:00:00+00:00"),
        ("Commit", "abc; def"),
        ("Device", "cpu"),
        ("Versions", "torch 2.11"),
        ("Sparsity of pruned matrices", "0.5000"),
        ("Pruning time per run, s", "5.8 to 6.2"),
        ("Peak memory per run, GB", "2.00"),
    ]
    assert provenance_lines([row("a/dense")]) == [("Runs", "1")]


def test_a_run_is_as_old_as_its_latest_result() -> None:
    """Its masks may be of last year, with which it was evaluated again today."""
    first, last = (ROWS[number].model_copy(deep=True) for number in (1, 0))
    assert first.pruning is not None
    first.pruning.provenance["date"] = "2025-06-01T00:00:00+00:00"
    dates = dict(provenance_lines([last, first]))["Date"]
    assert dates == "2026-01-04T00:00:00+00:00 to 2026-01-06T00:00:00+00:00"


def test_each_figure_has_its_caption_and_what_is_more_comes_last() -> None:
    more = Section("Speed", [], [])
    first, last = make_report(ROWS, [SETTINGS], "T", "D", more=[more]).sections
    assert tuple(caption for _, caption in first.figures) == figure_captions(SETTINGS)
    assert len({caption for _, caption in first.figures}) == 2
    assert last is more


def test_there_is_a_table_of_what_is_published_and_none_of_what_is_not_asked_for() -> None:
    kinds = {
        tuple(
            table.label
            for table in make_report(ROWS, [s], "T", "D", published=p).sections[0].tables
        )
        for s, p in ((SETTINGS, [PUBLISHED]), (replace(SETTINGS, tasks=[]), []))
    }
    assert kinds == {
        ("tab:main-perplexity", "tab:main-zero-shot", "tab:main-published"),
        ("tab:main-perplexity",),
    }
    (section,) = make_report(ROWS, [SETTINGS], "T", "D", published=[PUBLISHED]).sections
    assert section.tables[2] == published_table(ROWS, SETTINGS, [PUBLISHED])


def test_the_same_numbers_give_the_same_bytes(report: Report, tmp_path: Path) -> None:
    first, page = written(report, tmp_path)
    again = make_report(ROWS, [SETTINGS], "The study", "What it is.", NOTE)
    second, same = written(again, tmp_path / "again")
    assert first.read_bytes() == second.read_bytes() and page == same
    assert first.read_bytes().startswith(b"%PDF")
    assert not re.search(rb"CreationDate|ModDate|CreateDate", first.read_bytes())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again", "report.html", "report.pdf",
    ]  # fmt: skip


def test_names_are_text_and_no_code(tmp_path: Path) -> None:
    code = "<script>alert(1)</script>"
    settings = replace(
        SETTINGS, title=code, models={"llama_1": code}, methods={"wanda": code, "dass": code}
    )
    page = written(make_report(ROWS, [settings], code, code, code), tmp_path)[1]
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 6


@needs_poppler
def test_the_pdf_holds_everything_as_it_was_written(report: Report, tmp_path: Path) -> None:
    text = " ".join(pages(written(report, tmp_path)[0]))
    assert text.count(NOTE) >= 1  # below the title, where no line is broken within a word
    for shown in (
        "The study",
        "What it is.",
        "Uniform_pruning",
        "LLaMA_1",
        "Dense",
        "4.00",
        "6.25",
    ):
        assert shown in text
    for shown in ("5.75", "67.4 ±2.0", "75.0 ±2.0", "Table 2:", "Figure 2:", "abc; def"):
        assert shown in text


@needs_poppler
def test_a_table_goes_on_with_its_head_and_its_titles(tmp_path: Path) -> None:
    """The rows of a group stay together; a table wider than the page is set smaller."""
    groups = [
        RowGroup(f"{n}:64", [(f"method {n}.{m}", [Cell(f"{n}.{m}")] * 14) for m in range(9)])
        for n in range(30)
    ]
    columns = [f"column {n}" for n in range(14)]
    table = Table(columns, [TableSection("A model", groups)], "Long.", "tab:long")
    report = Report("T", [], [Section("S", [table], [])], [("Runs", "1")])
    found = pages(written(report, tmp_path)[0])
    assert len(found) > 2
    with_rows = [page for page in found if "method" in page]
    for page in with_rows:
        assert "Sparsity Method" in page and "column 13" in page and "A model" in page
        own = set(re.findall(r"method (\d+)\.", page))
        assert all(page.count(f"method {n}.") == 9 for n in own)
    assert sum(page.count("method ") for page in with_rows) == 9 * 30


class Reader(HTMLParser):
    """Checks that tags are closed in order, and keeps text and pictures."""

    VOID = frozenset({"meta", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.pictures: list[str] = []
        self.scrolling: list[bool] = []
        """Of each table and picture: whether it scrolls in a box of its own."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")
        if tag in ("img", "table"):
            self.scrolling.append(self.open[-1] == "div")
        if tag in ("td", "th", "figcaption", "p", "h1", "h2", "dt", "dd"):
            self.cells.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_the_html_is_one_file_with_everything(report: Report, tmp_path: Path) -> None:
    _, text = written(report, tmp_path)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    cells = [cell.strip() for cell in reader.cells]
    for shown in (NOTE, "LLaMA_1", "Uniform_pruning", "4.00", "6.25", "5.75", "67.4 ±2.0",
                  "abc; def"):  # fmt: skip
        assert shown in cells
    assert any(cell.endswith(NOTE) and "Perplexity" in cell for cell in cells)
    assert "<b>5.75</b>" in text and "<b>6.25</b>" not in text and "<b>4.00</b>" not in text
    assert len(reader.pictures) == 2
    for picture in reader.pictures:
        kind, data = picture.split(",")
        assert kind == "data:image/svg+xml;base64" and b"<svg" in base64.b64decode(data)
    assert not re.search(r'(src|href)="http', text)


def test_the_html_fits_a_phone(report: Report, tmp_path: Path) -> None:
    _, text = written(report, tmp_path)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert ".scroll { overflow-x: auto; }" in text
    reader = Reader()
    reader.feed(text)
    assert reader.scrolling == [True] * 4  # two tables, two pictures; captions stand outside
