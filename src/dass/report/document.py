"""One document per study: tables, figures, and what produced them; as PDF, as HTML and as LaTeX.

All three are made from the same plain values, by a template each. Values are printed as they are:
typst takes them as strings, not as markup, and jinja2 escapes them for HTML and for LaTeX.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
import typst

from dass.latex import escape_latex
from dass.report.contests import all_verdicts, mean_accuracy, perplexities
from dass.report.experiment import TableSettings, shown_rows
from dass.report.experiment_tables import perplexity_table, zero_shot_table
from dass.report.figures import figure_captions, perplexity_figure, zero_shot_figure
from dass.report.findings import findings
from dass.report.plots import figure_bytes
from dass.report.published_table import published_table
from dass.report.table import Cell, Table
from dass.results.published import Published
from dass.results.summary import SummaryRow
from dass.runtime.files import write_text, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).with_name("templates")


class Drawing(NamedTuple):
    """A figure of the report."""

    figure: Figure
    caption: str
    file: str
    """The same figure as PDF, relative to the study's results; LaTeX includes it."""


@dataclass(frozen=True)
class Section:
    """What one experiment shows."""

    title: str
    tables: list[Table] = field(default_factory=list)
    figures: list[Drawing] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    """Sentences made of numbers, printed above the tables."""
    empty: str = ""
    """Why there are neither tables nor figures: printed in their place."""


@dataclass(frozen=True)
class Report:
    """A document as plain text, tables and figures."""

    title: str
    opening: list[str]
    """The paragraphs below the title."""
    sections: list[Section]
    provenance: list[tuple[str, str]]
    """What and how, for the table at the end."""
    differences: list[str] = field(default_factory=list)
    """From the paper, a sentence each."""


def make_report(
    rows: Sequence[SummaryRow],
    experiments: Iterable[TableSettings],
    title: str,
    description: str,
    note: str = "",
    published: Sequence[Published] = (),
    more: Iterable[Section] = (),
    differences: Iterable[str] = (),
) -> Report:
    """Tables and figures of every experiment, in the order given.

    Args:
        rows: of the study's summary.
        experiments: one section each.
        title, description, note: the study's.
        published: numbers to compare with; with none about a section's runs, it has no such table.
        more: sections that follow, e.g. on speed.
        differences: from the paper, by :func:`dass.report.differences.paper_differences`.
    """
    sections = [experiment_section(rows, settings, published) for settings in experiments]
    opening = [text for text in (description, note) if text]
    provenance = provenance_lines(rows)
    return Report(title, opening, [*sections, *more], provenance, list(differences))


def experiment_section(
    rows: Sequence[SummaryRow], settings: TableSettings, published: Sequence[Published] = ()
) -> Section:
    """Findings, tables and figures of an experiment, of what was measured for it."""
    verdicts = all_verdicts(shown_rows(rows, settings), settings)
    folder = f"figures/{settings.experiment}"
    tables, figures = [], []
    for measure in perplexities(settings):
        tables.append(perplexity_table(rows, settings, measure, verdicts[measure]))
        drawn = perplexity_figure(rows, settings, measure, verdicts[measure])
        caption, _ = figure_captions(settings, measure)
        figures.append(Drawing(drawn, caption, f"{folder}/{measure.kind}.pdf"))
    if settings.tasks:
        own = verdicts[mean_accuracy(settings)]
        tables.append(zero_shot_table(rows, settings, own))
        drawn = zero_shot_figure(rows, settings, own)
        _, caption = figure_captions(settings)
        figures.append(Drawing(drawn, caption, f"{folder}/zero_shot.pdf"))
    beside = published_table(rows, settings, published)
    if beside.sections:
        tables.append(beside)
    return Section(settings.title, tables, figures, findings(rows, settings, verdicts))


