"""Plots of speed: where 2:4 begins to pay on a GPU, what sparse engines gain on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dass.report.plots import STYLE, add_legend
from dass.report.speed_tables import (
    ENGINES,
    NOT_MEASURED,
    PARTS,
    SpeedSettings,
    engine_label,
    ratio_of,
    variant_label,
)
from dass.speed.results import SpeedResult
from dass.speed.timing import Measurement
from dass.terms import DENSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#9e1f63", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7", "#8c8c8c")
STYLES = list(zip(COLOURS, "os^DvPX<", strict=True))
"""Colour and marker."""
_COLUMNS = 3

Panel = tuple[str, Sequence[Measurement]]


def speed_figure(kind: str, results: Sequence[SpeedResult], settings: SpeedSettings) -> Figure:
    """The figure of ``gpu`` or ``cpu``: one panel per shape and part, speed-up over tokens."""
    panels = [
        (f"{settings.subjects[result.subject]}, {label}", result.of(part))
        for result in results
        if result.subject in settings.subjects
        for part, label in PARTS.items()
        if result.of(part)
    ]
    return _figure(panels, "graph" if kind == "gpu" else "eager")


def speed_figure_caption(kind: str, settings: SpeedSettings) -> str:
    """The figure's caption."""
    what = {
        "gpu": "How many times faster than dense 2:4 is on the GPU, by tokens per call, as CUDA "
        "graphs; above the dashed line it pays.",
        "cpu": "How many times faster than the fastest dense engine each sparse one is on the CPU, "
        "by tokens per call; above the dashed line it pays.",
    }[kind]
    return f"{what} {settings.note}".strip()


def _figure(panels: Sequence[Panel], mode: str) -> Figure:
    from matplotlib import style
    from matplotlib.figure import Figure

    columns = max(1, min(_COLUMNS, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(max(2.4 * columns, 3.4), 2.3 * rows + 0.6), layout="constrained")
        if not panels:
            figure.text(0.5, 0.5, NOT_MEASURED, ha="center", va="center")
            return figure
        grid = figure.subplots(rows, columns, squeeze=False)
        styles: dict[str, tuple[str, str]] = {}
        for index, (axes, (title, own)) in enumerate(zip(grid.flat, panels, strict=False)):
            _draw(axes, [m for m in own if m.mode == mode], styles)
            axes.set_title(title)
            axes.set_xlabel("tokens")
            axes.set_ylabel("times faster than dense" if index % columns == 0 else "")
        for axes in list(grid.flat)[len(panels) :]:
            axes.remove()
        shown = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
        if handles := {label: handle for pairs in shown for handle, label in pairs}:
            add_legend(figure, handles)
    return figure


def _draw(axes: Axes, own: Sequence[Measurement], styles: dict[str, tuple[str, str]]) -> None:
    """One line per sparse variant, against the fastest dense engine at each number of tokens."""
    lines: dict[str, list[Measurement]] = {}
    for one in own:
        if one.variant != DENSE:
            engine = ENGINES.get(one.engine, engine_label(one))
            lines.setdefault(f"{engine} {variant_label(one.variant)}", []).append(one)
    for label, points in lines.items():
        colour, marker = styles.setdefault(label, STYLES[len(styles) % len(STYLES)])
        drawn = [(one.tokens, ratio_of(dense, one)) for one in points if (dense := _best(own, one))]
        x = [tokens for tokens, _ in drawn]
        y = [ratio.median for _, ratio in drawn]
        below = [ratio.median - ratio.low for _, ratio in drawn]
        above = [ratio.high - ratio.median for _, ratio in drawn]
        axes.errorbar(x, y, yerr=[below, above], color=colour, marker=marker, markersize=4,
                      linewidth=1, elinewidth=0.8, label=label)  # fmt: skip
    axes.axhline(1, color="black", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xscale("log", base=2)
    counts = sorted({one.tokens for one in own})
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_ylim(bottom=0)


def _best(own: Sequence[Measurement], one: Measurement) -> Measurement | None:
    """The fastest dense engine at the same number of tokens."""
    dense = [m for m in own if m.variant == DENSE and m.tokens == one.tokens]
    return min(dense, key=lambda m: m.spread.median, default=None)
