"""The style of all figures: panels side by side, one legend below, the same bytes every time.

Vector files without a date in them. Methods differ in marker as well as in colour, so that a print
in black and white can be read; the colours are told apart by colour-blind readers, too.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dass.errors import DataError
from dass.report.measures import Value
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
OTHERS = [("#009e73", "D"), ("#0072b2", "P"), ("#000000", "X"), ("#d55e00", "<"), ("#cc79a7", ">")]
DENSE_STYLE: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": (0, (4, 3))}
MARK: dict[str, Any] = {"markersize": 5, "markeredgecolor": "black", "markeredgewidth": 0.4}
COLUMNS = 3
"""Panels side by side."""
PANEL = 2.3
"""Width of a panel, in inches."""
_CHARACTERS_PER_INCH = 13
"""Of the legend's text, roughly."""
_TICK_WIDTH = 0.065
"""Of a character of a tick's label, in inches, roughly."""
_AXIS_WIDTH = 1.7
"""Of a panel's axis, in inches, roughly."""
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


def panels(
    titles: Sequence[str],
    y_label: str,
    draw: Callable[[Axes, int], None],
    legend: Mapping[str, Artist],
    *,
    sharey: bool,
) -> Figure:
    """A panel for each title, which ``draw`` fills by its number, and one legend for all."""
    from matplotlib import style
    from matplotlib.figure import Figure

    columns = max(1, min(COLUMNS, len(titles)))
    rows = max(1, -(-len(titles) // columns))
    width = max(PANEL * columns, 3.4)
    fitting, legend_rows = _legend_shape(list(legend), width)
    with style.context(["default", STYLE]):
        height = 2.2 * rows + 0.17 * legend_rows + 0.3
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
        characters = int(width / columns * _CHARACTERS_PER_INCH) - 4
        for index, (axes, title) in enumerate(zip(grid.flat, titles, strict=False)):
            draw(axes, index)
            axes.set_title(_wrapped(title, characters))
            axes.set_ylabel(y_label if index % columns == 0 else "")
            axes.grid(axis="y", color="#dddddd", linewidth=0.5)
            axes.set_axisbelow(True)
        for axes in grid.flat[len(titles) :]:
            axes.remove()
        _draw_legend(figure, legend, fitting)
    return figure


def add_legend(figure: Figure, marks: Mapping[str, Artist]) -> None:
    """Label -> mark, below all panels, in as many columns as fit."""
    _draw_legend(figure, marks, _legend_shape(list(marks), figure.get_figwidth())[0])


def _draw_legend(figure: Figure, marks: Mapping[str, Artist], columns: int) -> None:
    width = int(figure.get_figwidth() * _CHARACTERS_PER_INCH) - 8
    labels = [_wrapped(label, width) for label in marks]
    figure.legend(
        list(marks.values()), labels, loc="outside lower center", ncols=columns, frameon=False
    )


def _legend_shape(labels: Sequence[str], width: float) -> tuple[int, int]:
    """Columns and rows of a legend in a figure of this width."""
    longest = max(map(len, labels), default=0)
    fitting = int(width * _CHARACTERS_PER_INCH / (longest + 6))
    columns = max(1, min(5, fitting, len(labels)))
    return columns, -(-len(labels) // columns) * (1 if fitting else 2)


def _wrapped(text: str, characters: int) -> str:
    return "\n".join(textwrap.wrap(text, characters)) or text


def styles_of(methods: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Name -> colour and marker, by its method's key; the paper's methods always keep theirs."""
    others, free, styles = cycle(OTHERS), dict(STYLES), {}
    for name, method in methods.items():
        styles[name] = free.pop(method) if method in free else next(others)
    return styles


def hollow(colour: str) -> dict[str, Any]:
    """The mark of a single draw among several: it has no spread, which is not a spread of zero."""
    return {"markersize": 5, "markerfacecolor": "white", "markeredgecolor": colour}


def bar_of(value: Value) -> list[list[float]] | None:
    """The error bar; it ends above zero, for a logarithmic scale."""
    if not value.error:
        return None
    return [[min(value.error, 0.9 * value.value)], [value.error]]


def draw_band(axes: Axes, value: Value, colour: str) -> None:
    """A value's error, for a line across."""
    if value.error:
        low, high = value.value - value.error, value.value + value.error
        axes.axhspan(low, high, color=colour, alpha=0.07, linewidth=0)


def category_ticks(axes: Axes, labels: Sequence[str]) -> None:
    """Categories at 0, 1, 2, …; slanting where they would overlap."""
    fit = sum(len(label) + 2 for label in labels) * _TICK_WIDTH <= _AXIS_WIDTH
    slant: dict[str, Any] = (
        {} if fit else {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    )
    axes.set_xticks(range(len(labels)), labels, **slant)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.tick_params(axis="x", length=0)


def number_ticks(axes: Axes, values: Sequence[float], logarithmic: bool) -> None:
    """A tick at each value, in order, labelled where there is room."""
    from matplotlib.ticker import NullFormatter, NullLocator

    if logarithmic:
        axes.set_xscale("log")
    places = [math.log(value) for value in values] if logarithmic else values
    span = places[-1] - places[0] or 1.0
    labels, end = [], -math.inf
    for value, place in zip(values, places, strict=True):
        text, centre = f"{value:g}", (place - places[0]) / span * _AXIS_WIDTH
        half = len(text) * _TICK_WIDTH / 2
        labels.append(text if centre - half > end + _TICK_WIDTH else "")
        end = centre + half if labels[-1] else end
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(values, labels)


def log_ticks(axes: Axes, suffix: str = "") -> None:
    """Plain numbers at 1, 2, 5, 10, … as ticks of a logarithmic vertical axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    ratio = high / low
    steps = (1, 1.2, 1.5, 2, 3, 5) if ratio < 8 else (1, 2, 5) if ratio < 300 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{suffix}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


# --- Files --------------------------------------------------------------------------------------


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
