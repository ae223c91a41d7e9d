"""Figures of an experiment along what varies from run to run: one curve per method and setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dass.report.experiment import DENSE_LINE, Line, Lines, TableSettings
from dass.report.measures import Measure, Value, measured, value_of
from dass.report.plots import (
    DENSE_STYLE,
    MARK,
    STYLES,
    bar_of,
    category_ticks,
    draw_band,
    hollow,
    log_ticks,
    number_ticks,
    panels,
    styles_of,
)
from dass.report.words import pattern_label, x_words

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ["-", (0, (1, 1)), (0, (6, 1, 1, 1)), (0, (6, 1, 1, 1, 1, 1)), (0, (10, 1))]
"""None of them that of the dense model's line."""
_LOGARITHMIC = ("sequences", "length")


class Point(NamedTuple):
    """What is drawn of a line."""

    x: float | str | None
    """None: everywhere."""
    value: Value
    draws: int


@dataclass(frozen=True)
class Curve:
    """Lines that differ in nothing but their place on the axis."""

    method: str
    """Its name."""
    rest: str
    """What else it differs in from others: calibration, pattern."""
    lines: Sequence[Line]

    @property
    def label(self) -> str:
        """``DaSS, 2:4``."""
        return ", ".join(part for part in (self.method, self.rest) if part)


def curves_of(settings: TableSettings) -> list[Curve]:
    """The curves of an experiment, in the order of its tables.

    What is on the axis joins lines; ``settings.curves`` says which of them.
    """
    found: dict[tuple[str, str, str], list[Line]] = {}
    for pattern in settings.patterns:
        for line in settings.lines(pattern):
            found.setdefault(_names(line, settings), []).append(line)
    calibrations, patterns = ({names[part] for names in found} for part in (1, 2))
    return [
        Curve(
            method,
            ", ".join(
                text
                for text, several in (
                    (calibration, len(calibrations) > 1),
                    (pattern, len(patterns) > 1),
                )
                if several and text
            ),
            lines,
        )
        for (method, calibration, pattern), lines in found.items()
    ]


def _names(line: Line, settings: TableSettings) -> tuple[str, str, str]:
    """Method, calibration and pattern in words; what the axis shows, by what it joins."""
    names = {
        "method": settings.methods[line.method],
        "calibration": str(line.calibration),
        "pattern": pattern_label(str(line.pattern)),
    }
    joined = settings.curves.get(getattr(line, settings.x_part))
    if joined is not None:
        names[settings.x_part] = joined
    return names["method"], names["calibration"], names["pattern"]


def x_figure(
    shown: Mapping[str, Lines], settings: TableSettings, measure: Measure, name: str
) -> Figure:
    """One panel per model, each with its own scale."""
    curves = curves_of(settings)
    factor = 1 if measure.lowest_is_best else 100
    drawn = [_Panel(shown[model], settings, measure, curves, factor) for model in settings.models]
    return panels(
        [
            label + ("" if panel.dense_fits else f"\n(dense: {panel.dense_text})")
            for label, panel in zip(settings.models.values(), drawn, strict=True)
        ],
        name,
        lambda axes, index: drawn[index].draw(axes),
        _legend(curves, settings, any(panel.dense and panel.dense_fits for panel in drawn)),
        sharey=False,
    )


def _legend(curves: Sequence[Curve], settings: TableSettings, dense: bool) -> dict[str, Artist]:
    """Of several methods their colours, then the dashes of what else differs."""
    from matplotlib.lines import Line2D

    styles = curve_styles(curves)
    rests = {curve.rest: style["linestyle"] for curve, style in zip(curves, styles, strict=True)}
    apart = len(rests) > 1 and len({curve.method for curve in curves}) > 1
    marks: dict[str, Artist] = {}
    for curve, style in zip(curves, styles, strict=True):
        across = all(settings.x_value(line) is None for line in curve.lines)
        shape = style | ({"marker": ""} if across else {}) | ({"linestyle": "-"} if apart else {})
        label = curve.method if apart else curve.label
        marks.setdefault(label, Line2D([], [], linewidth=1.2, **(MARK | shape)))
    for rest, dashes in rests.items() if apart else ():
        marks[rest] = Line2D([], [], color="#555555", linewidth=1.6, linestyle=dashes)
    return marks | ({"Dense": Line2D([], [], **DENSE_STYLE)} if dense else {})


