"""The report: what is in it, in all forms, and that the same numbers give the same bytes."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dass.report.document import (
    TIED,
    Drawing,
    Report,
    Section,
    make_report,
    provenance_lines,
    write_report,
)
from dass.report.experiment import TableSettings
from dass.report.figures import figure_captions, perplexity_figure
from dass.report.plots import save_figure
from dass.report.published_table import published_table
from dass.report.table import Cell, RowGroup, Table, TableSection
from dass.results.published import Published, Quantity
from dass.results.summary import SummaryRow

from .latex import compile_latex, latex
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
    write_report(report, *(folder / f"report.{form}" for form in ("pdf", "html", "tex")))
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
    more = Section("Speed")
    first, last = make_report(ROWS, [SETTINGS], "T", "D", more=[more]).sections
    assert tuple(drawing.caption for drawing in first.figures) == figure_captions(SETTINGS)
    assert len({drawing.caption for drawing in first.figures}) == 2
    files = ["figures/main/perplexity.pdf", "figures/main/zero_shot.pdf"]
    assert [drawing.file for drawing in first.figures] == files
    assert last is more


def test_another_text_has_a_table_and_a_figure_after_the_first() -> None:
    settings = replace(SETTINGS, others={"c4": "validation"})
    (section,) = make_report([row("llama_1/dense", 4.0, c4=5.0)], [settings], "T", "D").sections
    labels = [table.label.removeprefix("tab:main-") for table in section.tables]
    assert labels == ["perplexity", "perplexity-c4", "zero-shot"]
    kinds = ["perplexity", "perplexity-c4", "zero_shot"]
    assert [drawing.file for drawing in section.figures] == [f"figures/main/{k}.pdf" for k in kinds]
    captions = [drawing.caption for drawing in section.figures]
    assert "perplexity on the validation split of c4 relative" in captions[1]
    assert "perplexity on the validation split relative" in captions[0]
    names = [figure.figure.axes[0].get_ylabel() for figure in section.figures]
    assert names[1].startswith("c4 perplexity")


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
    assert first.with_suffix(".tex").read_bytes() == second.with_suffix(".tex").read_bytes()
    assert first.read_bytes().startswith(b"%PDF")
    assert not re.search(rb"CreationDate|ModDate|CreateDate", first.read_bytes())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again", "report.html", "report.pdf", "report.tex",
    ]  # fmt: skip


def test_names_are_text_and_no_code(tmp_path: Path) -> None:
    code = "<script>alert(1)</script>"
    settings = replace(
        SETTINGS, title=code, models={"llama_1": code}, methods={"wanda": code, "dass": code}
    )
    report = make_report(ROWS, [settings], code, code, code, differences=[code])
    empty = Section(code, findings=[code], empty=code)
    cell = Cell(code, code, sources=(code,))
    table = Table(
        [code], [TableSection(code, [RowGroup(code, [(code, [cell])])])], code, code, (code, code)
    )
    report = replace(
        report,
        sections=[*report.sections, empty, Section(code, [table])],
        provenance=[(code, code)],
    )
    page = written(report, tmp_path)[1]
    assert "alert(1)</script" not in page and page.count("<script") == 1
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert 'href="%3Cscript%3Ealert%281%29%3C/script%3E"' in page


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
    report = Report("T", [], [Section("S", [table])], [("Runs", "1")])
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
        """Of each table: whether it scrolls in a box of its own."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")
        if tag == "table":
            self.scrolling.append(self.open[-1] == "div")
        if tag in ("td", "th", "figcaption", "p", "nav", "li", "h1", "h2", "dt", "dd"):
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
    assert not re.search(r'(src|href)="(http|//)', text)


def test_each_table_scrolls_in_a_box_of_its_own(report: Report, tmp_path: Path) -> None:
    """Captions and pictures stand outside; test_browser.py looks at the page in a browser."""
    _, text = written(report, tmp_path)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    reader = Reader()
    reader.feed(text)
    assert reader.scrolling == [True] * 2


def report_of(*cells: Cell, **more: Any) -> Report:
    """A report of one table with one row."""
    table = Table(
        [f"column {n}" for n in range(len(cells))],
        [TableSection("", [RowGroup("2:4", [("DaSS", list(cells))])])],
        "A caption.",
        "tab:one",
    )
    return Report("T", [], [Section("S", [table], **more)], [("Runs", "1")])


def test_a_number_links_to_its_result_files(tmp_path: Path) -> None:
    first, second = (f"runs/m/c4-{n}/dass/2of4/perplexity.json" for n in (1, 2))
    cells = [
        Cell("5.75", best=True, sources=(first,)),
        Cell("6.25", "0.02", sources=(first, second)),
        Cell("7.25"),
    ]
    _, page = written(report_of(*cells), tmp_path)
    assert f'<td><a href="{first}"><b>5.75</b></a></td>' in page
    assert (
        f'<td>6.25 <small>±0.02</small> <sup><a href="{first}" title="{first}">1</a></sup>'
        f' <sup><a href="{second}" title="{second}">2</a></sup></td>' in page
    )
    assert "<td>7.25</td>" in page
    said = "A number links to the result file"
    assert said in page and said not in written(report_of(Cell("7.25")), tmp_path)[1]


