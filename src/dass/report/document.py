"""One document a study: tables, figures, and what produced them; as PDF and as HTML.

The PDF is set by LaTeX where there is one, else drawn by matplotlib, so that there always is one.
"""

from __future__ import annotations

import base64
import html
import io
import logging
import os
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dass.errors import DataError
from dass.report.figures import (
    STYLE,
    figure_bytes,
    figure_captions,
    perplexity_figure,
    save_figure,
    zero_shot_figure,
)
from dass.report.published_table import published_table
from dass.report.table import (
    Block,
    Cell,
    Table,
    TableSettings,
    escape_latex,
    perplexity_table,
    zero_shot_table,
)
from dass.results.published import Published
from dass.runtime.files import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("dass")

Captioned = tuple["Figure", str]


@dataclass(frozen=True)
class Section:
    """What one experiment shows."""

    title: str
    tables: list[Table]
    figures: list[Captioned]


@dataclass(frozen=True)
class Report:
    """A document as plain text, tables and figures."""

    title: str
    description: str
    note: str
    sections: list[Section]
    provenance: list[tuple[str, str]]
    """What and how, for the table at the end."""

    @property
    def opening(self) -> list[str]:
        """The paragraphs below the title."""
        return [text for text in (self.description, self.note) if text]


def make_report(
    summary: pd.DataFrame,
    experiments: Sequence[TableSettings],
    title: str,
    description: str,
    note: str = "",
    published: Sequence[Published] = (),
    more: Sequence[Section] = (),
) -> Report:
    """Tables and figures of every experiment, in the order given.

    Args:
        summary: as :func:`dass.report.table.read_summary` gives it.
        experiments: one section each.
        title, description, note: the study's.
        published: numbers to compare with; with none, there is no such table.
        more: sections that follow, e.g. on speed.
    """
    sections = [*(_section(summary, settings, published) for settings in experiments), *more]
    return Report(title, description, note, sections, provenance_lines(summary))


def _section(
    summary: pd.DataFrame, settings: TableSettings, published: Sequence[Published]
) -> Section:
    figures = [perplexity_figure(summary, settings), zero_shot_figure(summary, settings)]
    tables = [perplexity_table(summary, settings), zero_shot_table(summary, settings)]
    if published:
        tables.append(published_table(summary, settings, published))
    return Section(
        settings.title,
        tables,
        list(zip(figures, figure_captions(settings), strict=True)),
    )


