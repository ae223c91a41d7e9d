"""Draw the experiments' figures."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dass.report.contests import perplexities
from dass.report.experiment import TableSettings
from dass.report.figures import perplexity_figure, zero_shot_figure
from dass.report.plots import save_figure
from dass.results.schema import read_result
from dass.results.summary import Summary


def experiment_figures(
    *, summary: str | Path, experiments: Mapping[str, Mapping[str, Any]], out: Iterable[str | Path]
) -> None:
    """Draw an experiment's figures.

    Args:
        summary: of the study, JSON.
        experiments: for each its fields of :class:`dass.report.experiment.TableSettings`.
        out: what to write, in a folder of the experiment's name: ``perplexity``, ``zero_shot``,
            or ``perplexity-<data set>`` of another text; ``.pdf`` or ``.svg``.
    """
    rows = read_result(summary, Summary).rows
    for path in map(Path, out):
        settings = TableSettings(**experiments[path.parent.name])
        by_kind = {measure.kind: measure for measure in perplexities(settings)}
        if path.stem == "zero_shot":
            figure = zero_shot_figure(rows, settings)
        else:
            figure = perplexity_figure(rows, settings, by_kind[path.stem])
        save_figure(figure, path)
