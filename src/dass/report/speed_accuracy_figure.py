"""The figure of accuracy against speed: a point per run, one panel per model and card."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from dass.report.experiment import TableSettings
from dass.report.plots import DENSE_STYLE, MARK, bar_of, log_ticks, panels, styles_of
from dass.report.speed_accuracy import Panel, points_of, tokens_drawn
from dass.report.speed_tables import NOT_MEASURED
from dass.report.words import pattern_label

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FILLS: list[dict[str, str]] = [
    {}, {"markerfacecolor": "white"}, *({"fillstyle": side} for side in ("left", "top", "right")),
]  # fmt: skip
"""Of the marks, by pattern; colour and shape are the method's."""
_HALF = MARK | {"markerfacecoloralt": "white", "linestyle": ""}
Styles = dict[str, dict[str, Any]]
_STEEP = 5
"""Perplexities further apart than this factor stand on a logarithmic scale."""


def speed_accuracy_figure(part: str, shown: Sequence[Panel], settings: TableSettings) -> Figure:
    """Perplexity over times as fast as dense; dashed lines cross at the dense model.

    Args:
        part: ``prefill`` or ``decode``.
        shown: by :func:`dass.report.speed_accuracy.panels_of`.
        settings: as for those.
    """
    from matplotlib.lines import Line2D

    names, fills = _styles(part, shown)
    legend: dict[str, Artist] = {name: Line2D([], [], **own) for name, own in names.items()}
    for pattern, fill in fills.items() if len(fills) > 1 else ():
        grey = _HALF | {"color": "#555555", "markeredgecolor": "#555555", "marker": "o"}
        legend[pattern_label(pattern)] = Line2D([], [], **(grey | fill))
    figure = panels(
        [panel.title for panel in shown],
        "perplexity",
        lambda axes, index: _draw(axes, part, shown[index], names, fills),
        legend | ({"Dense": Line2D([], [], **DENSE_STYLE)} if shown else {}),
        sharey=False,
    )
    if not shown:
        figure.text(0.5, 0.5, NOT_MEASURED, ha="center", va="center")
    return figure


def _styles(part: str, shown: Sequence[Panel]) -> tuple[Styles, Styles]:
    """Those of the lines' names and of the patterns, the same in all panels."""
    entries = [entry for panel in shown for entry, _ in points_of(part, panel)]
    methods = {entry.name: entry.line.method for entry in entries}
    names: Styles = {
        name: _HALF | {"color": colour, "markeredgecolor": colour, "marker": marker}
        for name, (colour, marker) in styles_of(methods).items()
    }
    patterns = dict.fromkeys(str(entry.line.pattern) for entry in entries)
    return names, dict(zip(patterns, cycle(_FILLS), strict=False))


def _draw(axes: Axes, part: str, panel: Panel, names: Styles, fills: Styles) -> None:
    heights = []
    for entry, (low, median, high) in points_of(part, panel):
        value = entry.perplexity
        heights.append(value.value)
        mark = names[entry.name] | fills[str(entry.line.pattern)]
        _, _, bars = axes.errorbar(
            median, value.value, xerr=[[median - low], [high - median]], yerr=bar_of(value),
            elinewidth=0.8, zorder=3, **mark,
        )  # fmt: skip
        for bar in bars:
            bar.set_zorder(2)  # a hollow mark shows none of it
    axes.axvline(1, zorder=1, **DENSE_STYLE)
    if panel.dense_perplexity:
        heights.append(panel.dense_perplexity.value)
        axes.axhline(panel.dense_perplexity.value, zorder=1, **DENSE_STYLE)
    if max(heights) / min(heights) > _STEEP:
        axes.set_yscale("log")
        log_ticks(axes)
    tokens = tokens_drawn(part, panel)
    calls = f"{tokens:,} {'sequence' if part == 'decode' else 'token'}{'s' * (tokens > 1)}"
    axes.set_xlabel(f"times as fast as dense\n({part}, {calls})")
