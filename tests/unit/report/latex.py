"""Whether pdflatex takes a document, or a table in one with nothing but booktabs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TypeVar

import pytest

from dass.report.table import Table

Test = TypeVar("Test")


def latex(test: Test) -> Test:
    """Marks a test that needs pdflatex."""
    missing = shutil.which("pdflatex") is None
    skipped = pytest.mark.skipif(missing, reason="pdflatex is not installed")(test)
    marked: Test = pytest.mark.latex(skipped)
    return marked


def check_latex(folder: Path, *tables: Table) -> None:
    """Compile a document of these tables; fails with the log."""
    head = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}"]
    body = [*head, *(table.latex() for table in tables), r"\end{document}"]
    (folder / "tables.tex").write_text("\n".join(body), encoding="utf-8")
    compile_latex(folder / "tables.tex")


def compile_latex(file: Path) -> None:
    """Compile a document in its folder; fails with the log."""
    done = subprocess.run(
        ["pdflatex", "-interaction=batchmode", "-halt-on-error", file.name],
        cwd=file.parent, capture_output=True, check=False,
    )  # fmt: skip
    log = file.with_suffix(".log")
    assert done.returncode == 0, log.read_text(errors="replace") if log.exists() else done.stdout
