"""Write the tables of blocks as LaTeX and Markdown."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dass.report.block_tables import BlockSettings, block_table
from dass.results.schema import BlocksResult, read_result
from dass.runtime.files import write_text


def block_tables(
    *, errors: Iterable[str | Path], settings: Mapping[str, Any], out: Iterable[str | Path]
) -> None:
    """Write the tables of blocks as LaTeX and Markdown.

    Args:
        errors: results of the stage ``block_errors``.
        settings: fields of :class:`dass.report.block_tables.BlockSettings`.
        out: what to write: ``glu_error`` or ``hidden_error``, ``.tex`` or ``.md``.
    """
    results = [read_result(file, BlocksResult) for file in errors]
    for path in map(Path, out):
        table = block_table(path.stem, results, BlockSettings(**settings))
        write_text(path, table.latex() if path.suffix == ".tex" else table.markdown())
