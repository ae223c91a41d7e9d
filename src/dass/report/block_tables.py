"""Tables of what pruning does to decoder blocks, and what the tables and figures of blocks show."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from dass.report.table import Cell, RowGroup, Table, TableSection
from dass.report.words import DASH, format_percent, pattern_label, sentences
from dass.results.schema import BlockError, BlocksResult, Run

TITLE = "Blocks"


@dataclass(frozen=True)
class BlockSettings:
    """What the tables and figures of blocks show; the order is that of printing."""

    models: dict[str, str]
    """Key -> label."""
    calibration: str
    """The draw that the runs were calibrated on."""
    methods: dict[str, str]
    """Key -> label."""
    patterns: list[str]
    note: str = ""
    """What captions end with."""

    def run(self, model: str, method: str, pattern: str) -> Run:
        """The run of these keys."""
        return Run(model=model, calibration=self.calibration, method=method, pattern=pattern)


@dataclass(frozen=True)
class Error:
    """One of the errors of a block."""

    of: Callable[[BlockError], float]
    words: str
    """For captions."""
    axis: str
    """For figures."""


ERRORS = {
    "glu_error": Error(
        lambda block: block.glu_error,
        "Relative error of each GLU's output, on what it is given in the pruned model: Frobenius "
        "norm of the difference to the dense GLU's output, over the norm of that",
        "error of the GLU's output in %",
    ),
    "hidden_error": Error(
        lambda block: block.hidden_error,
        "Relative error of each block's output, accumulated over the blocks before it: Frobenius "
        "norm of the difference to the dense model's hidden states, over the norm of those",
        "error of hidden states in %",
    ),
}
"""Field of :class:`dass.results.schema.BlockError` -> how it is shown."""


def mean_error(result: BlocksResult, kind: str) -> float:
    """The mean of an error over the blocks of a run, a share."""
    values = [ERRORS[kind].of(block) for block in result.blocks]
    return sum(values) / len(values)


def block_table(kind: str, results: Sequence[BlocksResult], settings: BlockSettings) -> Table:
    """Mean errors over blocks. Rows: methods under each pattern; columns: models; lowest in bold.

    Args:
        kind: of :data:`ERRORS`.
        results: of the runs; one that is missing is a dash.
        settings: what to show.
    """
    found = {result.run: result for result in results}

    def cell(run: Run) -> Cell:
        if run not in found:
            return Cell()
        text = format_percent(mean_error(found[run], kind))
        return Cell(text).made_of(f"runs/{run}/blocks.json")

    def group(pattern: str) -> RowGroup:
        rows = [
            (label, [cell(settings.run(model, method, pattern)) for model in settings.models])
            for method, label in settings.methods.items()
        ]
        return RowGroup(pattern_label(pattern), _lowest_in_bold(rows))

    return Table(
        columns=list(settings.models.values()),
        sections=[TableSection("", [group(pattern) for pattern in settings.patterns])],
        caption=sentences(
            TITLE,
            f"{ERRORS[kind].words}; in percent, mean over all blocks; lower is better",
            *measured_on(results),
            f"Bold: lowest at that sparsity. {DASH}: not measured",
            settings.note,
        ),
        label=f"tab:blocks-{kind.replace('_', '-')}",
    )


def _lowest_in_bold(rows: list[tuple[str, list[Cell]]]) -> list[tuple[str, list[Cell]]]:
    """In each column the lowest number, as it is printed."""
    columns = zip(*(cells for _, cells in rows), strict=True)
    lowest = [
        min((float(cell.text) for cell in column if cell.text != DASH), default=None)
        for column in columns
    ]
    return [
        (
            label,
            [
                replace(cell, best=cell.text != DASH and float(cell.text) == low)
                for cell, low in zip(cells, lowest, strict=True)
            ],
        )
        for label, cells in rows
    ]


def measured_on(results: Sequence[BlocksResult]) -> Iterator[str]:
    """On what the errors were measured, for captions: ``16 windows of 2048 tokens of …``."""
    said = dict.fromkeys(
        f"{one.windows} windows of {one.settings['length']} tokens of the {one.split} split of "
        f"{one.dataset}"
        for one in results
    )
    if said:
        yield f"Measured on {' and '.join(said)}"
