"""Write the experiments' tables as LaTeX and Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dass.report.contests import perplexities
from dass.report.experiment import TableSettings
from dass.report.experiment_tables import perplexity_table, zero_shot_table
from dass.report.published_table import published_table
from dass.report.table import Table
from dass.results.published import read_published
from dass.results.schema import read_result
from dass.results.summary import Summary, SummaryRow
from dass.runtime.files import write_text


def experiment_tables(
    *,
    summary: str | Path,
    published: Iterable[str | Path],
    experiments: Mapping[str, Mapping[str, Any]],
    out: Iterable[str | Path],
) -> None:
    """Write an experiment's tables as LaTeX and Markdown.

    Args:
        summary: of the study, JSON.
        published: files of published numbers.
        experiments: for each its fields of :class:`dass.report.experiment.TableSettings`.
        out: what to write, in a folder of the experiment's name: ``perplexity``, ``zero_shot``,
            ``published``, or ``perplexity-<data set>`` of another text; ``.tex`` or ``.md``.
    """
    rows = read_result(summary, Summary).rows
    numbers = [number for file in published for number in read_published(file)]
    make: dict[str, Callable[[Sequence[SummaryRow], TableSettings], Table]] = {
        "zero_shot": zero_shot_table,
        "published": partial(published_table, published=numbers),
    }
    for path in map(Path, out):
        settings = TableSettings(**experiments[path.parent.name])
        for measure in perplexities(settings):
            make[measure.kind] = partial(perplexity_table, measure=measure)
        table = make[path.stem](rows, settings)
        write_text(path, table.latex() if path.suffix == ".tex" else table.markdown())
