"""Draw the figures of blocks."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dass.report.block_figures import block_figures as figures_of
from dass.report.block_tables import BlockSettings
from dass.report.plots import save_figure
from dass.results.schema import ActivationsResult, BlocksResult, read_result


def block_figures(
    *,
    activations: Iterable[str | Path],
    errors: Iterable[str | Path],
    settings: Mapping[str, Any],
    out: Iterable[str | Path],
) -> None:
    """Draw the figures of blocks.

    Args:
        activations, errors: results of these stages.
        settings: fields of :class:`dass.report.block_tables.BlockSettings`.
        out: what to write: ``norms``, ``outliers``, ``glu_error``, ``hidden_error`` or ``kept``,
            ``.pdf`` or ``.svg``.
    """
    figures = figures_of(
        [read_result(file, ActivationsResult) for file in activations],
        [read_result(file, BlocksResult) for file in errors],
        BlockSettings(**settings),
    )
    for path in map(Path, out):
        save_figure(figures[path.stem], path)
