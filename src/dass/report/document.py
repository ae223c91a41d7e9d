"""One document per study: tables, figures, and what produced them; as PDF and as HTML.

Both are made from the same plain values, by a template each. Values are printed as they are:
typst takes them as strings, not as markup, and jinja2 escapes them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import typst

from dass.report.experiment import TableSettings
from dass.report.experiment_tables import perplexity_table, zero_shot_table
from dass.report.figures import figure_captions, perplexity_figure, zero_shot_figure
from dass.report.plots import figure_bytes
from dass.report.published_table import published_table
from dass.report.table import Table
from dass.results.published import Published
from dass.results.summary import SummaryRow
from dass.runtime.files import write_text, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Section:
    """What one experiment shows."""

    title: str
    tables: list[Table]
    figures: list[tuple[Figure, str]]
    """Each with its caption."""


@dataclass(frozen=True)
class Report:
    """A document as plain text, tables and figures."""

    title: str
    opening: list[str]
    """The paragraphs below the title."""
    sections: list[Section]
    provenance: list[tuple[str, str]]
    """What and how, for the table at the end."""


def make_report(
    rows: Sequence[SummaryRow],
    experiments: Iterable[TableSettings],
    title: str,
    description: str,
    note: str = "",
    published: Sequence[Published] = (),
    more: Iterable[Section] = (),
) -> Report:
    """Tables and figures of every experiment, in the order given.

    Args:
        rows: of the study's summary.
        experiments: one section each.
        title, description, note: the study's.
        published: numbers to compare with; with none about a section's runs, it has no such table.
        more: sections that follow, e.g. on speed.
    """
    sections = [_section(rows, settings, published) for settings in experiments]
    opening = [text for text in (description, note) if text]
    return Report(title, opening, [*sections, *more], provenance_lines(rows))


def _section(
    rows: Sequence[SummaryRow], settings: TableSettings, published: Sequence[Published]
) -> Section:
    captions = figure_captions(settings)
    tables = [perplexity_table(rows, settings)]
    figures = [(perplexity_figure(rows, settings), captions[0])]
    if settings.tasks:
        tables.append(zero_shot_table(rows, settings))
        figures.append((zero_shot_figure(rows, settings), captions[1]))
    beside = published_table(rows, settings, published)
    if beside.sections:
        tables.append(beside)
    return Section(settings.title, tables, figures)


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


def write_report(report: Report, pdf: str | Path, html: str | Path) -> None:
    """Write the report as PDF, and as one HTML file that needs no other."""
    values = {**vars(report), "sections": [_plain(section) for section in report.sections]}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda text: base64.b64encode(text.encode()).decode()
    page = environment.get_template("report.html").render(values)
    document = typst.compile(
        TEMPLATES / "report.typ",
        ignore_system_fonts=True,  # the same pages on every machine
        sys_inputs={"report": json.dumps(values)},
        format="pdf",
    )
    with writing(pdf) as part:
        part.write_bytes(document)
    write_text(html, page)


def _plain(section: Section) -> dict[str, Any]:
    """A section as the templates print it: texts, lists, and figures as SVG."""
    return {
        "title": section.title,
        "tables": [asdict(table) for table in section.tables],
        "figures": [
            {"svg": figure_bytes(figure, "svg").decode(), "caption": caption}
            for figure, caption in section.figures
        ],
    }
