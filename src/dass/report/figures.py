"""Plots of the summary: what pruning costs each model, by method and pattern.

Vector files without a date in them, so that the same numbers give the same bytes. Methods differ
in marker as well as in colour, so that a print in black and white can be read.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dass.errors import DataError
from dass.report.experiment import (
    DENSE_LINE,
    Line,
    Lines,
    TableSettings,
    Value,
    mean_accuracy,
    perplexity_of,
    shown_rows,
)
from dass.report.words import pattern_label
from dass.results.summary import SummaryRow
from dass.runtime.files import writing

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {
    "magnitude": ("#8c8c8c", "v"),
    "wanda": ("#e69f00", "s"),
    "sparsegpt": ("#56b4e9", "^"),
    "dass": ("#9e1f63", "o"),
}
"""Colour and marker of the paper's methods: the same in every figure."""
_OTHERS = [("#009e73", "D"), ("#0072b2", "P"), ("#000000", "X"), ("#d55e00", "<"), ("#cc79a7", ">")]
_COLUMNS = 3
"""Panels side by side."""
_CHARACTERS_PER_INCH = 13
"""Of the legend's text, roughly."""
STYLE: dict[str, Any] = {  # on top of matplotlib's own, whatever the user's matplotlibrc says
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a label with two $ is no formula
    "svg.fonttype": "path",
    "svg.hashsalt": "dass",
}

Plotted = dict[Line, Value]
_DENSE: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": (0, (4, 3))}
_MARK: dict[str, Any] = {
    "markersize": 5, "markeredgecolor": "black", "markeredgewidth": 0.4, "linestyle": "",
}  # fmt: skip


def perplexity_figure(rows: Iterable[SummaryRow], settings: TableSettings) -> Figure:
    """Each run's perplexity over its dense model's: one panel per model, log scale; 1 is dense."""

    def ratios(own: Lines) -> Plotted:
        dense = perplexity_of(own.get(DENSE_LINE), settings.split)
        values = {line: perplexity_of(row, settings.split) for line, row in own.items()}
        return {
            line: Value(value.value / dense.value)
            for line, value in values.items()
            if value and dense
        }

    figure = _panels(rows, settings, ratios, "perplexity relative to dense", stems=True)
    for axes in figure.axes:
        _log_scale(axes)
    return figure


def zero_shot_figure(rows: Iterable[SummaryRow], settings: TableSettings) -> Figure:
    """Each run's mean accuracy in percent with its standard error: one panel per model."""

    def percents(own: Lines) -> Plotted:
        means = {line: mean_accuracy(row, settings) for line, row in own.items()}
        return {line: mean.times(100) for line, mean in means.items() if mean}

    return _panels(rows, settings, percents, f"mean {settings.metric} in %", stems=False)


def figure_captions(settings: TableSettings) -> tuple[str, str]:
    """What stands below the perplexity and below the zero-shot figure."""
    perplexity = (
        f"{settings.title}: perplexity on the {settings.split} split relative to the dense model "
        "(dashed line), on a logarithmic scale; lower is better. One panel per model."
    )
    accuracy = (
        f"{settings.title}: zero-shot accuracy ({settings.metric}), mean of {len(settings.tasks)} "
        "tasks with its standard error; dashed line and band: the dense model; higher is better."
    )
    return f"{perplexity} {settings.note}".strip(), f"{accuracy} {settings.note}".strip()


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as its file's ending says: pdf or svg; the same bytes every time."""
    path = Path(path)
    with writing(path) as part:
        part.write_bytes(figure_bytes(figure, path.suffix.removeprefix(".")))


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as pdf or svg.

    Raises:
        DataError: another kind.
    """
    from matplotlib import style

    dates = {"pdf": ["CreationDate", "ModDate"], "svg": ["Date"]}
    if kind not in dates:
        raise DataError(f"figures are written as .pdf or .svg, not as .{kind}")
    with style.context(["default", STYLE]), io.BytesIO() as drawn:
        figure.savefig(drawn, format=kind, metadata=dict.fromkeys(dates[kind]))
        return drawn.getvalue()


def _panels(
    rows: Iterable[SummaryRow],
    settings: TableSettings,
    values: Callable[[Lines], Plotted],
    name: str,
    stems: bool,
) -> Figure:
    """One panel per model; ``values`` gives what to plot of a model's rows, dense among them."""
    from matplotlib import style
    from matplotlib.figure import Figure

    shown = shown_rows(rows, settings)
    columns = min(_COLUMNS, len(settings.models))
    height = -(-len(settings.models) // columns)
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(max(2.3 * columns, 3.4), 2.3 * height + 0.4), layout="constrained")
        # One scale for all, so that models can be compared at a glance.
        grid = figure.subplots(height, columns, squeeze=False, sharey=True)
        for index, (axes, (model, label)) in enumerate(
            zip(grid.flat, settings.models.items(), strict=False)
        ):
            _draw_panel(axes, values(shown[model]), settings, stems)
            axes.set_title(label)
            axes.set_ylabel(name if index % columns == 0 else "")
        for axes in grid.flat[len(settings.models) :]:
            axes.remove()
        _legend(figure, settings)
    return figure