def provenance_lines(summary: pd.DataFrame) -> list[tuple[str, str]]:
    """What produced the summary's numbers: name and words, where known."""

    def values(column: str) -> list[Any]:
        return summary[column].dropna().tolist() if column in summary else []

    def distinct(column: str) -> list[str]:
        texts = (part for value in values(column) for part in str(value).split("; "))
        return list(dict.fromkeys(texts))

    def span(column: str, unit: float, form: str) -> str:
        if not values(column):
            return ""
        ends = (min(values(column)), max(values(column)))
        low, high = (f"{float(end) / unit:{form}}" for end in ends)
        return low if low == high else f"{low} to {high}"

    dates = sorted(distinct("date"))
    lines = [
        ("Runs", str(len(summary))),
        ("Date", " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else ""),
        ("Commit", "; ".join(distinct("commit"))),
        ("Device", "; ".join(distinct("device"))),
        ("Versions", "; ".join(distinct("versions"))),
        ("Sparsity of pruned matrices", span("mean_sparsity", 1, ".4f")),
        ("Seconds of pruning, a run", span("pruning_seconds", 1, ".1f")),
        ("Peak memory of a run, GB", span("peak_memory_bytes", 1e9, ".2f")),
        ("Peak GPU memory of a run, GB", span("peak_device_memory_bytes", 1e9, ".2f")),
    ]
    return [(name, words) for name, words in lines if words]


# --- PDF by LaTeX -------------------------------------------------------------------------------


def report_pdf(report: Report, out: str | Path) -> None:
    """Write the report as PDF: by LaTeX where it is installed, else by matplotlib.

    Raises:
        DataError: LaTeX found an error; its log stays beside ``out``.
    """
    if not latex_available():
        log.info("pdflatex is not installed: %s is drawn by matplotlib", out)
        report_pdf_without_latex(report, out)
        return
    with tempfile.TemporaryDirectory(prefix="dass-report-") as scratch:
        tex = Path(scratch) / "report.tex"
        report_latex(report, tex)
        compile_latex(tex, out)


def report_latex(report: Report, tex: str | Path) -> None:
    """Write the report as LaTeX, and its figures as PDF beside it."""
    tex = Path(tex)
    body: list[str] = []
    for number, section in enumerate(report.sections, 1):
        body += [r"\clearpage"] if number > 1 else []
        body.append(rf"\section{{{escape_latex(section.title)}}}")
        body += [table.latex() for table in section.tables]
        for place, (figure, caption) in enumerate(section.figures, 1):
            name = f"{tex.stem}-figure-{number}-{place}.pdf"
            save_figure(figure, tex.with_name(name))
            body.append(_latex_figure(name, caption))
    lines = [_PREAMBLE, rf"{{\LARGE\bfseries {escape_latex(report.title)}\par}}", r"\bigskip"]
    lines += [escape_latex(text) + "\n" for text in report.opening]
    lines += [*body, _latex_provenance(report.provenance), r"\end{document}", ""]
    with writing(tex) as part:
        part.write_text("\n".join(lines), encoding="utf-8")


_PREAMBLE = r"""\documentclass[10pt,a4paper]{article}
\usepackage[margin=2.2cm]{geometry}
\usepackage{booktabs,graphicx}
% No names of temporary folders in the PDF, so that the same report gives the same bytes.
\pdftrailerid{}
\pdfsuppressptexinfo=-1
% Tables and figures are the text here: let a page be full of them.
\renewcommand{\topfraction}{0.95}
\renewcommand{\bottomfraction}{0.95}
\renewcommand{\textfraction}{0.02}
\renewcommand{\floatpagefraction}{0.6}
\setcounter{totalnumber}{6}
\setcounter{topnumber}{4}
\setcounter{bottomnumber}{4}
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt}
\begin{document}"""


def _latex_figure(name: str, caption: str) -> str:
    return "\n".join(
        [
            r"\begin{figure}[htbp]",
            r"\centering",
            rf"\includegraphics[width=\linewidth,height=0.8\textheight,keepaspectratio]{{{name}}}",
            rf"\caption{{{escape_latex(caption)}}}",
            r"\end{figure}",
            "",
        ]
    )


def _latex_provenance(lines: list[tuple[str, str]]) -> str:
    rows = [rf"{escape_latex(name)} & {escape_latex(words)} \\" for name, words in lines]
    columns = r"@{}p{0.28\linewidth}p{0.67\linewidth}@{}"
    head = [r"\section{What produced these numbers}", r"{\small\raggedright"]
    head += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    return "\n".join([*head, *rows, r"\bottomrule", r"\end{tabular}\par}"])


def latex_available() -> bool:
    """Whether there is a pdflatex."""
    return shutil.which("pdflatex") is not None


def compile_latex(tex: str | Path, out: str | Path) -> None:
    """Make a PDF of a LaTeX file; files that it includes are found beside it.

    Raises:
        DataError: there is no pdflatex, or it found an error; its log then stays beside ``out``.
    """
    tex, out = Path(tex), Path(out)
    if not latex_available():
        raise DataError(f"{tex}: there is no pdflatex to compile it; install a TeX distribution")
    with tempfile.TemporaryDirectory(prefix="dass-latex-") as scratch:
        made = Path(scratch) / f"{tex.stem}.pdf"
        done = _pdflatex(tex, scratch)
        log_text = _read_log(made.with_suffix(".log"))
        if done and "Rerun to get" in log_text:
            done = _pdflatex(tex, scratch)
            log_text = _read_log(made.with_suffix(".log"))
        if not done or not made.exists():
            kept = out.with_suffix(".log")
            with writing(kept) as part:
                part.write_text(log_text, encoding="utf-8")
            raise DataError(f"{tex}: LaTeX says: {_first_latex_error(log_text)}; see {kept}")
        with writing(out) as part:
            shutil.copyfile(made, part)


def _pdflatex(tex: Path, scratch: str) -> bool:
    """Run once; dates are those of the epoch, so that the same report gives the same bytes."""
    undated = {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
    unbroken = {"max_print_line": "1000"}  # an error is one line of the log
    environment = os.environ | undated | unbroken
    command = ["pdflatex", "-interaction=batchmode", "-halt-on-error", "-no-shell-escape"]
    command += [f"-output-directory={scratch}", f"-jobname={tex.stem}", tex.resolve().name]
    try:
        done = subprocess.run(
            command, cwd=tex.resolve().parent, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DataError(f"{tex}: pdflatex did not end within 300 s; run it by hand") from None
    return done.returncode == 0


def _read_log(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _first_latex_error(log_text: str) -> str:
    """The first line that begins with ``!``, and the line of the source that it is about."""
    lines = log_text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("!"):
            where = (later for later in lines[number:] if later.startswith("l."))
            return " ".join(f"{line[1:]} {next(where, '')}".split())
    return "no error, but there is no PDF"


# --- PDF by matplotlib --------------------------------------------------------------------------

_PAGE = (8.27, 11.69)
"""A4, in inches."""
_MARGIN = 0.8
_INCH = 72
"""Points."""


def report_pdf_without_latex(report: Report, out: str | Path) -> None:
    """Draw the report on A4 pages: title and provenance, then each table and each figure."""
    import matplotlib
    from matplotlib.backends.backend_pdf import PdfPages

    dates: dict[str, Any] = {"CreationDate": None, "ModDate": None, "Title": report.title}
    with (
        writing(out) as part,
        matplotlib.rc_context(STYLE),
        PdfPages(part, metadata=dates) as pdf,
    ):
        for page in _drawn_pages(report):
            pdf.savefig(page)


def _drawn_pages(report: Report) -> Iterator[Figure]:
    yield _title_page(report)
    for section in report.sections:
        for table in section.tables:
            for number, blocks in enumerate(table.pages()):
                yield _table_page(table, blocks, "(continued)" if number else table.caption)
        for figure, caption in section.figures:
            yield _figure_page(figure, caption)


class _Sheet:
    """A page that is written from top to bottom; positions in inches."""

    def __init__(self) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=_PAGE)
        self.width = _PAGE[0] - 2 * _MARGIN
        self.y = _PAGE[1] - _MARGIN

    def at(self, x: float, text: str, size: float, right: bool = False, bold: bool = False) -> None:
        """Write at ``x`` from the left margin, on the current line."""
        self.figure.text(
            (_MARGIN + x) / _PAGE[0], self.y / _PAGE[1], text, fontsize=size,
            fontweight="bold" if bold else "normal", ha="right" if right else "left", va="baseline",
        )  # fmt: skip

    def paragraph(self, text: str, size: float, bold: bool = False) -> None:
        """Write a paragraph, broken where it reaches the margin."""
        for line in textwrap.wrap(text, int(self.width * _INCH / (0.56 * size))):
            self.down(1.35 * size)
            self.at(0, line, size, bold=bold)
        self.down(0.7 * size)

    def rule(self, x: float, width: float, thick: float) -> None:
        """Draw a horizontal line from ``x``."""
        from matplotlib.lines import Line2D

        ends = [(_MARGIN + x) / _PAGE[0], (_MARGIN + x + width) / _PAGE[0]]
        height = self.y / _PAGE[1]
        self.figure.add_artist(Line2D(ends, [height, height], color="black", linewidth=thick))

    def down(self, points: float) -> None:
        """Go down by so many points."""
        self.y -= points / _INCH


def _title_page(report: Report) -> Figure:
    sheet = _Sheet()
    sheet.paragraph(report.title, 16, bold=True)
    for text in report.opening:
        sheet.paragraph(text, 10)
    sheet.down(12)
    sheet.paragraph("What produced these numbers", 11, bold=True)
    for name, words in report.provenance:
        sheet.paragraph(f"{name}: {words}", 9)
    return sheet.figure


def _table_page(table: Table, blocks: list[Block], caption: str) -> Figure:
    """A table as booktabs would set it."""
    sheet = _Sheet()
    sheet.paragraph(caption, 8)
    head = [*table.corner, *table.columns]
    rows = [
        [group.label, method, *map(_cell_text, cells)]
        for block in blocks
        for group in block.groups
        for method, cells in group.rows
    ]
    ends, size = _columns([head, *rows], 8.0, sheet.width)
    full = ends[-1]
    left = (sheet.width - full) / 2
    starts = [0.0, ends[0]]

    def write(texts: list[str], bold: list[bool]) -> None:
        sheet.down(1.35 * size)
        for start, text in zip(starts, texts, strict=False):
            sheet.at(left + start, text, size)
        for end, text, heavy in zip(ends[2:], texts[2:], bold[2:], strict=True):
            sheet.at(left + end, text, size, right=True, bold=heavy)

    def rule(thick: float) -> None:
        sheet.down(0.5 * size)
        sheet.rule(left, full, thick)

    rule(1.0)
    write(head, [False] * len(head))
    for block in blocks:
        rule(0.5)
        if block.title:
            write([block.title, *[""] * (len(head) - 1)], [False] * len(head))
        for number, group in enumerate(block.groups):
            sheet.down(0.5 * size if number else 0)
            for place, (method, cells) in enumerate(group.rows):
                texts = ["" if place else group.label, method, *map(_cell_text, cells)]
                write(texts, [False, False, *(cell.best for cell in cells)])
    rule(1.0)
    return sheet.figure


def _cell_text(cell: Cell) -> str:
    return f"{cell.text} ±{cell.error}" if cell.error else cell.text


def _columns(rows: list[list[str]], size: float, width: float) -> tuple[list[float], float]:
    """Where each column ends, in inches, and the font size at which all fit into ``width``."""
    from matplotlib.textpath import TextPath

    def inches(text: str) -> float:
        if not text:
            return 0.0
        return float(TextPath((0, 0), text, size=size).get_extents().width) / _INCH

    widths = [1.1 * max(map(inches, column)) + 0.12 for column in zip(*rows, strict=True)]
    shrink = min(1.0, width / sum(widths))
    ends, total = [], 0.0
    for own in widths:
        total += own * shrink
        ends.append(total)
    return ends, size * shrink


def _figure_page(figure: Figure, caption: str) -> Figure:
    """A figure's picture and its caption."""
    from matplotlib.image import imread

    sheet = _Sheet()
    picture = imread(io.BytesIO(figure_bytes(figure, "png")))
    height = min(sheet.width * picture.shape[0] / picture.shape[1], 0.75 * _PAGE[1])
    sheet.down(height * _INCH)
    box = (_MARGIN / _PAGE[0], sheet.y / _PAGE[1], sheet.width / _PAGE[0], height / _PAGE[1])
    axes = sheet.figure.add_axes(box)
    axes.imshow(picture, interpolation="none")
    axes.axis("off")
    sheet.down(8)
    sheet.paragraph(caption, 8)
    return sheet.figure


# --- HTML ---------------------------------------------------------------------------------------


def report_html(report: Report, out: str | Path) -> None:
    """Write the report as one HTML file that needs no other."""
    body = [f"<h1>{html.escape(report.title)}</h1>"]
    body += [f"<p>{html.escape(text)}</p>" for text in report.opening]
    for section in report.sections:
        body.append(f"<h2>{html.escape(section.title)}</h2>")
        body += map(_html_table, section.tables)
        body += [_html_figure(figure, caption) for figure, caption in section.figures]
    body.append("<h2>What produced these numbers</h2>\n<dl>")
    for name, words in report.provenance:
        body.append(f"<dt>{html.escape(name)}</dt><dd>{html.escape(words)}</dd>")
    body.append("</dl>")
    head = f'<meta charset="utf-8">\n<title>{html.escape(report.title)}</title>\n{_CSS}'
    page = ["<!DOCTYPE html>", '<html lang="en">', f"<head>\n{head}\n</head>", "<body>"]
    with writing(out) as part:
        part.write_text("\n".join([*page, *body, "</body>", "</html>", ""]), encoding="utf-8")


_CSS = """<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
figure { margin: 2rem 0; overflow-x: auto; } figure img { max-width: 100%; }
table { border-collapse: collapse; border-block: 2px solid; font-variant-numeric: tabular-nums;
  margin: 0 auto; }
caption, figcaption { font-size: 0.85rem; text-align: left; padding-bottom: 0.5rem; }
th, td { padding: 0.05rem 0.7rem; text-align: right; white-space: nowrap; }
th { font-weight: normal; } th.text { text-align: left; }
tbody { border-top: 1px solid #999; } tbody.more { border-top-color: #ddd; }
th.title { text-align: left; font-style: italic; }
small { color: #555; font-size: 0.75em; } dt { font-weight: bold; }
</style>"""


def _html_table(table: Table) -> str:
    heads = [f'<th class="text" scope="col">{html.escape(text)}</th>' for text in table.corner]
    heads += [f'<th scope="col">{html.escape(text)}</th>' for text in table.columns]
    lines = ["<figure><table>", f"<caption>{html.escape(table.caption)}</caption>"]
    lines.append(f"<thead><tr>{''.join(heads)}</tr></thead>")
    for block in table.blocks:
        for number, group in enumerate(block.groups):
            more = number > 0 and block.title
            lines.append('<tbody class="more">' if more else "<tbody>")
            if block.title and not number:
                title = html.escape(block.title)
                lines.append(f'<tr><th class="title" colspan="{len(heads)}">{title}</th></tr>')
            for place, (method, cells) in enumerate(group.rows):
                labels = ("" if place else group.label, method)
                row = "".join(f'<th class="text">{html.escape(text)}</th>' for text in labels)
                lines.append(f"<tr>{row}{''.join(map(_html_cell, cells))}</tr>")
            lines.append("</tbody>")
    return "\n".join([*lines, "</table></figure>"])


def _html_cell(cell: Cell) -> str:
    text = f"<b>{cell.text}</b>" if cell.best else cell.text
    return f"<td>{text}{f' <small>±{cell.error}</small>' if cell.error else ''}</td>"


def _html_figure(figure: Figure, caption: str) -> str:
    data = base64.b64encode(figure_bytes(figure, "svg")).decode("ascii")
    words = html.escape(caption)
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{words}">'
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>"
