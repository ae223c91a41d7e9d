"""The report's sections on speed: the same tables and figures as the files."""

from collections.abc import Mapping, Sequence
from typing import Any

from dass.report.document import Drawing, Section
from dass.report.experiment import TableSettings
from dass.report.speed_accuracy import figure_caption, panels_of, speed_accuracy_table
from dass.report.speed_accuracy_figure import speed_accuracy_figure
from dass.report.speed_figures import speed_figure, speed_figure_caption
from dass.report.speed_tables import SpeedSettings, speed_table
from dass.results.schema import PruningResult
from dass.results.summary import SummaryRow
from dass.speed.results import SpeedResult

NOT_MEASURED = "Not measured here: the study has no result of this benchmark."
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
    """One section per kind of benchmark that the study asks for, also where it was not run.

    Args:
        results: of all kinds.
        pruning: for the times of whole prunings.
        settings: kind -> fields of :class:`SpeedSettings`, in the order of the sections.
    """
    return [
        _section(kind, [one for one in results if one.kind == kind], pruning, SpeedSettings(**own))
        for kind, own in settings.items()
    ]


def speed_accuracy_section(
    results: Sequence[SpeedResult], rows: Sequence[SummaryRow], settings: Mapping[str, Any] | None
) -> list[Section]:
    """Accuracy against speed: a table and a figure of decode and of prefill, as far as measured.

    Args:
        results: of all kinds.
        rows: of the study's summary.
        settings: fields of :class:`TableSettings`; None where no run is timed.
    """
    if settings is None:
        return []
    shown = TableSettings(**settings)
    section = Section(shown.title)
    for part in ("decode", "prefill"):
        if panels := panels_of(part, results, rows, shown):
            drawn = speed_accuracy_figure(part, panels, shown)
            caption = figure_caption(part, panels, shown)
            section.tables.append(speed_accuracy_table(part, panels, shown))
            section.figures.append(Drawing(drawn, caption, f"speed/figures/{part}.pdf"))
    return [section] if section.tables else []


def _section(
    kind: str, results: Sequence[SpeedResult], pruning: Sequence[PruningResult],
    settings: SpeedSettings,
) -> Section:  # fmt: skip
    """A table, and but for pruning times a figure; one sentence where nothing was measured."""
    if not results:
        return Section(TITLES[kind], empty=NOT_MEASURED)
    figures = []
    if kind != "metric":
        drawn, caption = speed_figure(kind, results, settings), speed_figure_caption(kind, settings)
        figures = [Drawing(drawn, caption, f"speed/figures/{kind}.pdf")]
    return Section(TITLES[kind], [speed_table(kind, results, pruning, settings)], figures)
