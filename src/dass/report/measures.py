"""What tables and figures show of a run: perplexity, or accuracy on tasks; over draws, too."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from dass.report.experiment import Draws, other_kind
from dass.report.table import Cell
from dass.report.words import (
    format_percent,
    format_perplexity,
    format_with_error,
    perplexity_with_error,
)
from dass.results.significance import Items
from dass.results.summary import SummaryRow
from dass.terms import Metric


@dataclass(frozen=True)
class Value:
    """A number, and its error where one is known."""

    value: float
    error: float | None = None

    def times(self, factor: float) -> Value:
        """In another unit."""
        return Value(factor * self.value, None if self.error is None else factor * self.error)


@dataclass(frozen=True)
class Perplexity:
    """Perplexity on a split."""

    split: str
    dataset: str | None = None
    """Of another text; None: of the study's first."""

    file: ClassVar = "perplexity.json"
    lowest_is_best: ClassVar = True

    @property
    def name(self) -> str:
        """As sentences and axes name it."""
        return f"{self.dataset} perplexity" if self.dataset else "perplexity"

    @property
    def kind(self) -> str:
        """What its table and figure are called."""
        return other_kind(self.dataset) if self.dataset else "perplexity"

    def of(self, row: SummaryRow) -> Value | None:
        """A run's; None where it was not measured."""
        values = row.perplexity.of(self.split, self.dataset) if row.perplexity else None
        return Value(values.perplexity) if values else None

    def items(self, row: SummaryRow) -> list[Items]:
        """What runs are compared by: the negative log-likelihood of each window."""
        values = row.perplexity.of(self.split, self.dataset) if row.perplexity else None
        assert values is not None
        return [np.array(values.window_nlls)]

    def texts(self, value: Value) -> tuple[str, str]:
        """As it is printed, with its error."""
        if value.error is None:
            return format_perplexity(value.value), ""
        return perplexity_with_error(value.value, value.error)


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on a task, or the mean of several: a share; acc where a task has no acc_norm."""

    tasks: tuple[str, ...]
    metric: Metric

    file: ClassVar = "zero_shot.json"
    lowest_is_best: ClassVar = False
    name: ClassVar = "mean accuracy"

    def of(self, row: SummaryRow) -> Value | None:
        """A run's, with its standard error over questions; None where a task is missing."""
        found = row.zero_shot.tasks if row.zero_shot else {}
        if not self.tasks or not found.keys() >= set(self.tasks):
            return None
        return mean_value([Value(*found[task].by(self.metric)) for task in self.tasks])

    def items(self, row: SummaryRow) -> list[Items]:
        """What runs are compared by: for each task, which questions were answered rightly."""
        assert row.zero_shot is not None
        hits = [row.zero_shot.tasks[task].hits_by(self.metric) for task in self.tasks]
        return [np.frombuffer(own.encode(), np.uint8).astype(np.float64) - ord("0") for own in hits]

    def texts(self, value: Value) -> tuple[str, str]:
        """As it is printed, in percent, with its error."""
        if value.error is None:
            return format_percent(value.value), ""
        return format_with_error(100 * value.value, 100 * value.error, 1)


Measure: TypeAlias = Perplexity | Accuracy


def mean_value(values: Sequence[Value]) -> Value:
    """The mean of independent values, and its standard error where all have theirs."""
    mean = math.fsum(value.value for value in values) / len(values)
    errors = [value.error for value in values if value.error is not None]
    if len(errors) < len(values):
        return Value(mean)
    return Value(mean, math.sqrt(sum(error**2 for error in errors)) / len(values))


def measured(measure: Measure, draws: Draws) -> Draws:
    """The draws that have it."""
    return {seed: row for seed, row in draws.items() if measure.of(row)}


def value_of(measure: Measure, draws: Draws) -> Value | None:
    """The mean over draws ± their standard deviation; of a single draw, as that run has it."""
    values = [value for row in draws.values() if (value := measure.of(row))]
    if len(values) < 2:
        return values[0] if values else None
    numbers = [value.value for value in values]
    return Value(statistics.fmean(numbers), statistics.stdev(numbers))


def cell_of(measure: Measure, draws: Draws) -> Cell:
    """The value as it is printed, with the files that it is from; a dash where there is none."""
    if (value := value_of(measure, draws)) is None:
        return Cell()
    files = (f"runs/{row.run}/{measure.file}" for row in measured(measure, draws).values())
    text, error = measure.texts(value)
    return Cell(text, error, sources=tuple(files))