def curve_styles(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Colour and marker by method and dashes by the rest; of one method, all by the rest."""
    methods = {curve.method: _key(curve) for curve in curves}
    rests = list(dict.fromkeys(curve.rest for curve in curves))
    if len(methods) == 1:
        by_rest = styles_of(dict.fromkeys(rests, *methods.values()))
        return [_style(*by_rest[curve.rest], "-") for curve in curves]
    by_method = styles_of(methods)
    return [
        _style(*by_method[curve.method], _DASHES[rests.index(curve.rest) % len(_DASHES)])
        for curve in curves
    ]


def _key(curve: Curve) -> str:
    """The key of its method; of several, one that has a colour of its own."""
    keys = [line.method for line in curve.lines]
    return next((key for key in keys if key in STYLES), keys[0])


def _style(colour: str, marker: str, dashes: Any) -> dict[str, Any]:
    return {"color": colour, "marker": marker, "linestyle": dashes}


def _is_category(settings: TableSettings) -> bool:
    """Whether what varies is no number."""
    return any(isinstance(value, str | bool) for value in settings.x_values.values())


@dataclass(frozen=True)
class _Panel:
    """One model's."""

    own: Lines
    settings: TableSettings
    measure: Measure
    curves: Sequence[Curve]
    factor: float

    @property
    def points(self) -> list[list[Point]]:
        """Those of each curve, in the order of the axis."""
        places = list(dict.fromkeys(self.settings.x_values.values()))
        found = [[self._point(line) for line in curve.lines] for curve in self.curves]
        category = _is_category(self.settings)
        return [
            sorted(
                (point for point in points if point),
                key=lambda p: 0 if p.x is None else places.index(p.x) if category else float(p.x),
            )
            for points in found
        ]

    def _point(self, line: Line) -> Point | None:
        value = value_of(self.measure, self.own[line])
        draws = len(measured(self.measure, self.own[line]))
        return (
            Point(self.settings.x_value(line), value.times(self.factor), draws) if value else None
        )

    @property
    def dense(self) -> Value | None:
        """The dense model's."""
        value = value_of(self.measure, self.own[DENSE_LINE])
        return value.times(self.factor) if value else None

    @property
    def dense_text(self) -> str:
        """As the table prints it."""
        value = value_of(self.measure, self.own[DENSE_LINE])
        return self.measure.texts(Value(value.value))[0] if value else ""

    @property
    def dense_fits(self) -> bool:
        """Whether the scale reaches the dense model's value without getting twice as long."""
        low, high = self._range
        if self.dense is None or low == high:
            return True
        dense = self.dense.value
        return low - (high - low) <= dense <= high + (high - low)

    @property
    def _range(self) -> tuple[float, float]:
        values = [point.value.value for points in self.points for point in points]
        return min(values, default=0.0), max(values, default=0.0)

    def draw(self, axes: Axes) -> None:
        """All curves, and the dense model where it fits."""
        several = any(point.draws > 1 for points in self.points for point in points)
        styles = curve_styles(self.curves)
        low, high = self._range
        for number, (points, style) in enumerate(zip(self.points, styles, strict=True)):
            across = [point.value for point in points if point.x is None]
            for value in across:
                axes.axhline(value.value, linewidth=1.2, **(style | {"marker": ""}))
                draw_band(axes, value, style["color"])
            self._draw_curve(axes, number, [p for p in points if p.x is not None], style, several)
        if self.dense and self.dense_fits:
            axes.axhline(self.dense.value, zorder=1, **DENSE_STYLE)
            draw_band(axes, self.dense, "black")
        if self.measure.lowest_is_best and low and high / low > 5:
            axes.set_yscale("log")
            log_ticks(axes)
        self._draw_ticks(axes)

    def _draw_curve(
        self,
        axes: Axes,
        number: int,
        points: Sequence[Point],
        style: dict[str, Any],
        several: bool,
    ) -> None:
        """Points with their bars; those of several curves in one category stand side by side."""
        category = _is_category(self.settings)
        places = list(dict.fromkeys(self.settings.x_values.values()))
        shift = (number - (len(self.curves) - 1) / 2) * 0.6 / len(self.curves)
        xs = [places.index(p.x) + shift if category else p.x for p in points if p.x is not None]
        heights, width = [p.value.value for p in points], 0.6 if category else 1.2
        axes.plot(xs, heights, linewidth=width, **(style | {"marker": ""}))
        for x, point in zip(xs, points, strict=True):
            mark = hollow(style["color"]) if several and point.draws == 1 else MARK
            axes.errorbar(
                x, point.value.value, yerr=bar_of(point.value), elinewidth=1, capsize=2, zorder=3,
                **(style | mark | {"linestyle": ""}),
            )  # fmt: skip

    def _draw_ticks(self, axes: Axes) -> None:
        x, values = str(self.settings.x), list(dict.fromkeys(self.settings.x_values.values()))
        axes.set_xlabel(x_words(x))
        if _is_category(self.settings):
            category_ticks(axes, [str(value) for value in values])
            return
        numbers = sorted(float(value) for value in values)
        wide = numbers[0] > 0 and numbers[-1] / numbers[0] >= 50
        logarithmic = x in _LOGARITHMIC or (wide and x != "sparsity")
        number_ticks(axes, numbers, logarithmic)
