"""The tables of an experiment: perplexity, and accuracy on zero-shot tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from dass.report.experiment import (
    DENSE_LINE,
    Line,
    Lines,
    TableSettings,
    Value,
    accuracy_of,
    mean_value,
    perplexity_of,
    shown_rows,
)
from dass.report.table import Cell, RowGroup, Table, TableSection
from dass.report.words import DASH, format_percent, format_perplexity, pattern_label, sentences
from dass.results.schema import PerplexityResult, ZeroShotResult
from dass.results.summary import SummaryRow
from dass.tasks import TASKS

Result = TypeVar("Result", PerplexityResult, ZeroShotResult)


def perplexity_table(rows: Iterable[SummaryRow], settings: TableSettings) -> Table:
    """Rows: dense, then the methods under each pattern; columns: models; lowest in bold."""
    shown = shown_rows(rows, settings)

    def values(line: Line) -> list[Value | None]:
        return [perplexity_of(shown[model].get(line), settings.split) for model in settings.models]

    return Table(
        columns=list(settings.models.values()),
        sections=[TableSection("", _groups(settings, values, _perplexity_cell, min))],
        caption=_perplexity_caption(shown, settings),
        label=settings.label("perplexity"),
    )


def zero_shot_table(rows: Iterable[SummaryRow], settings: TableSettings) -> Table:
    """One section per model: dense, then the methods under each pattern; columns: tasks and mean.

    In percent, each with its standard error; highest in bold.
    """
    shown = shown_rows(rows, settings)

    def section(model: str, title: str) -> TableSection:
        def values(line: Line) -> list[Value | None]:
            row = shown[model].get(line)
            tasks = [accuracy_of(row, task, settings.metric) for task in settings.tasks]
            return [*tasks, mean_value(tasks)]

        return TableSection(title, _groups(settings, values, _accuracy_cell, max))

    without_norm = _tasks_without_norm(shown, settings)
    heads = [TASKS[t].label + ("†" if t in without_norm else "") for t in settings.tasks]
    return Table(
        columns=[*heads, "Mean"],
        sections=[section(model, title) for model, title in settings.models.items()],
        caption=_zero_shot_caption(shown, settings, without_norm),
        label=settings.label("zero-shot"),
    )


def _groups(
    settings: TableSettings,
    values: Callable[[Line], list[Value | None]],
    show: Callable[[Value], Cell],
    better: Callable[[Iterable[float]], float],
) -> list[RowGroup]:
    """Dense on top, never bold; then one group per pattern, the best of each column in bold."""
    dense = [Cell() if value is None else show(value) for value in values(DENSE_LINE)]
    groups = [RowGroup("", [("Dense", dense)])]
    for pattern in settings.patterns:
        lines = settings.lines(pattern)
        columns = zip(*map(values, lines), strict=True)
        marked = zip(*(_mark_best(column, show, better) for column in columns), strict=True)
        rows = [(label, list(cells)) for label, cells in zip(lines.values(), marked, strict=True)]
        groups.append(RowGroup(pattern_label(pattern), rows))
    return groups


def _mark_best(
    values: Sequence[Value | None],
    show: Callable[[Value], Cell],
    better: Callable[[Iterable[float]], float],
) -> list[Cell]:
    """Cells of one column; whatever prints like the best value is best."""
    present = [value.value for value in values if value is not None]
    best = show(Value(better(present))).text if present else None
    cells = [Cell() if value is None else show(value) for value in values]
    return [replace(cell, best=cell.text == best) for cell in cells]


def _perplexity_cell(value: Value) -> Cell:
    return Cell(format_perplexity(value.value))


def _accuracy_cell(value: Value) -> Cell:
    error = "" if value.error is None else format_percent(value.error)
    return Cell(format_percent(value.value), error)


def _tasks_without_norm(shown: Mapping[str, Lines], settings: TableSettings) -> list[str]:
    """Tasks that print acc although acc_norm is asked for."""
    if settings.metric == "acc":
        return []
    parts = [row.zero_shot for lines in shown.values() for row in lines.values() if row.zero_shot]
    found = {task: [p.tasks[task] for p in parts if task in p.tasks] for task in settings.tasks}
    return [task for task, own in found.items() if own and all(one.acc_norm is None for one in own)]


# --- Captions -----------------------------------------------------------------------------------

_BOS = {"text": "at the start of the text", "window": "at the start of each window"}
_METRICS = {
    "acc": "acc, by the log-likelihood of the choice",
    "acc_norm": "acc_norm, by the log-likelihood of the choice per character",
}


def _perplexity_caption(shown: Mapping[str, Lines], settings: TableSettings) -> str:
    own = {
        settings.models[model]: [row.perplexity for row in lines.values() if row.perplexity]
        for model, lines in shown.items()
    }
    dataset = _common(own, lambda result: result.dataset)
    length = _common(own, lambda result: result.settings.get("length"))
    windows = _common(own, lambda result: _windows(result, settings.split))
    bos = _common(own, lambda result: _BOS.get(str(result.settings.get("bos"))))
    return sentences(
        settings.title,
        f"Perplexity on the {settings.split} split{f' of {dataset}' if dataset else ''}; "
        "lower is better",
        f"Context length: {length} tokens" if length else "",
        f"Windows: {windows}" if windows else "",
        f"BOS: {bos}" if bos else "",
        *_closing(settings),
    )


def _windows(result: PerplexityResult, split: str) -> int | None:
    return result.splits[split].windows if split in result.splits else None


def _zero_shot_caption(
    shown: Mapping[str, Lines], settings: TableSettings, without_norm: list[str]
) -> str:
    own = {
        settings.models[model]: [row.zero_shot for row in lines.values() if row.zero_shot]
        for model, lines in shown.items()
    }
    limits = _common(own, lambda result: result.limit)
    counts = _common(own, lambda result: _sample_counts(result, settings))
    marked = " and ".join(TASKS[task].label for task in without_norm)
    return sentences(
        settings.title,
        "Zero-shot accuracy in percent ± standard error; higher is better",
        f"Metric: {_METRICS[settings.metric]}",
        f"†: acc, since there is no acc_norm ({marked})" if marked else "",
        f"Limited to the first examples of each task, at most {limits}" if limits else "",
        f"Examples: {counts}" if counts else "",
        *_closing(settings),
    )


def _sample_counts(result: ZeroShotResult, settings: TableSettings) -> str:
    """``HellaSwag 10042, PIQA 1838``."""
    counts = {TASKS[t].label: result.tasks[t].samples for t in settings.tasks if t in result.tasks}
    return ", ".join(f"{label} {count}" for label, count in counts.items())


def _closing(settings: TableSettings) -> list[str]:
    texts = settings.calibrations
    named = texts.values() if len(texts) == 1 else (f"{k}: {t}" for k, t in texts.items())
    return [
        f"Calibration: {'; '.join(text for text in named if text)}" if any(texts.values()) else "",
        f"Bold: best at that sparsity. {DASH}: not measured",
        settings.note,
    ]


def _common(own: Mapping[str, Sequence[Result]], say: Callable[[Result], str | int | None]) -> str:
    """What is said of each model's results: once where all agree, else with the models' labels."""
    found: dict[str, list[str]] = {}
    for label, parts in own.items():
        for said in dict.fromkeys(map(say, parts)):
            if said:
                found.setdefault(str(said), []).append(label)
    measured = [label for label, parts in own.items() if parts]
    if list(found.values()) == [measured]:
        return next(iter(found))
    return "; ".join(f"{said} ({', '.join(labels)})" for said, labels in found.items())