def _draw_panel(axes: Axes, values: Plotted, settings: TableSettings, stems: bool) -> None:
    """One model: a cluster of marks per pattern, one mark per method, a line for dense."""
    styles = method_styles(settings)
    for place, pattern in enumerate(settings.patterns):
        lines = settings.lines(pattern)
        for number, line in enumerate(lines):
            if (value := values.get(line)) is None:
                continue
            _, colour, marker = styles[line[:2]]
            x = place + (number - (len(lines) - 1) / 2) * 0.8 / len(lines)
            if stems:
                axes.vlines(x, 1, value.value, colors=colour, linewidth=1.2, zorder=2)
            style = {"color": colour, "marker": marker, "elinewidth": 1, "zorder": 3, **_MARK}
            axes.errorbar(x, value.value, yerr=value.error, **style)
    if dense := values.get(DENSE_LINE):
        axes.axhline(dense.value, zorder=1, **_DENSE)
        if dense.error:
            low, high = dense.value - dense.error, dense.value + dense.error
            axes.axhspan(low, high, color="black", alpha=0.08, linewidth=0)
    axes.set_xticks(range(len(settings.patterns)), [pattern_label(p) for p in settings.patterns])
    axes.set_xlim(-0.6, len(settings.patterns) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)


def add_legend(figure: Figure, marks: Mapping[str, Artist]) -> None:
    """Label -> mark, below all panels, in as many columns as fit."""
    fitting = int(figure.get_figwidth() * _CHARACTERS_PER_INCH / (max(map(len, marks)) + 6))
    figure.legend(
        list(marks.values()), list(marks), loc="outside lower center",
        ncols=max(1, min(5, fitting)), frameon=False,
    )  # fmt: skip


def _legend(figure: Figure, settings: TableSettings) -> None:
    """One for all panels: a method may be missing from any one of them."""
    from matplotlib.lines import Line2D

    marks = {
        label: Line2D([], [], color=colour, marker=marker, **_MARK)
        for label, colour, marker in method_styles(settings).values()
    }
    add_legend(figure, marks | {"Dense": Line2D([], [], **_DENSE)})


def method_styles(settings: TableSettings) -> dict[tuple[str | None, str], tuple[str, str, str]]:
    """(calibration, method) -> label, colour, marker; the paper's methods always keep theirs."""
    others, free, styles = cycle(_OTHERS), dict(STYLES), {}
    for (calibration, method, _), label in settings.lines(settings.patterns[0]).items():
        colour, marker = free.pop(method) if method in free else next(others)
        styles[calibration, method] = (label, colour, marker)
    return styles


def _log_scale(axes: Axes) -> None:
    """From just below dense; plain numbers at 1, 2, 5, 10, ... as ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.95), max(high, 1.25))
    steps = (1, 1.2, 1.5, 2, 3, 5) if high < 8 else (1, 2, 5) if high < 300 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.yaxis.set_minor_formatter(NullFormatter())
