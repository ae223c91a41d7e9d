"""The report's sections on speed: the same tables and figures as the files."""

from collections.abc import Mapping, Sequence
from typing import Any

from dass.report.document import Section
from dass.report.speed_figures import speed_figure, speed_figure_caption
from dass.report.speed_tables import SpeedSettings, speed_table
from dass.results.schema import PruningResult
from dass.speed.results import SpeedResult

TITLES = {
    "metric": "Speed: pruning time",
    "gpu": "Speed: 2:4 on a GPU",
    "cpu": "Speed: sparse engines on a CPU",
}


def speed_sections(
    results: Sequence[SpeedResult],
    pruning: Sequence[PruningResult],
    settings: Mapping[str, Mapping[str, Any]],
) -> list[Section]:
    """One section per kind of benchmark that the study asks for.

    Args:
        results: of all kinds.
        pruning: for the times of whole prunings.
        settings: kind -> fields of :class:`SpeedSettings`, in the order of the sections.
    """
    sections = []
    for kind, fields in settings.items():
        own = [result for result in results if result.kind == kind]
        chosen = SpeedSettings(**fields)
        table = speed_table(kind, own, pruning, chosen)
        figures = []
        if kind != "metric" and own:
            figures = [(speed_figure(kind, own, chosen), speed_figure_caption(kind, chosen))]
        sections.append(Section(TITLES[kind], [table], figures))
    return sections
