"""Figures of an experiment: what pruning costs each model, by pattern, or along what varies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dass.report.contests import (
    Column,
    Verdicts,
    mean_accuracy,
    perplexity_columns,
    table_verdicts,
    zero_shot_columns,
)
from dass.report.experiment import DENSE_LINE, Line, Lines, TableSettings, shown_rows
from dass.report.measures import Measure, Perplexity, Value, measured, value_of
from dass.report.plots import (
    DENSE_STYLE,
    MARK,
    bar_of,
    category_ticks,
    draw_band,
    hollow,
    log_ticks,
    panels,
    styles_of,
)
from dass.report.words import pattern_label, sentences, x_words
from dass.report.x_figures import x_figure
from dass.results.summary import SummaryRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Plotted = dict[Line, Value]


def perplexity_figure(
    rows: Iterable[SummaryRow],
    settings: TableSettings,
    measure: Perplexity | None = None,
    verdicts: Verdicts | None = None,
) -> Figure:
    """One panel per model: perplexity over what varies, or each run's relative to dense.

    The arguments are those of :func:`dass.report.experiment_tables.perplexity_table`.
    """
    shown, measure = shown_rows(rows, settings), measure or Perplexity(settings.split)
    if settings.x:
        return x_figure(shown, settings, measure, measure.name)
    if verdicts is None:
        verdicts = table_verdicts(shown, settings, perplexity_columns(settings, measure))
    return _Clusters(shown, settings, measure, verdicts).figure(f"{measure.name} relative to dense")


def zero_shot_figure(
    rows: Iterable[SummaryRow], settings: TableSettings, verdicts: Verdicts | None = None
) -> Figure:
    """One panel per model: mean accuracy in percent, over what varies or by pattern."""
    shown, measure = shown_rows(rows, settings), mean_accuracy(settings)
    name = f"mean {settings.metric} in %"
    if settings.x:
        return x_figure(shown, settings, measure, name)
    if verdicts is None:
        verdicts = table_verdicts(shown, settings, zero_shot_columns(settings))
    return _Clusters(shown, settings, measure, verdicts).figure(name)


def figure_captions(settings: TableSettings, measure: Perplexity | None = None) -> tuple[str, str]:
    """What stands below the perplexity figure of a measure and below the zero-shot figure."""
    measure = measure or Perplexity(settings.split)
    dataset = f" of {measure.dataset}" if measure.dataset else ""
    title, x, bars = settings.title, settings.x, _bars(settings)
    over = f" over {x_words(x)}" if x else ""
    perplexity = f"{title}: perplexity on the {measure.split} split{dataset}{over}"
    tasks = "one task" if len(settings.tasks) == 1 else f"mean of {len(settings.tasks)} tasks"
    accuracy = f"{title}: zero-shot accuracy ({settings.metric}), {tasks}{over}; higher is better"
    if x:
        dense = "Dashed line: the dense model, where the scale reaches it"
        more = (
            [f"Lines and bands across: methods without {x}"] if settings.x_part == "method" else []
        )
        return (
            sentences(f"{perplexity}; lower is better", dense, bars[0], *more, settings.note),
            sentences(accuracy, dense, bars[1], *more, settings.note),
        )
    perplexity += " relative to the dense model (dashed line), on a logarithmic scale"
    dense = "Dashed line and band: the dense model"
    more = [_DOTS] if len(settings.lines(settings.patterns[0])) > 1 else []
    return (
        sentences(f"{perplexity}; lower is better", bars[0], *more, settings.note),
        sentences(accuracy, dense, bars[1], *more, settings.note),
    )


_DOTS = (
    "Dots below the axis: the best method of each pattern; joined, those that noise does not tell "
    "apart from it, as in the table"
)


def _bars(settings: TableSettings) -> tuple[str, str]:
    """What the error bars are, of perplexity and of accuracy."""
    if not any(len(draws) > 1 for draws in settings.draws.values()):
        return "", "Bars: standard error over questions"
    draws = "Bars: standard deviation over draws of the calibration; hollow: a single draw"
    return draws, f"{draws}, with its standard error over questions"


# --- One cluster of marks per pattern -----------------------------------------------------------


@dataclass(frozen=True)
class _Clusters:
    """What is drawn where runs stand side by side by pattern."""

    shown: Mapping[str, Lines]
    settings: TableSettings
    measure: Measure
    verdicts: Verdicts

    def figure(self, name: str) -> Figure:
        """One panel per model, on one scale, so that models can be compared at a glance."""
        from matplotlib.lines import Line2D

        styles = method_styles(self.settings).values()
        legend = {
            label: Line2D([], [], color=colour, marker=marker, linestyle="", **MARK)
            for label, colour, marker in styles
        }
        models = list(self.settings.models)
        return panels(
            list(self.settings.models.values()),
            name,
            lambda axes, index: self._draw(axes, models[index]),
            legend | {"Dense": Line2D([], [], **DENSE_STYLE)},
            sharey=True,
        )

    def _draw(self, axes: Axes, model: str) -> None:
        """One model: a cluster of marks per pattern, one mark per method, a line for dense."""
        values = self._values(self.shown[model])
        styles = method_styles(self.settings)
        places = _places(self.settings)
        for line, place in places.items():
            if value := values.get(line):
                _, colour, marker = styles[line[:2]]
                self._mark(axes, place, value, colour, marker, self._is_single(model, line))
        if dense := values.get(DENSE_LINE):
            axes.axhline(dense.value, zorder=1, **DENSE_STYLE)
            draw_band(axes, dense, "black")
        category_ticks(axes, [pattern_label(p) for p in self.settings.patterns])
        self._draw_dots(axes, model, places)
        if self.measure.lowest_is_best:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, 0.95), max(high, 1.25))
            log_ticks(axes, "×")

    def _values(self, own: Lines) -> Plotted:
        """Perplexity over the dense model's; accuracy in percent."""
        found = {line: value_of(self.measure, draws) for line, draws in own.items()}
        dense = found[DENSE_LINE]
        if not self.measure.lowest_is_best:
            return {line: value.times(100) for line, value in found.items() if value}
        if dense is None:
            return {}
        return {line: value.times(1 / dense.value) for line, value in found.items() if value}

    def _mark(
        self, axes: Axes, x: float, value: Value, colour: str, marker: str, single: bool
    ) -> None:
        if self.measure.lowest_is_best:
            axes.vlines(x, 1, value.value, colors=colour, linewidth=1.2, zorder=2)
        axes.errorbar(
            x, value.value, yerr=bar_of(value), color=colour, marker=marker, linestyle="",
            elinewidth=1, capsize=2, zorder=3, **(hollow(colour) if single else MARK),
        )  # fmt: skip

    def _is_single(self, model: str, line: Line) -> bool:
        """Whether a line has one draw where its calibration has several."""
        asked = self.settings.draws.get(line.calibration or "", {})
        return len(asked) > 1 and len(measured(self.measure, self.shown[model][line])) == 1

    def _draw_dots(self, axes: Axes, model: str, places: Mapping[Line, float]) -> None:
        """Below the axis: a dot for the best of each contest, joined ones for those tied.

        The contests of a calibration stand in a row of their own.
        """
        rows = {calibration: row for row, calibration in enumerate(self.settings.calibrations)}
        for place, verdict in self.verdicts.items():
            if place.column != Column(model, self.measure):
                continue
            y = -0.035 - 0.03 * rows[place.calibration]
            at = sorted(places[line] for line in verdict.tied or [verdict.best])
            axes.plot(
                at, [y] * len(at), color="black", marker=".", markersize=4, linewidth=0.8,
                transform=axes.get_xaxis_transform(), clip_on=False,
            )  # fmt: skip
        axes.tick_params(axis="x", pad=4 + 5 * len(rows))


def _places(settings: TableSettings) -> dict[Line, float]:
    """Where each line stands: around its pattern's place."""
    return {
        line: place + (number - (len(lines) - 1) / 2) * 0.8 / len(lines)
        for place, pattern in enumerate(settings.patterns)
        for lines in [settings.lines(pattern)]
        for number, line in enumerate(lines)
    }


def method_styles(settings: TableSettings) -> dict[tuple[str | None, str], tuple[str, str, str]]:
    """(calibration, method) -> label, colour, marker."""
    lines = settings.lines(settings.patterns[0])
    styles = styles_of({label: line.method for line, label in lines.items()})
    return {line[:2]: (label, *styles[label]) for line, label in lines.items()}
