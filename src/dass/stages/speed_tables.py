"""Write the table of one kind as LaTeX and Markdown."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dass.report.speed_tables import SpeedSettings, speed_table
from dass.runtime.files import write_text
from dass.speed.results import read_speed


def speed_tables(
    *, kind: str, settings: Mapping[str, Any], result_files: Iterable[str | Path],
    tex_file: str | Path, markdown_file: str | Path,
) -> None:  # fmt: skip
    """Write the table of one kind as LaTeX and Markdown.

    Args:
        kind: ``metric``, ``gpu`` or ``cpu``.
        settings: fields of :class:`dass.report.speed_tables.SpeedSettings`.
        result_files: of this kind.
        tex_file, markdown_file: what to write.
    """
    results = [read_speed(file) for file in result_files]
    table = speed_table(kind, results, [], SpeedSettings(**settings))
    write_text(tex_file, table.latex())
    write_text(markdown_file, table.markdown())
