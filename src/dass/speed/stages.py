"""The speed stages: one function per rule, called by the workflow's scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dass.speed.results import make_result, read_speed, write_speed
from dass.speed.shapes import shape_of, shape_of_model

Source = str | Path | Mapping[str, Any]
"""Where sizes come from: a model's folder, or the sizes themselves."""


def speed_metric(
    *, subject: str, source: Source, dtype: str, methods: Mapping[str, tuple[str, dict[str, Any]]],
    patterns: Sequence[str], repeats: int, threads: int, result_file: str | Path,
) -> None:  # fmt: skip
    """Time the pruning metric of a method, in turns with SparseGPT's, on one decoder block.

    Args:
        subject: what the result is called: ``model/method``.
        source: of the sizes.
        dtype: of the weights.
        methods: name -> (function, arguments): the method, and SparseGPT where the study has it.
        patterns: for which masks are chosen.
        repeats: that count.
        threads: to compute with.
        result_file: what to write.
    """
    from dass.speed.metric import MetricSettings, benchmark

    settings = MetricSettings(methods, patterns, repeats, dtype=dtype, threads=threads)
    shape = shape_of(source)
    outcome = benchmark(shape, settings)
    write_speed(result_file, make_result("metric", subject, shape, settings, outcome))


def speed_gpu(
    *, subject: str, source: Source, dtype: str, tokens: Sequence[int], repeats: int,
    result_file: str | Path,
) -> None:  # fmt: skip
    """Time dense against 2:4 on the GPU, on random weights.

    Args:
        subject, source: as for :func:`speed_metric`.
        dtype: of the weights; float32 is measured as float16, which 2:4 needs.
        tokens: per call.
        repeats: that count.
        result_file: what to write.

    Raises:
        DataError: there is no GPU.
    """
    from dass.speed.gpu import benchmark
    from dass.speed.gpu_timing import GpuSettings

    settings = GpuSettings(tokens, repeats=repeats, dtype=_half(dtype))
    shape = shape_of(source)
    outcome = benchmark(shape, settings)
    write_speed(result_file, make_result("gpu", subject, shape, settings, outcome))


def _half(dtype: str) -> str:
    return "bfloat16" if dtype == "bfloat16" else "float16"


def speed_prefill(
    *, subject: str, folder: str | Path, pattern: str, dtype: str, tokens: Sequence[int],
    repeats: int, pruned_file: str | Path, result_file: str | Path,
) -> None:  # fmt: skip
    """Time prefill with a pruned model on the GPU.

    Args:
        subject: the run, as ``model/calibration/method``.
        folder: of the dense model.
        pattern: of the run.
        dtype, tokens, repeats: as for :func:`speed_gpu`.
        pruned_file: of the run.
        result_file: what to write.

    Raises:
        DataError: there is no GPU.
    """
    from dass.speed.gpu_timing import GpuSettings
    from dass.speed.prefill import prefill_of_run

    settings = GpuSettings(tokens, repeats=repeats, dtype=_half(dtype))
    outcome = prefill_of_run(folder, pruned_file, pattern, settings)
    shape = shape_of_model(folder)
    write_speed(result_file, make_result("gpu", subject, shape, settings, outcome))


def speed_cpu(
    *, subject: str, source: Source, tokens: Sequence[int], patterns: Sequence[str],
    parts: Sequence[str], engines: Sequence[str], repeats: int, threads: int,
    result_file: str | Path,
) -> None:  # fmt: skip
    """Time dense against sparse engines on the CPU, on random weights.

    Args:
        subject, source: as for :func:`speed_metric`.
        tokens, patterns, parts: what is measured.
        engines: options beside the engines that are always measured: ``openvino``.
        repeats, threads: how.
        result_file: what to write.
    """
    from dass.speed.cpu import CpuSettings, benchmark

    settings = CpuSettings(threads, tokens, patterns, parts, repeats, options=engines)
    shape = shape_of(source)
    outcome = benchmark(shape, settings)
    write_speed(result_file, make_result("cpu", subject, shape, settings, outcome))


def speed_tables(
    *, kind: str, settings: Mapping[str, Any], result_files: Iterable[str | Path],
    tex_file: str | Path, markdown_file: str | Path,
) -> None:  # fmt: skip
    """Write the table of one kind as LaTeX and Markdown.

    Args:
        kind: ``metric``, ``gpu`` or ``cpu``.
        settings: fields of :class:`dass.report.speed_tables.SpeedSettings`.
        result_files: of this kind.
        tex_file, markdown_file: what to write.
    """
    from dass.report.speed_tables import SpeedSettings, speed_table
    from dass.runtime.files import write_text

    results = [read_speed(file) for file in result_files]
    table = speed_table(kind, results, [], SpeedSettings(**settings))
    write_text(tex_file, table.latex())
    write_text(markdown_file, table.markdown())


def speed_figures(
    *, kind: str, settings: Mapping[str, Any], result_files: Iterable[str | Path],
    figure_file: str | Path,
) -> None:  # fmt: skip
    """Draw the figure of one kind.

    Args:
        kind: ``gpu`` or ``cpu``.
        settings, result_files: as for :func:`speed_tables`.
        figure_file: what to write.
    """
    from dass.report.figures import save_figure
    from dass.report.speed_figures import speed_figure
    from dass.report.speed_tables import SpeedSettings

    results = [read_speed(file) for file in result_files]
    save_figure(speed_figure(kind, results, SpeedSettings(**settings)), figure_file)
