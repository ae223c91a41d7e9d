"""What the tables and figures of one experiment show, and the rows of a summary that they need."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dass.latex import latex_name
from dass.report.table import Cell, RowGroup
from dass.report.words import pattern_label
from dass.results.schema import Run
from dass.results.summary import SummaryRow
from dass.tasks import TASKS
from dass.terms import DENSE, Metric, Split


class Line(NamedTuple):
    """A run, whatever the model: a line of a table."""

    calibration: str | None
    method: str
    pattern: str | None

    def of(self, model: str) -> Run:
        """The run of this model."""
        return Run(model=model, **self._asdict())


DENSE_LINE = Line(None, DENSE, None)
Lines = dict[Line, SummaryRow]
"""The rows of one model, by line."""


@dataclass(frozen=True)
class TableSettings:
    """What the tables and figures of one experiment show; the order is that of printing."""

    experiment: str
    """Key; part of LaTeX labels."""
    title: str
    """What captions begin with."""
    models: dict[str, str]
    """Key -> label."""
    calibrations: dict[str, str]
    """Key -> words for the caption: ``128 sequences of 2048 tokens of C4, seed 0``."""
    methods: dict[str, str]
    """Key -> label."""
    patterns: list[str]
    split: Split = "validation"
    """Of perplexity."""
    metric: Metric = "acc_norm"
    """Of zero-shot accuracy; a task without acc_norm prints acc, marked."""
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    note: str = ""
    """What captions end with, e.g. that the models are stand-ins."""

    def lines(self, pattern: str) -> dict[Line, str]:
        """The lines of a pattern -> labels; of several calibrations each is named."""
        several = len(self.calibrations) > 1
        return {
            Line(calibration, method, pattern): f"{label}, {calibration}" if several else label
            for method, label in self.methods.items()
            for calibration in self.calibrations
        }

    @property
    def all_lines(self) -> list[Line]:
        """Dense, then the lines of each pattern."""
        return [DENSE_LINE, *(line for pattern in self.patterns for line in self.lines(pattern))]

    def label(self, kind: str) -> str:
        """LaTeX's label of a table of this experiment: ``tab:main-perplexity``."""
        return f"tab:{latex_name(self.experiment)}-{kind}"


def shown_rows(rows: Iterable[SummaryRow], settings: TableSettings) -> dict[str, Lines]:
    """Model -> the rows that the experiment shows of it; runs without results are missing."""
    found = {row.run: row for row in rows}
    return {
        model: {line: found[run] for line in settings.all_lines if (run := line.of(model)) in found}
        for model in settings.models
    }


def row_groups(settings: TableSettings, cells: Callable[[Line], list[Cell]]) -> list[RowGroup]:
    """The rows of a model or of all: dense on top, then one group per pattern."""
    groups = [RowGroup("", [("Dense", cells(DENSE_LINE))])]
    for pattern in settings.patterns:
        rows = [(label, cells(line)) for line, label in settings.lines(pattern).items()]
        groups.append(RowGroup(pattern_label(pattern), rows))
    return groups


# --- Values -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """A measured number and its standard error."""

    value: float
    error: float | None = None

    def times(self, factor: float) -> Value:
        """In another unit."""
        return Value(factor * self.value, None if self.error is None else factor * self.error)


def cell_of(value: Value | None, show: Callable[[float], str]) -> Cell:
    """A value as it is printed; a dash where it was not measured."""
    if value is None:
        return Cell()
    return Cell(show(value.value), "" if value.error is None else show(value.error))


def perplexity_of(row: SummaryRow | None, split: str) -> Value | None:
    """A run's perplexity; None where it was not measured."""
    values = row.perplexity.splits.get(split) if row and row.perplexity else None
    return Value(values.perplexity) if values else None


def accuracy_of(row: SummaryRow | None, task: str, metric: Metric) -> Value | None:
    """A run's accuracy, a share: acc where the task has no acc_norm, None if not measured."""
    accuracy = row.zero_shot.tasks.get(task) if row and row.zero_shot else None
    return Value(*accuracy.by(metric)) if accuracy else None


def mean_accuracy(row: SummaryRow | None, settings: TableSettings) -> Value | None:
    """The mean over the tasks of the settings, as the zero-shot table prints it."""
    return mean_value([accuracy_of(row, task, settings.metric) for task in settings.tasks])


def mean_value(values: Sequence[Value | None]) -> Value | None:
    """The mean, and its standard error for independent values; None where one is missing."""
    present = [value for value in values if value is not None]
    if not present or len(present) < len(values):
        return None
    mean = sum(v.value for v in present) / len(present)
    errors = [v.error for v in present if v.error is not None]
    if len(errors) < len(present):
        return Value(mean)
    return Value(mean, math.sqrt(sum(error**2 for error in errors)) / len(present))
