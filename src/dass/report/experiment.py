"""What the tables and figures of one experiment show, and the rows of a summary that they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from dass.latex import latex_name
from dass.report.table import Cell, RowGroup
from dass.report.words import pattern_label
from dass.results.schema import Run
from dass.results.summary import SummaryRow
from dass.tasks import PAPER_TASKS
from dass.terms import DENSE, Metric, Split, Targets


class Line(NamedTuple):
    """Runs that differ in the draw of their calibration only, whatever the model.

    A line of a table.
    """

    calibration: str | None
    """Its key in the config."""
    method: str
    pattern: str | None


DENSE_LINE = Line(None, DENSE, None)
Draws = dict[int, SummaryRow]
"""The rows of one line and model, by seed; the dense model's has seed 0."""
Lines = dict[Line, Draws]
"""Those of one model; a line without results has none."""


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
    """Key -> words for the caption: ``128 sequences of 2048 tokens of c4, seeds 0 to 4``."""
    methods: dict[str, str]
    """Key -> label."""
    patterns: list[str]
    split: Split = "validation"
    """Of perplexity."""
    others: dict[str, Split] = field(default_factory=dict)
    """Other texts that have a table and a figure of perplexity, by data set -> its split."""
    metric: Metric = "acc_norm"
    """Of zero-shot accuracy; a task without acc_norm prints acc, marked."""
    tasks: list[str] = field(default_factory=lambda: list(PAPER_TASKS))
    note: str = ""
    """What captions end with, e.g. that the models are stand-ins."""
    draws: dict[str, dict[str, int]] = field(default_factory=dict)
    """Calibration -> name of each draw in paths -> its seed; without it, one draw of its name."""
    tolerance: float = 0.02
    """How far from a published value ours may be, as a share of it."""
    x: str | None = None
    """What the figures have on the horizontal axis: ``sparsity``, ``sequences``, ``alpha``, ..."""
    x_part: Literal["pattern", "calibration", "method"] = "method"
    """The part of a line that decides about its place there."""
    x_values: dict[str, float | str] = field(default_factory=dict)
    """Key of that part -> place; a line whose key is missing is the same everywhere."""
    curves: dict[str, str] = field(default_factory=dict)
    """Key of that part -> what lines have in common that one curve joins."""
    unpublished: list[str] = field(default_factory=list)
    """Methods that are none of those that numbers are published about, whatever their keys."""
    targets: dict[str, Targets] = field(default_factory=dict)
    """Methods that do not prune the MLPs, or not them alone -> what they prune."""

    def lines(self, pattern: str) -> dict[Line, str]:
        """The lines of a pattern -> labels; of several calibrations each is named."""
        several = len(self.calibrations) > 1
        return {
            Line(calibration, method, pattern): f"{label}, {calibration}" if several else label
            for method, label in self.methods.items()
            for calibration in self.calibrations
        }

    def runs(self, model: str, line: Line) -> dict[int, Run]:
        """The runs of a line, by seed; a method that reads no tokens has the first only."""
        if line.calibration is None:
            return {0: Run(model=model, **line._asdict())}
        draws = self.draws.get(line.calibration) or {line.calibration: 0}
        return {
            seed: Run(model=model, calibration=draw, method=line.method, pattern=line.pattern)
            for draw, seed in draws.items()
        }

    def x_value(self, line: Line) -> float | str | None:
        """Where a line is on the figures' axis; None: everywhere."""
        return self.x_values.get(getattr(line, self.x_part) or "")

    @property
    def all_lines(self) -> list[Line]:
        """Dense, then the lines of each pattern."""
        return [DENSE_LINE, *(line for pattern in self.patterns for line in self.lines(pattern))]

    def label(self, kind: str) -> str:
        """LaTeX's label of a table of this experiment: ``tab:main-perplexity``."""
        return f"tab:{latex_name(self.experiment)}-{latex_name(kind)}"


def other_kind(dataset: str) -> str:
    """What the table and the figure of another text are called."""
    return f"perplexity-{dataset}"


def shown_rows(rows: Iterable[SummaryRow], settings: TableSettings) -> dict[str, Lines]:
    """Model -> line -> the rows of its draws that have results."""
    found = {row.run: row for row in rows}
    return {
        model: {
            line: {s: found[run] for s, run in settings.runs(model, line).items() if run in found}
            for line in settings.all_lines
        }
        for model in settings.models
    }


def row_groups(settings: TableSettings, cells: Callable[[Line], list[Cell]]) -> list[RowGroup]:
    """The rows of a model or of all: dense on top, then one group per pattern."""
    groups = [RowGroup("", [("Dense", cells(DENSE_LINE))])]
    for pattern in settings.patterns:
        rows = [(label, cells(line)) for line, label in settings.lines(pattern).items()]
        groups.append(RowGroup(pattern_label(pattern), rows))
    return groups
