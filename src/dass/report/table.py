"""What a table is, and how it is printed.

A :class:`Table` holds plain text; :meth:`Table.latex` and :meth:`Table.markdown` escape it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tabulate import tabulate

from dass.latex import escape_latex
from dass.report.words import DASH, escape_markdown

ROWS_PER_PAGE = 46
"""A LaTeX table of more rows goes on in a second float, since a float cannot break."""


@dataclass(frozen=True)
class Cell:
    """One printed number, or a dash."""

    text: str = DASH
    error: str = ""
    """Standard deviation or standard error, printed smaller after the number."""
    best: bool = False
    """Better than all that it is compared with, beyond noise: printed in bold."""
    tied: bool = False
    """Among the best, which noise does not let us tell apart: printed underlined."""
    sources: tuple[str, ...] = ()
    """The result files that the number is made of, relative to the study's results."""

    def made_of(self, *sources: str) -> Cell:
        """The cell with its sources; a dash has none."""
        return self if self.text == DASH else replace(self, sources=sources)


@dataclass(frozen=True)
class RowGroup:
    """Rows under one label, such as those of one pattern."""

    label: str
    rows: list[tuple[str, list[Cell]]]
    """The label of each row, such as its method, and its cells, one per column."""

    def made_of(self, *sources: str) -> RowGroup:
        """The group, all numbers of which come from the same files."""
        rows = [(label, [cell.made_of(*sources) for cell in cells]) for label, cells in self.rows]
        return RowGroup(self.label, rows)


@dataclass(frozen=True)
class TableSection:
    """Groups of rows under one title; a table with a single section needs none."""

    title: str
    groups: list[RowGroup]

    @property
    def n_rows(self) -> int:
        """Lines that the section takes."""
        return sum(len(group.rows) for group in self.groups) + bool(self.title)

    def cut(self, rows: int) -> Iterator[TableSection]:
        """The section, cut between its groups where it is longer than ``rows`` lines."""
        groups: list[RowGroup] = []
        for group in self.groups:
            if groups and TableSection(self.title, [*groups, group]).n_rows > rows:
                yield TableSection(self.title, groups)
                groups = []
            groups.append(group)
        yield TableSection(self.title, groups)


@dataclass(frozen=True)
class Table:
    """A table as plain text, to be printed as LaTeX or Markdown, or by the report's templates."""

    columns: list[str]
    sections: list[TableSection]
    caption: str
    label: str
    """LaTeX's, e.g. ``tab:main-perplexity``."""
    corner: tuple[str, str] = ("Sparsity", "Method")
    """Heads of the first two columns."""

    def latex(self) -> str:
        """A complete ``table`` environment that needs the package booktabs only.

        A table that would not fit on a page becomes several, under one number.
        """
        pages = self.pages()
        return "\n".join(self._latex_page(page, first=page is pages[0]) for page in pages)

    def pages(self) -> list[list[TableSection]]:
        """The sections, in parts that fit on a page; only one that does not is itself cut."""
        pages: list[list[TableSection]] = [[]]
        for section in (part for whole in self.sections for part in whole.cut(ROWS_PER_PAGE)):
            if pages[-1] and sum(s.n_rows for s in [*pages[-1], section]) > ROWS_PER_PAGE:
                pages.append([])
            pages[-1].append(section)
        return pages

    def markdown(self) -> str:
        """The caption as a paragraph, and the table; title and label stand in every row."""
        titled = any(section.title for section in self.sections)
        head = [*(["Model"] if titled else []), *self.corner, *self.columns]
        n_texts = len(head) - len(self.columns)
        rows = [
            [
                *map(escape_markdown, [section.title, group.label, label][-n_texts:]),
                *map(_markdown_cell, cells),
            ]
            for section in self.sections
            for group in section.groups
            for label, cells in group.rows
        ]
        table = tabulate(
            rows,
            list(map(escape_markdown, head)),
            tablefmt="pipe",
            colalign=["left"] * n_texts + ["right"] * len(self.columns),
            disable_numparse=True,
        )
        return f"{escape_markdown(self.caption)}\n\n{table}\n"

    def _latex_page(self, sections: list[TableSection], first: bool) -> str:
        """One float with these sections."""
        head = [r"\begin{table}[htbp]", r"\centering", r"\setlength{\belowcaptionskip}{3pt}"]
        if first:
            head += [rf"\caption{{{escape_latex(self.caption)}}}", rf"\label{{{self.label}}}"]
        else:
            head += [r"\addtocounter{table}{-1}", r"\caption{(continued)}"]
        head += [r"\footnotesize", r"\setlength{\tabcolsep}{3pt}"]
        head += [r"\renewcommand{\arraystretch}{0.95}"]
        # A table wider than the text reaches into both margins alike.
        align = "ll" + "r" * len(self.columns)
        head += [r"\makebox[\linewidth]{%", rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}"]
        body: list[str | list[str]] = [r"\toprule"]
        body.append(list(map(escape_latex, [*self.corner, *self.columns])))
        for section in sections:
            body.append(r"\midrule")
            if section.title:
                title = escape_latex(section.title)
                body.append(rf"\multicolumn{{{len(align)}}}{{@{{}}l}}{{\textit{{{title}}}}} \\")
            for number, group in enumerate(section.groups):
                if number:
                    body.append(r"\addlinespace[2pt]" if section.title else r"\midrule")
                body += _latex_rows(group)
        foot = [r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""]
        return "\n".join([*head, *_aligned(body), *foot])


def _latex_rows(group: RowGroup) -> list[list[str]]:
    """The cells of each row; the group's label stands in the first."""
    return [
        [escape_latex("" if number else group.label), escape_latex(label), *map(_latex_cell, cells)]
        for number, (label, cells) in enumerate(group.rows)
    ]


def _aligned(lines: list[str | list[str]]) -> list[str]:
    """Lines as they are, and rows with their cells below one another, two texts, then numbers."""
    rows = [line for line in lines if isinstance(line, list)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def joined(row: list[str]) -> str:
        texts = [cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        return " & ".join([*texts, *numbers]) + r" \\"

    return [joined(line) if isinstance(line, list) else line for line in lines]


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    text = rf"\underline{{{text}}}" if cell.tied else text
    return rf"{text} {{\tiny$\pm${cell.error}}}" if cell.error else text


def _markdown_cell(cell: Cell) -> str:
    text = (
        f"**{cell.text}**" if cell.best else f"<ins>{cell.text}</ins>" if cell.tied else cell.text
    )
    return f"{text} ± {cell.error}" if cell.error else text
