"""Time the pruning metric of a method, in turns with SparseGPT's, on one decoder block."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dass.speed.metric import MetricSettings, benchmark
from dass.speed.results import make_result, write_speed
from dass.speed.shapes import Source, shape_of


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
    settings = MetricSettings(methods, patterns, repeats, dtype=dtype, threads=threads)
    shape = shape_of(source)
    outcome = benchmark(shape, settings)
    write_speed(result_file, make_result("metric", subject, shape, settings, outcome))
