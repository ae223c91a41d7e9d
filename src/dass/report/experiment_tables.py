"""The tables of an experiment: perplexity, and accuracy on zero-shot tasks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from dass.report.experiment import (
    Line,
    Lines,
    TableSettings,
    accuracy_of,
    cell_of,
    mean_value,
    perplexity_of,
    row_groups,
    shown_rows,
)
from dass.report.table import Cell, RowGroup, Table, TableSection
from dass.report.words import DASH, format_percent, format_perplexity, sentences
from dass.results.schema import PerplexityResult, ZeroShotResult
from dass.results.summary import SummaryRow
from dass.tasks import TASKS

Part = TypeVar("Part", PerplexityResult, ZeroShotResult)


def perplexity_table(rows: Iterable[SummaryRow], settings: TableSettings) -> Table:
    """Rows: dense, then the methods under each pattern; columns: models; lowest in bold."""
    shown = shown_rows(rows, settings)

    def cells(line: Line) -> list[Cell]:
        values = [perplexity_of(shown[model].get(line), settings.split) for model in shown]
        return [cell_of(value, format_perplexity) for value in values]

    return Table(
        columns=list(settings.models.values()),
        sections=[TableSection("", _best_in_bold(row_groups(settings, cells), min))],
        caption=_perplexity_caption(shown, settings),
        label=settings.label("perplexity"),
    )


def zero_shot_table(rows: Iterable[SummaryRow], settings: TableSettings) -> Table:
    """One section per model: dense, then the methods under each pattern; columns: tasks and mean.

    In percent, each with its standard error; highest in bold.
    """
    shown = shown_rows(rows, settings)

    def section(model: str, title: str) -> TableSection:
        def cells(line: Line) -> list[Cell]:
            row = shown[model].get(line)
            tasks = [accuracy_of(row, task, settings.metric) for task in settings.tasks]
            return [cell_of(value, format_percent) for value in (*tasks, mean_value(tasks))]

        return TableSection(title, _best_in_bold(row_groups(settings, cells), max))

    without_norm = _tasks_without_norm(shown, settings)
    heads = [TASKS[t].label + ("†" if t in without_norm else "") for t in settings.tasks]
    return Table(
        columns=[*heads, "Mean"],
        sections=[section(model, title) for model, title in settings.models.items()],
        caption=_zero_shot_caption(shown, settings, without_norm),
        label=settings.label("zero-shot"),
    )


def _best_in_bold(
    groups: list[RowGroup], better: Callable[[Iterable[float]], float]
) -> list[RowGroup]:
    """In each group the best of each column, as it is printed; never dense, in the first group."""
    dense, *patterns = groups
    marked = []
    for group in patterns:
        best = []
        for column in zip(*(cells for _, cells in group.rows), strict=True):
            printed = {float(cell.text): cell.text for cell in column if cell.text != DASH}
            best.append(printed[better(printed)] if printed else None)
        rows = [
            (
                label,
                [replace(cell, best=cell.text == b) for cell, b in zip(cells, best, strict=True)],
            )
            for label, cells in group.rows
        ]
        marked.append(RowGroup(group.label, rows))
    return [dense, *marked]


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
    dataset = _common(own, lambda part: part.dataset)
    length = _common(own, lambda part: part.settings.get("length"))
    windows = _common(own, lambda part: getattr(part.splits.get(settings.split), "windows", None))
    bos = _common(own, lambda part: _BOS.get(part.settings.get("bos", "")))
    return sentences(
        settings.title,
        f"Perplexity on the {settings.split} split{f' of {dataset}' if dataset else ''}; "
        "lower is better",
        f"Context length: {length} tokens" if length else "",
        f"Windows: {windows}" if windows else "",
        f"BOS: {bos}" if bos else "",
        *_closing(settings),
    )


def _zero_shot_caption(
    shown: Mapping[str, Lines], settings: TableSettings, without_norm: list[str]
) -> str:
    def counts(part: ZeroShotResult) -> str:
        """``HellaSwag 10042, PIQA 1838``."""
        own = [task for task in settings.tasks if task in part.tasks]
        return ", ".join(f"{TASKS[task].label} {part.tasks[task].samples}" for task in own)

    own = {
        settings.models[model]: [row.zero_shot for row in lines.values() if row.zero_shot]
        for model, lines in shown.items()
    }
    limits = _common(own, lambda part: part.limit)
    examples = _common(own, counts)
    marked = " and ".join(TASKS[task].label for task in without_norm)
    return sentences(
        settings.title,
        "Zero-shot accuracy in percent ± standard error; higher is better",
        f"Metric: {_METRICS[settings.metric]}",
        f"†: acc, since there is no acc_norm ({marked})" if marked else "",
        f"Limited to the first examples of each task, at most {limits}" if limits else "",
        f"Examples: {examples}" if examples else "",
        *_closing(settings),
    )


def _closing(settings: TableSettings) -> list[str]:
    texts = settings.calibrations
    named = texts.values() if len(texts) == 1 else (f"{k}: {t}" for k, t in texts.items())
    return [
        f"Calibration: {'; '.join(text for text in named if text)}" if any(texts.values()) else "",
        f"Bold: best at that sparsity. {DASH}: not measured",
        settings.note,
    ]


def _common(own: Mapping[str, Sequence[Part]], say: Callable[[Part], str | int | None]) -> str:
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
