"""Write the table and draw the figure of accuracy against speed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dass.report.experiment import TableSettings
from dass.report.plots import save_figure
from dass.report.speed_accuracy import panels_of, speed_accuracy_table
from dass.report.speed_accuracy_figure import speed_accuracy_figure
from dass.results.summary import summarise
from dass.runtime.files import write_text
from dass.speed.results import read_speed


def speed_accuracy(
    *, part: str, settings: Mapping[str, Any], result_files: Iterable[str | Path],
    perplexity: Iterable[str | Path], zero_shot: Iterable[str | Path],
    tex_file: str | Path, markdown_file: str | Path, figure_file: str | Path,
) -> None:  # fmt: skip
    """Write the table and draw the figure of accuracy against speed.

    Args:
        part: ``prefill`` or ``decode``.
        settings: fields of :class:`dass.report.experiment.TableSettings`.
        result_files: of the runs' prefill.
        perplexity, zero_shot: results of the same runs and of the dense models.
        tex_file, markdown_file, figure_file: what to write.
    """
    shown, rows = TableSettings(**settings), summarise([], perplexity, zero_shot).rows
    panels = panels_of(part, map(read_speed, result_files), rows, shown)
    table = speed_accuracy_table(part, panels, shown)
    write_text(tex_file, table.latex())
    write_text(markdown_file, table.markdown())
    save_figure(speed_accuracy_figure(part, panels, shown), figure_file)
