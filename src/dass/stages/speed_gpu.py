"""Time dense against 2:4 on the GPU, on random weights."""

from collections.abc import Sequence
from pathlib import Path

from dass.speed.gpu import benchmark
from dass.speed.gpu_timing import GpuSettings, half_of
from dass.speed.results import make_result, write_speed
from dass.speed.shapes import Source, shape_of


def speed_gpu(
    *, subject: str, source: Source, dtype: str, tokens: Sequence[int], repeats: int,
    result_file: str | Path,
) -> None:  # fmt: skip
    """Time dense against 2:4 on the GPU, on random weights.

    Args:
        subject, source: as for the stage ``speed_metric``.
        dtype: of the weights; float32 is measured as float16, which 2:4 needs.
        tokens: per call.
        repeats: that count.
        result_file: what to write.

    Raises:
        DataError: there is no GPU.
    """
    settings = GpuSettings(tokens, repeats=repeats, dtype=half_of(dtype))
    shape = shape_of(source)
    outcome = benchmark(shape, settings)
    write_speed(result_file, make_result("gpu", subject, shape, settings, outcome))
