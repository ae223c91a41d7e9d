"""Time dense against sparse engines on the CPU, on random weights."""

from collections.abc import Sequence
from pathlib import Path

from dass.speed.cpu import CpuSettings, benchmark
from dass.speed.results import make_result, write_speed
from dass.speed.shapes import Source, shape_of


def speed_cpu(
    *, subject: str, source: Source, tokens: Sequence[int], patterns: Sequence[str],
    parts: Sequence[str], engines: Sequence[str], repeats: int, threads: int,
    result_file: str | Path,
) -> None:  # fmt: skip
    """Time dense against sparse engines on the CPU, on random weights.

    Args:
        subject, source: as for the stage ``speed_metric``.
        tokens, patterns, parts: what is measured.
        engines: options beside the engines that are always measured: ``openvino``.
        repeats, threads: how.
        result_file: what to write.
    """
    settings = CpuSettings(threads, tokens, patterns, parts, repeats, options=engines)
    shape = shape_of(source)
    outcome = benchmark(shape, settings)
    write_speed(result_file, make_result("cpu", subject, shape, settings, outcome))