def provenance_lines(rows: Sequence[SummaryRow]) -> list[tuple[str, str]]:
    """What produced the summary's numbers: name and words, where known."""
    pruned = [row.pruning for row in rows if row.pruning]
    dates = sorted(max(row.origins("date")) for row in rows if row.origins("date"))
    lines = [
        ("Runs", str(len(rows))),
        ("Date", " to ".join(dict.fromkeys(dates[:1] + dates[-1:]))),
        ("Commit", _distinct(row.origins("commit") for row in rows)),
        ("Device", _distinct(row.origins("device") for row in rows)),
        ("Versions", _distinct(row.versions for row in rows)),
        ("Sparsity of pruned matrices", _span((one.mean_sparsity for one in pruned), ".4f")),
        ("Pruning time per run, s", _span((one.seconds.get("total") for one in pruned), ".1f")),
        ("Peak memory per run, GB", _span((r.peak_memory("host") for r in rows), ".2f", 1e9)),
        ("Peak GPU memory per run, GB", _span((r.peak_memory("device") for r in rows), ".2f", 1e9)),
    ]
    return [(name, words) for name, words in lines if words]


def _distinct(texts: Iterable[list[str]]) -> str:
    return "; ".join(dict.fromkeys(text for several in texts for text in several))


def _span(values: Iterable[float | None], form: str, unit: float = 1) -> str:
    """``5.8 to 6.2``, in this unit."""
    known = [value / unit for value in values if value is not None]
    return " to ".join(dict.fromkeys(f"{f(known):{form}}" for f in (min, max))) if known else ""


# --- Files --------------------------------------------------------------------------------------


TIED = "Underlined: among the best, which noise does not let us tell apart."
"""Printed where a table has such numbers."""


def write_report(report: Report, pdf: str | Path, html: str | Path, tex: str | Path) -> None:
    """Write the report as PDF, as one HTML file that needs no other, and as LaTeX.

    Numbers in HTML link to their result files, and LaTeX includes the figures' files: both lie in
    the folder of the study's results, as the report does.
    """
    values = _values(report)
    page = _html_environment().get_template("report.html").render(values)
    source = _latex_environment().get_template("report.tex").render(values)
    document = typst.compile(
        TEMPLATES / "report.typ",
        ignore_system_fonts=True,  # the same pages on every machine
        sys_inputs={"report": json.dumps(values)},
        format="pdf",
    )
    with writing(pdf) as part:
        part.write_bytes(document)
    write_text(html, page)
    write_text(tex, source)


def _values(report: Report) -> dict[str, Any]:
    """The report as the templates print it."""
    cells = [cell for section in report.sections for cell in _cells(section)]
    return {
        **vars(report),
        "sections": [_plain(section) for section in report.sections],
        "legend": TIED if any(cell.tied for cell in cells) else "",
        "linked": any(cell.sources for cell in cells),
    }


def _cells(section: Section) -> list[Cell]:
    return [
        cell
        for table in section.tables
        for part in table.sections
        for group in part.groups
        for _, cells in group.rows
        for cell in cells
    ]


def _plain(section: Section) -> dict[str, Any]:
    """A section as texts and lists, its tables as LaTeX too, and its figures as SVG."""
    return {
        **vars(section),
        "tables": [asdict(table) | {"latex": table.latex()} for table in section.tables],
        "figures": [
            {
                "svg": figure_bytes(drawing.figure, "svg").decode(),
                "caption": drawing.caption,
                "file": drawing.file,
            }
            for drawing in section.figures
        ],
    }


def _html_environment() -> jinja2.Environment:
    environment = _environment(autoescape=True)
    environment.filters["base64"] = lambda text: base64.b64encode(text.encode()).decode()
    return environment


def _latex_environment() -> jinja2.Environment:
    """Braces are LaTeX's own, so the template has other marks; all that it prints is escaped.

    But for what the template calls ``verbatim``: tables, which are LaTeX already, and file names.
    """
    environment = _environment(
        block_start_string="<%", block_end_string="%>", variable_start_string="<<",
        variable_end_string=">>", comment_start_string="<#", comment_end_string="#>",
        finalize=lambda value: value if isinstance(value, _Verbatim) else escape_latex(str(value)),
    )  # fmt: skip
    environment.filters["verbatim"] = _Verbatim
    return environment


class _Verbatim(str):
    """Text that is LaTeX already."""


def _environment(**options: Any) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
