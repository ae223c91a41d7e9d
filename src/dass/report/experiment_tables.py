"""The tables of an experiment: perplexity, and accuracy on zero-shot tasks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from dass.report.contests import (
    Column,
    Place,
    Verdicts,
    mean_accuracy,
    perplexity_columns,
    table_verdicts,
    zero_shot_columns,
)
from dass.report.experiment import (
    Line,
    Lines,
    TableSettings,
    row_groups,
    shown_rows,
)
from dass.report.measures import Measure, Perplexity, cell_of, measured
from dass.report.table import Cell, RowGroup, Table, TableSection
from dass.report.words import DASH, listed, sentences
from dass.results.schema import PerplexityResult, ZeroShotResult
from dass.results.significance import LEVEL
from dass.results.summary import SummaryRow
from dass.tasks import TASKS

Part = TypeVar("Part", PerplexityResult, ZeroShotResult)


def perplexity_table(
    rows: Iterable[SummaryRow],
    settings: TableSettings,
    measure: Perplexity | None = None,
    verdicts: Verdicts | None = None,
) -> Table:
    """Rows: dense, then the methods under each pattern; columns: models.

    Args:
        rows, settings: of the study, and of the experiment.
        measure: one of :func:`dass.report.contests.perplexities`; None: the first.
        verdicts: of this table, where they are known already.
    """
    shown = shown_rows(rows, settings)
    measure = measure or Perplexity(settings.split)
    columns = perplexity_columns(settings, measure)
    if verdicts is None:
        verdicts = table_verdicts(shown, settings, columns)
    return Table(
        columns=list(settings.models.values()),
        sections=[TableSection("", _marked_groups(shown, settings, columns, verdicts))],
        caption=_perplexity_caption(shown, settings, measure, marked=bool(verdicts)),
        label=settings.label(measure.kind),
    )


def zero_shot_table(
    rows: Iterable[SummaryRow], settings: TableSettings, verdicts: Verdicts | None = None
) -> Table:
    """One section per model: dense, then the methods under each pattern; columns: tasks and mean.

    In percent. ``verdicts`` are as of :func:`perplexity_table`.
    """
    shown = shown_rows(rows, settings)
    columns = zero_shot_columns(settings)
    if verdicts is None:
        verdicts = table_verdicts(shown, settings, columns)
    without_norm = _tasks_without_norm(shown, settings)
    heads = [TASKS[t].label + ("†" if t in without_norm else "") for t in settings.tasks]
    return Table(
        columns=[*heads, "Mean"],
        sections=[
            TableSection(
                title,
                _marked_groups(shown, settings, [c for c in columns if c.model == model], verdicts),
            )
            for model, title in settings.models.items()
        ],
        caption=_zero_shot_caption(shown, settings, without_norm, marked=bool(verdicts)),
        label=settings.label("zero-shot"),
    )


def _marked_groups(
    shown: Mapping[str, Lines],
    settings: TableSettings,
    columns: Sequence[Column],
    verdicts: Verdicts,
) -> list[RowGroup]:
    """The rows of a section, with the marks of the best; dense has none."""

    def cell(line: Line, column: Column) -> Cell:
        plain = cell_of(column.measure, shown[column.model][line])
        verdict = verdicts.get(Place(line.pattern or "", line.calibration or "", column))
        if verdict is None:
            return plain
        best = line == verdict.best and not verdict.tied
        return replace(plain, best=best, tied=line in verdict.tied)

    return row_groups(settings, lambda line: [cell(line, column) for column in columns])


def _tasks_without_norm(shown: Mapping[str, Lines], settings: TableSettings) -> list[str]:
    """Tasks that print acc although acc_norm is asked for."""
    if settings.metric == "acc":
        return []
    parts = [row.zero_shot for lines in shown.values() for row in _rows(lines) if row.zero_shot]
    found = {task: [p.tasks[task] for p in parts if task in p.tasks] for task in settings.tasks}
    return [task for task, own in found.items() if own and all(one.acc_norm is None for one in own)]


# --- Captions -----------------------------------------------------------------------------------

_BOS = {
    "text": "at the start of the text, if the tokenizer puts one there",
    "window": "at the start of each window",
}
_METRICS = {
    "acc": "acc, by the log-likelihood of the choice",
    "acc_norm": "acc_norm, by the log-likelihood of the choice per character",
}


def _perplexity_caption(
    shown: Mapping[str, Lines], settings: TableSettings, measure: Perplexity, *, marked: bool
) -> str:
    own = {
        settings.models[model]: [row.perplexity for row in _rows(lines) if row.perplexity]
        for model, lines in shown.items()
    }
    dataset = measure.dataset or _common(own, lambda part: part.dataset)
    length = _common(own, lambda part: part.settings.get("length"))
    windows = _common(
        own, lambda part: getattr(part.of(measure.split, measure.dataset), "windows", None)
    )
    bos = _common(own, lambda part: _BOS.get(part.settings.get("bos", "")))
    return sentences(
        settings.title,
        f"Perplexity on the {measure.split} split{f' of {dataset}' if dataset else ''}; "
        "lower is better",
        f"Context length: {length} tokens" if length else "",
        f"Windows: {windows}" if windows else "",
        f"BOS: {bos}" if bos else "",
        _draws_in_words(shown, measure, "no ±"),
        *_closing(settings, "windows" if marked else "", shown),
    )


def _zero_shot_caption(
    shown: Mapping[str, Lines], settings: TableSettings, without_norm: list[str], *, marked: bool
) -> str:
    def counts(part: ZeroShotResult) -> str:
        """``HellaSwag 10042, PIQA 1838``."""
        own = [task for task in settings.tasks if task in part.tasks]
        return ", ".join(f"{TASKS[task].label} {part.tasks[task].samples}" for task in own)

    own = {
        settings.models[model]: [row.zero_shot for row in _rows(lines) if row.zero_shot]
        for model, lines in shown.items()
    }
    limits = _common(own, lambda part: part.limit)
    examples = _common(own, counts)
    daggers = listed([TASKS[task].label for task in without_norm])
    draws = _draws_in_words(shown, mean_accuracy(settings), "standard error over questions")
    return sentences(
        settings.title,
        "Zero-shot accuracy in percent; higher is better",
        f"Metric: {_METRICS[settings.metric]}",
        f"†: acc, since there is no acc_norm ({daggers})" if daggers else "",
        f"Limited to the first examples of each task, at most {limits}" if limits else "",
        f"Examples: {examples}" if examples else "",
        draws or "±: standard error over questions",
        *_closing(settings, "questions" if marked else "", shown),
    )


def _draws_in_words(shown: Mapping[str, Lines], measure: Measure, single: str) -> str:
    """What ± is where there are several draws, and what stands in its place where there are not."""
    counts = {len(measured(measure, own)) for lines in shown.values() for own in lines.values()}
    if max(counts, default=0) < 2:
        return ""
    alone = f"; without several draws: {single}" if 1 in counts else ""
    return f"±: standard deviation over draws of the calibration{alone}"


def _closing(settings: TableSettings, items: str, shown: Mapping[str, Lines]) -> list[str]:
    """Calibration, marks, dashes, note; ``items`` are what was resampled for the marks."""
    texts = settings.calibrations
    named = texts.values() if len(texts) == 1 else (f"{k}: {t}" for k, t in texts.items())
    several = any(len(draws) > 1 for lines in shown.values() for draws in lines.values())
    marks = [
        f"Bold: best at that sparsity{' and calibration' if len(texts) > 1 else ''}, and better "
        "than every other method there beyond noise; "
        "underlined: the best and all that cannot be told apart from it",
        f"Noise: paired bootstrap over {items}{' and draws' if several else ''}, two-sided, "
        f"p < {LEVEL} after Holm's correction over the table",
    ]
    return [
        f"Calibration: {'; '.join(text for text in named if text)}" if any(texts.values()) else "",
        *(marks if items else []),
        f"{DASH}: not measured",
        settings.note,
    ]


def _rows(lines: Lines) -> list[SummaryRow]:
    return [row for draws in lines.values() for row in draws.values()]


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
