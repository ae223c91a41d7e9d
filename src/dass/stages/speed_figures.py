"""Draw the figure of one kind."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dass.report.plots import save_figure
from dass.report.speed_figures import speed_figure
from dass.report.speed_tables import SpeedSettings
from dass.speed.results import read_speed


def speed_figures(
    *, kind: str, settings: Mapping[str, Any], result_files: Iterable[str | Path],
    figure_file: str | Path,
) -> None:  # fmt: skip
    """Draw the figure of one kind.

    Args:
        kind: ``gpu`` or ``cpu``.
        settings, result_files: as for the stage ``speed_tables``.
        figure_file: what to write.
    """
    results = [read_speed(file) for file in result_files]
    save_figure(speed_figure(kind, results, SpeedSettings(**settings)), figure_file)
