"""The table that holds our numbers against published ones."""

from collections.abc import Iterable, Mapping, Sequence

from dass.report.experiment import (
    Line,
    Lines,
    TableSettings,
    perplexity_of,
    row_groups,
    shown_rows,
)
from dass.report.table import Cell, Table, TableSection
from dass.report.words import DASH, format_percent, format_perplexity, sentences
from dass.results.published import ACCURACIES, MEAN, PERPLEXITY, Published, Quantity
from dass.results.summary import SummaryRow, mean_of_tasks
from dass.tasks import TASKS


def published_table(
    rows: Iterable[SummaryRow], settings: TableSettings, published: Sequence[Published]
) -> Table:
    """One section per model and quantity; columns: ours, published, ours − published.

    Quantities are those of which a number is published for a run of the experiment; with none,
    the perplexity that the perplexity table prints. A dash stands for what was not measured, not
    published, or published for another data set or context length.
    """
    shown = shown_rows(rows, settings)
    fitting = _fitting(published, shown, settings)
    quantities = list(dict.fromkeys(row.quantity for row in fitting))
    sources = "; ".join(dict.fromkeys(row.source for row in fitting))

    def section(model: str, label: str, quantity: Quantity) -> TableSection:
        about = [number for number in fitting if number.quantity == quantity]

        def cells(line: Line) -> list[Cell]:
            theirs = next((n.value for n in about if n.is_about(line.of(model))), None)
            return _cells(quantity, _ours(shown[model].get(line), quantity), theirs)

        return TableSection(f"{label}: {_in_words(quantity)}", row_groups(settings, cells))

    return Table(
        columns=["Ours", "Published", "Difference"],
        sections=[
            section(model, label, quantity)
            for quantity in quantities or [Quantity(PERPLEXITY, settings.split)]
            for model, label in settings.models.items()
        ],
        caption=sentences(
            settings.title,
            "Our numbers beside published ones, and ours less theirs: perplexity, accuracy in "
            "percent",
            f"Published: {sources}" if sources else "Nothing is published about these runs",
            f"{DASH}: not measured, or not published",
            settings.note,
        ),
        label=settings.label("published"),
    )


def _fitting(
    published: Iterable[Published], shown: Mapping[str, Lines], settings: TableSettings
) -> list[Published]:
    """Numbers about the experiment's runs, on the data set and context length of our own."""
    runs = [line.of(model) for model in settings.models for line in settings.all_lines]
    ours = [row.perplexity for lines in shown.values() for row in lines.values() if row.perplexity]
    dataset, length = (ours[0].dataset, ours[0].settings.get("length")) if ours else (None, None)
    return [
        number
        for number in published
        if any(number.is_about(run) for run in runs)
        and (number.quantity.metric != PERPLEXITY or number.holds_for(dataset, length))
    ]


def _ours(row: SummaryRow | None, quantity: Quantity) -> float | None:
    """What we measured; unlike in the zero-shot table, acc never takes acc_norm's place."""
    if quantity.metric == PERPLEXITY:
        perplexity = perplexity_of(row, quantity.split)
        return perplexity.value if perplexity else None
    if row is None or row.zero_shot is None:
        return None
    task, metric = ACCURACIES[quantity.metric]
    if task == MEAN:
        return mean_of_tasks(row.zero_shot, metric)
    accuracy: float | None = getattr(row.zero_shot.tasks.get(task), metric, None)
    return accuracy


def _cells(quantity: Quantity, ours: float | None, theirs: float | None) -> list[Cell]:
    perplexity = quantity.metric == PERPLEXITY
    show = format_perplexity if perplexity else format_percent
    cells = [Cell() if value is None else Cell(show(value)) for value in (ours, theirs)]
    if ours is None or theirs is None:
        return [*cells, Cell()]
    difference = f"{ours - theirs:+.2f}" if perplexity else f"{100 * (ours - theirs):+.1f}"
    return [*cells, Cell(difference.replace("-", "−"))]


def _in_words(quantity: Quantity) -> str:
    """``perplexity, test``; ``ARC-e, acc_norm``."""
    if quantity.metric == PERPLEXITY:
        return f"perplexity, {quantity.split}"
    task, metric = ACCURACIES[quantity.metric]
    return f"{'mean of the tasks' if task == MEAN else TASKS[task].label}, {metric}"
