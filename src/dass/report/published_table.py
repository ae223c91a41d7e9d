"""The table that holds our numbers against published ones."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from dass.report.experiment import DENSE_LINE, Draws, Line, Lines, TableSettings, shown_rows
from dass.report.measures import Perplexity
from dass.report.table import Cell, RowGroup, Table, TableSection
from dass.report.words import DASH, format_percent, format_perplexity, pattern_label, sentences
from dass.results.published import ACCURACIES, MEAN, PERPLEXITY, Published, Quantity
from dass.results.schema import Run
from dass.results.summary import SummaryRow, mean_of_tasks
from dass.tasks import TASKS

Fitting = tuple[Published, str | None]
"""A number, and of perplexity on another text than the first its data set."""


def published_table(
    rows: Iterable[SummaryRow], settings: TableSettings, published: Sequence[Published]
) -> Table:
    """One section per model and quantity; columns: published, ours, ours − published, verdict.

    A row for each published number that is about the experiment's runs, on our data sets and
    context length; ours is the mean over draws.
    """
    shown = shown_rows(rows, settings)
    fitting = _fitting(published, shown, settings)
    sources = "; ".join(dict.fromkeys(number.source for number, _ in fitting))
    sections = [
        TableSection(f"{label}: {_in_words(*about)}", groups)
        for about in dict.fromkeys((number.quantity, text) for number, text in fitting)
        for model, label in settings.models.items()
        if (groups := _groups(model, shown[model], settings, about, fitting))
    ]
    return Table(
        columns=["Published", "Ours", "Difference", "Verdict"],
        sections=sections,
        caption=sentences(
            settings.title,
            "Our numbers beside published ones, and ours less theirs: perplexity, accuracy in "
            "percent",
            "Ours is the mean over draws of the calibration" if _several(settings) else "",
            f"Published: {sources}" if sources else "Nothing is published about these runs",
            f"{DASH}: not measured" if sources else "",
            settings.note,
        ),
        label=settings.label("published"),
    )


def _fitting(
    published: Iterable[Published], shown: Mapping[str, Lines], settings: TableSettings
) -> list[Fitting]:
    """Numbers about the experiment's runs, on the data sets and context length of our own."""
    own = [line for line in settings.all_lines if line.method not in settings.unpublished]
    lines = [(model, line) for model in settings.models for line in own]
    all_draws = [draws for own in shown.values() for draws in own.values()]
    ours = [row.perplexity for draws in all_draws for row in draws.values() if row.perplexity]
    first, length = (ours[0].dataset, ours[0].settings.get("length")) if ours else ("", None)
    found: list[Fitting] = []
    for number in published:
        text: str | None = first
        if number.quantity.metric == PERPLEXITY:
            text = number.text([first, *settings.others], length)
        if text is not None and any(_is_about(number, *one, settings) for one in lines):
            found.append((number, None if text == first else text))
    return found


def _is_about(number: Published, model: str, line: Line, settings: TableSettings) -> bool:
    """Whether it is about a line; it names a calibration by its key, whatever the draws."""
    same = number.targets == settings.targets.get(line.method, "mlp")
    return same and number.is_about(Run(model=model, **line._asdict()))


def _groups(
    model: str,
    lines: Lines,
    settings: TableSettings,
    about: tuple[Quantity, str | None],
    fitting: Sequence[Fitting],
) -> list[RowGroup]:
    """The rows of a model for which there is a number, by pattern; dense on top."""
    numbers = [number for number, text in fitting if (number.quantity, text) == about]
    labels = {"": {DENSE_LINE: "Dense"}} | {p: settings.lines(p) for p in settings.patterns}
    groups = []
    for pattern, own in labels.items():
        rows = [
            (label, _cells(number, about[1], lines[line], settings.tolerance))
            for line, label in own.items()
            for number in [n for n in numbers if _is_about(n, model, line, settings)][:1]
        ]
        if rows:
            groups.append(RowGroup(pattern_label(pattern) if pattern else "", rows))
    return groups


def _cells(number: Published, text: str | None, draws: Draws, tolerance: float) -> list[Cell]:
    perplexity = number.quantity.metric == PERPLEXITY
    show = format_perplexity if perplexity else format_percent
    theirs = Cell(show(number.value))
    found = (_measured(row, number.quantity, text) for row in draws.values())
    values = [value for value in found if value is not None]
    if not values:
        return [theirs, Cell(), Cell(), Cell()]
    ours = statistics.fmean(values)
    off = ours - number.value
    difference = f"{off:+.2f}" if perplexity else f"{100 * off:+.1f}"
    near = abs(off) <= tolerance * number.value
    verdict = f"within {100 * tolerance:g} %" if near else "differs"
    return [theirs, Cell(show(ours)), Cell(difference.replace("-", "−")), Cell(verdict)]


def _measured(row: SummaryRow, quantity: Quantity, text: str | None) -> float | None:
    """What a run has; unlike in the zero-shot table, acc never takes acc_norm's place."""
    if quantity.metric == PERPLEXITY:
        perplexity = Perplexity(quantity.split, text).of(row)
        return perplexity.value if perplexity else None
    if row.zero_shot is None:
        return None
    task, metric = ACCURACIES[quantity.metric]
    if task == MEAN:
        return mean_of_tasks(row.zero_shot, metric)
    accuracy: float | None = getattr(row.zero_shot.tasks.get(task), metric, None)
    return accuracy


def _several(settings: TableSettings) -> bool:
    return any(len(draws) > 1 for draws in settings.draws.values())


def _in_words(quantity: Quantity, text: str | None) -> str:
    """``perplexity, test``; ``perplexity, validation of c4``; ``ARC-e, acc_norm``."""
    if quantity.metric == PERPLEXITY:
        return f"perplexity, {quantity.split}{f' of {text}' if text else ''}"
    task, metric = ACCURACIES[quantity.metric]
    return f"{'mean of the tasks' if task == MEAN else TASKS[task].label}, {metric}"