@pytest.mark.parametrize("tied", [True, False])
def test_what_underlined_means_is_said_where_it_is_used(tied: bool, tmp_path: Path) -> None:
    pdf, page = written(report_of(Cell("5.75", tied=tied)), tmp_path)
    tex = pdf.with_suffix(".tex").read_text()
    assert (TIED in page, TIED in tex, "<u>5.75</u>" in page) == (tied,) * 3


@needs_poppler
def test_findings_differences_and_what_is_missing_are_said_everywhere(tmp_path: Path) -> None:
    said = ["DaSS is 0.5 ahead.", "Not measured: no GPU.", "Another length than the paper's."]
    report = Report(
        "T",
        [],
        [Section("A", findings=said[:1]), Section("B", empty=said[1])],
        [("Runs", "1")],
        said[2:],
    )
    pdf, page = written(report, tmp_path)
    for text in (page, pdf.with_suffix(".tex").read_text(), " ".join(pages(pdf))):
        assert "Differences from the paper" in text
        places = [text.replace("’", "'").replace("&#39;", "'").index(one) for one in said]
        assert places == sorted(places)
    assert len(pages(pdf)) == 1
    bare = written(report_of(Cell("1")), tmp_path)
    assert "Differences" not in bare[1] + "".join(pages(bare[0]))


def test_contents_lead_to_every_section(report: Report, tmp_path: Path) -> None:
    more = replace(report, sections=[*report.sections, Section("Last")], differences=["One."])
    _, page = written(more, tmp_path)
    targets = re.findall(r'<li><a href="#(.*?)">(.*?)</a>', page)
    assert [title for _, title in targets] == [
        "Uniform_pruning", "Last", "Differences from the paper", "What produced these numbers",
    ]  # fmt: skip
    for target, title in targets:
        assert f'<h2 id="{target}">{title}</h2>' in page


@needs_poppler
def test_a_long_pdf_has_contents_and_a_short_one_has_none(report: Report, tmp_path: Path) -> None:
    short = pages(written(report, tmp_path)[0])
    long = pages(written(replace(report, sections=report.sections * 4), tmp_path)[0])
    assert len(short) < 5 <= len(long)
    assert "Contents" in long[0] and "Contents" not in " ".join(short)


def table_of(rows: int) -> Table:
    """With rows `method 1` to `method <rows>`, each of which stands alone in its group."""
    groups = [RowGroup("2:4", [(f"method {n}", [Cell("1")])]) for n in range(1, rows + 1)]
    return Table(["M"], [TableSection("", groups)], "Above.", "a")


@needs_poppler
def test_a_figure_stands_in_its_section(tmp_path: Path) -> None:
    """Below its table, though page one has no room for it, but for the next section's text."""
    models = {f"m{n}": f"Model {n}" for n in range(9)}
    drawing = Drawing(perplexity_figure(ROWS, replace(SETTINGS, models=models)), "Below.", "f.pdf")
    sections = [Section("First", [table_of(36)], [drawing]), Section("Second", findings=["Text."])]
    found = pages(written(Report("T", [], sections, []), tmp_path)[0])
    assert "Below." not in found[0]
    assert found[1].index("Below.") < found[1].index("Second")


@needs_poppler
def test_only_a_table_longer_than_a_page_is_broken(tmp_path: Path) -> None:
    sections = [Section("S", [table_of(rows) for rows in (30, 31, 90)])]
    found = pages(written(Report("T", [], sections, []), tmp_path)[0])
    assert "method 30 1" in found[0] and "method 31 1" not in found[0]
    assert all(f"method {n} 1" in found[1] for n in range(1, 32))
    assert len(found) > 3 and "method 90 1" in found[-2] + found[-1]


@latex
def test_the_latex_compiles_and_holds_everything(report: Report, tmp_path: Path) -> None:
    """With nothing but what texlive-latex-recommended has, and the figures' files."""
    report = replace(
        report,
        sections=[replace(report.sections[0], findings=["A 5 % finding."]), Section("S", empty="_")]
        * 2,
        differences=["A $ difference."],
    )
    written(report, tmp_path)
    for drawing in report.sections[0].figures:
        save_figure(drawing.figure, tmp_path / drawing.file)
    compile_latex(tmp_path / "report.tex")
    source = (tmp_path / "report.tex").read_text()
    packages = set(re.findall(r"\\usepackage(?:\[.*?\])?\{(\w+)\}", source))
    assert packages == {"booktabs", "float", "geometry", "graphicx", "hyperref"}
    if shutil.which("pdftotext"):
        text = " ".join(pages(tmp_path / "report.pdf"))
        for shown in ("The study", "A 5 % finding.", "5.75", "67.4 ±2.0", "A $ difference.",
                      "Table 4:", "Figure 4:", "abc; def", "Contents"):  # fmt: skip
            assert shown in text
