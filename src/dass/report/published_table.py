"""The table that holds our numbers against published ones."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dass.report.table import (
    DASH,
    DENSE_LINE,
    Block,
    Cell,
    Group,
    Key,
    Line,
    Record,
    Table,
    TableSettings,
    experiment_label,
    format_percent,
    format_perplexity,
    pattern_label,
    records,
    sentences,
    task_label,
)
from dass.results.published import PERPLEXITY, Published

Quantity = tuple[str, str]
"""A metric, and the split where it is perplexity."""


def published_table(
    summary: pd.DataFrame, settings: TableSettings, published: Sequence[Published]
) -> Table:
    """A block for each model and quantity; columns: ours, published, ours − published.

    Quantities are those of which a number is published for a run of the experiment; with none,
    the perplexity that the perplexity table prints. A dash stands for what was not measured, not
    published, or published for another data set or context length.
    """
    runs = records(summary)
    known = [row for row in published if _is_shown(row, settings)]
    fitting = [row for row in known if _holds_for(row, runs)]
    quantities = list(dict.fromkeys((row.metric, row.split) for row in fitting))
    blocks = [
        Block(f"{label}: {_words(quantity)}", _groups(settings, runs, fitting, model, quantity))
        for quantity in quantities or [(PERPLEXITY, settings.split)]
        for model, label in settings.models.items()
    ]
    return Table(
        columns=["Ours", "Published", "Difference"],
        blocks=blocks,
        caption=_caption(settings, fitting),
        label=f"tab:{experiment_label(settings.experiment)}-published",
    )


def _is_shown(row: Published, settings: TableSettings) -> bool:
    return any(row.is_about((model, *line)) for model in settings.models
               for line in settings.all_lines)  # fmt: skip


def _holds_for(row: Published, runs: dict[Key, Record]) -> bool:
    """Whether it is about the data set and context length of our perplexities."""
    if row.metric != PERPLEXITY:
        return True
    measured = next((r for r in runs.values() if "perplexity_length" in r), {})
    length = measured.get("perplexity_length")
    return row.holds_for(
        measured.get("perplexity_dataset"), None if length is None else int(length)
    )


def _groups(
    settings: TableSettings,
    runs: dict[Key, Record],
    published: list[Published],
    model: str,
    quantity: Quantity,
) -> list[Group]:
    """Dense on top, then a group a pattern, as in the other tables."""

    def cells(line: Line) -> list[Cell]:
        key = (model, *line)
        rows = (r for r in published if r.is_about(key) and (r.metric, r.split) == quantity)
        theirs = next((row.value for row in rows), None)
        return _cells(quantity, _ours(runs.get(key, {}), quantity), theirs)

    groups = [Group("", [("Dense", cells(DENSE_LINE))])]
    for pattern in settings.patterns:
        rows = [(label, cells(line)) for line, label in settings.lines(pattern).items()]
        groups.append(Group(pattern_label(pattern), rows))
    return groups


def _ours(record: Record, quantity: Quantity) -> float | None:
    metric, split = quantity
    value = record.get(f"{metric}_{split}" if metric == PERPLEXITY else metric)
    return None if value is None else float(value)


def _cells(quantity: Quantity, ours: float | None, theirs: float | None) -> list[Cell]:
    perplexity = quantity[0] == PERPLEXITY
    show = format_perplexity if perplexity else format_percent
    cells = [Cell() if value is None else Cell(show(value)) for value in (ours, theirs)]
    if ours is None or theirs is None:
        return [*cells, Cell()]
    difference = f"{ours - theirs:+.2f}" if perplexity else f"{100 * (ours - theirs):+.1f}"
    return [*cells, Cell(difference.replace("-", "−"))]


def _words(quantity: Quantity) -> str:
    """``perplexity, test``; ``ARC-e, acc_norm``."""
    metric, split = quantity
    if metric == PERPLEXITY:
        return f"perplexity, {split}"
    task, _, rest = metric.partition("_acc")
    return f"{'mean of the tasks' if task == 'mean' else task_label(task)}, acc{rest}"


def _caption(settings: TableSettings, fitting: list[Published]) -> str:
    sources = "; ".join(dict.fromkeys(row.source for row in fitting))
    return sentences(
        settings.title,
        "Our numbers beside published ones, and ours less theirs: perplexity, accuracy in percent",
        f"Published: {sources}" if sources else "Nothing is published of these runs",
        f"{DASH}: not measured, or not published",
        settings.note,
    )
