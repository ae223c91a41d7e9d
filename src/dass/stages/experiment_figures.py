"""Draw the experiments' figures."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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
        out: what to write, in a folder of the experiment's name: ``perplexity`` or ``zero_shot``,
            ``.pdf`` or ``.svg``.
    """
    rows = read_result(summary, Summary).rows
    draw = {"perplexity": perplexity_figure, "zero_shot": zero_shot_figure}
    for path in map(Path, out):
        save_figure(draw[path.stem](rows, TableSettings(**experiments[path.parent.name])), path)
