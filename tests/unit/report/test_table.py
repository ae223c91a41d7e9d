"""What a table prints, whatever is in it."""

from __future__ import annotations

from pathlib import Path

from dass.report.table import ROWS_PER_PAGE, Cell, RowGroup, Table, TableSection

from .latex import check_latex, latex


def long_table() -> Table:
    """Of more rows than a page holds; one section is too long by itself."""
    cells = [Cell("1.0", "0.1", True), Cell()]
    short = [RowGroup("", [("Dense", cells)]), RowGroup("50 %", [("x", cells)] * 9)]
    long = [RowGroup(f"{n}:64", [("x", cells)] * 10) for n in range(1, 7)]
    sections = [*(TableSection(f"short {n}", short) for n in range(5)), TableSection("long", long)]
    return Table(["p", "q"], sections, "Long.", "tab:long")


def test_a_long_table_goes_on_in_another_float() -> None:
    pages = long_table().pages()
    assert all(sum(section.n_rows for section in page) <= ROWS_PER_PAGE for page in pages)
    titles = [[section.title for section in page] for page in pages]
    assert titles == [[f"short {n}" for n in range(4)], ["short 4"], ["long"], ["long"]]
    groups = [group for page in pages for section in page for group in section.groups]
    assert groups == [group for section in long_table().sections for group in section.groups]
    latex = long_table().latex()
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 4
    assert latex.count(r"\caption{(continued)}") == 3
    assert latex.count(r"\label{") == 1
    assert latex.count(" x ") == 5 * 9 + 60


def test_cells_stand_below_one_another() -> None:
    rows = [("short", [Cell("1")]), ("longer", [Cell("100.25", best=True)])]
    table = Table(["n"], [TableSection("", [RowGroup("50 %", rows)])], "C.", "tab:t", ("A", "B"))
    assert [line for line in table.latex().splitlines() if "&" in line] == [
        r"A     & B      &               n \\",
        r"50 \% & short  &               1 \\",
        r"      & longer & \textbf{100.25} \\",
    ]


@latex
def test_a_long_table_compiles(tmp_path: Path) -> None:
    check_latex(tmp_path, long_table())
