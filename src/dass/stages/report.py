"""Write the study's report, as PDF, HTML and LaTeX."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dass.report.block_sections import block_sections
from dass.report.document import make_report, write_report
from dass.report.experiment import TableSettings
from dass.report.speed_sections import speed_accuracy_section, speed_sections
from dass.results.published import read_published
from dass.results.schema import ActivationsResult, BlocksResult, PruningResult, read_result
from dass.results.summary import Summary
from dass.speed.results import read_speed


def report(
    *,
    summary: str | Path,
    published: Iterable[str | Path],
    speed_results: Iterable[str | Path],
    speed_pruning: Iterable[str | Path],
    activations: Iterable[str | Path],
    block_errors: Iterable[str | Path],
    study: str,
    description: str,
    note: str,
    differences: Iterable[str],
    experiments: Mapping[str, Mapping[str, Any]],
    speed: Mapping[str, Mapping[str, Any]],
    speed_accuracy: Mapping[str, Any] | None,
    blocks: Mapping[str, Any] | None,
    pdf: str | Path,
    html: str | Path,
    tex: str | Path,
) -> None:
    """Write the study's report, as PDF, HTML and LaTeX.

    Args:
        summary: of the study, JSON.
        published: files of published numbers.
        speed_results: result files of speed benchmarks.
        speed_pruning: results of runs, for the times of whole prunings.
        activations, block_errors: results of these stages.
        study, description, note: name, description and note of the study.
        differences: from the paper, a sentence each.
        experiments: for each its fields of :class:`dass.report.experiment.TableSettings`.
        speed: for each kind of benchmark its fields of
            :class:`dass.report.speed_tables.SpeedSettings`.
        speed_accuracy: fields of :class:`dass.report.experiment.TableSettings`; None where no run's
            own speed is measured.
        blocks: fields of :class:`dass.report.block_tables.BlockSettings`; None where the study does
            not look into blocks.
        pdf, html, tex: what to write.
    """
    measured = [read_speed(file) for file in speed_results]
    whole = [read_result(file, PruningResult) for file in speed_pruning]
    norms = [read_result(file, ActivationsResult) for file in activations]
    errors = [read_result(file, BlocksResult) for file in block_errors]
    rows = read_result(summary, Summary).rows
    document = make_report(
        rows,
        [TableSettings(**settings) for settings in experiments.values()],
        title=f"DaSS, reproduced: study {study}",
        description=description,
        note=note,
        published=[number for file in published for number in read_published(file)],
        more=[
            *block_sections(norms, errors, blocks),
            *speed_accuracy_section(measured, rows, speed_accuracy),
            *speed_sections(measured, whole, speed),
        ],
        differences=differences,
    )
    write_report(document, pdf, html, tex)
