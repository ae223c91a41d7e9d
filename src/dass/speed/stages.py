"""The stages that make speed results: one function each, called by the workflow's scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dass.errors import DataError
from dass.runtime.files import read_json
from dass.runtime.job import device
from dass.speed import cpu, gpu, metric
from dass.speed.gpu_timing import Settings as GpuSettings
from dass.speed.recording import record
from dass.speed.results import write_speed
from dass.speed.shapes import Shape, shape_of_model
from dass.speed.timing import Outcome


def shape_of(folder: str | Path | None, sizes: Mapping[str, Any] | None) -> Shape:
    """A model's sizes from its folder, or those that the config gives."""
    if folder is not None:
        return shape_of_model(folder)
    assert sizes is not None
    return Shape(**sizes)


def metric_of_shape(
    *,
    subject: str,
    shape: Shape,
    dtype: str,
    methods: Mapping[str, tuple[str, dict[str, Any]]],
    patterns: Sequence[str],
    repeats: int,
    threads: int,
    result_file: str | Path,
) -> None:
    """Time the pruning metrics of every method on one decoder block.

    Args:
        subject: what to call the shape.
        shape: its sizes.
        dtype: of the weights.
        methods: name -> (function, arguments).
        patterns: those to choose masks of.
        repeats: that count.
        threads: to compute with.
        result_file: what to write.
    """
    settings = metric.Settings(
        methods=methods, patterns=patterns, repeats=repeats, dtype=getattr(torch, dtype),
        device=device(), threads=threads,
    )  # fmt: skip
    outcome = metric.benchmark(shape, settings)
    write_speed(result_file, record("metric", subject, shape, settings.as_dict(), outcome))


def gpu_of_shape(
    *,
    subject: str,
    shape: Shape,
    dtype: str,
    tokens: Sequence[int],
    repeats: int,
    result_file: str | Path,
) -> None:
    """Time dense against 2:4 on the GPU, on random weights of a shape.

    Args:
        subject, shape, dtype: as for :func:`metric_of_shape`; float32 is measured as float16,
            which 2:4 needs.
        tokens: in a call.
        repeats: that count.
        result_file: what to write.

    Raises:
        DataError: there is no GPU.
    """
    settings = _gpu_settings(subject, dtype, tokens, repeats)
    outcome = gpu.benchmark(shape, settings)
    write_speed(result_file, record("gpu", subject, shape, settings.as_dict(), outcome))


def prefill_of_run(
    *,
    subject: str,
    folder: str | Path,
    pruned: str | Path,
    pattern: str,
    dtype: str,
    tokens: Sequence[int],
    repeats: int,
    result_file: str | Path,
) -> None:
    """Time prefill with a pruned model on the GPU.

    Args:
        subject: what to call the run.
        folder: of the dense model.
        pruned: the run's pruned file, and
        pattern: its pattern.
        dtype, tokens, repeats, result_file: as for :func:`gpu_of_shape`.

    Raises:
        DataError: there is no GPU.
    """
    settings = _gpu_settings(subject, dtype, tokens, repeats)
    outcome = gpu.prefill_of_run(folder, pruned, pattern, settings)
    shape = shape_of_model(folder)
    write_speed(result_file, record("gpu", subject, shape, settings.as_dict(), outcome))


def _gpu_settings(subject: str, dtype: str, tokens: Sequence[int], repeats: int) -> GpuSettings:
    if device() != "cuda":
        raise DataError(f"{subject}: there is no GPU here; ask for one, or leave speed.gpu out")
    chosen = torch.bfloat16 if dtype == "bfloat16" else torch.float16
    return GpuSettings(tokens=tokens, repeats=repeats, dtype=chosen)


def cpu_of_shape(
    *,
    subject: str,
    shape: Shape,
    tokens: Sequence[int],
    patterns: Sequence[str],
    parts: Sequence[str],
    options: Sequence[str],
    repeats: int,
    threads: int,
    deepsparse: str | Path | None,
    result_file: str | Path,
) -> None:
    """Time dense against sparse engines on the CPU, on random weights of a shape.

    Args:
        subject, shape: as for :func:`metric_of_shape`.
        tokens, patterns, parts: what is measured.
        options: ``openvino``, ``deepsparse``.
        repeats, threads: how.
        deepsparse: the file that names the interpreter which has DeepSparse.
        result_file: what to write.
    """
    python = None if deepsparse is None else str(read_json(deepsparse)["python"])
    settings = cpu.Settings(
        threads=threads, tokens=tokens, patterns=patterns, parts=parts, repeats=repeats,
        options=options, deepsparse_python=python,
    )  # fmt: skip
    outcome: Outcome = cpu.benchmark(shape, settings)
    write_speed(result_file, record("cpu", subject, shape, settings.as_dict(), outcome))
