"""Time prefill with a pruned model on the GPU."""

from collections.abc import Sequence
from pathlib import Path

from dass.speed.gpu_timing import GpuSettings, half_of
from dass.speed.prefill import prefill_of_run
from dass.speed.results import make_result, write_speed
from dass.speed.shapes import shape_of_model


def speed_prefill(
    *, subject: str, folder: str | Path, pattern: str, dtype: str, tokens: Sequence[int],
    repeats: int, pruned_file: str | Path, result_file: str | Path,
) -> None:  # fmt: skip
    """Time prefill with a pruned model on the GPU.

    Args:
        subject: the run, as ``model/calibration/method``.
        folder: of the dense model.
        pattern: of the run.
        dtype, tokens, repeats: as for the stage ``speed_gpu``.
        pruned_file: of the run.
        result_file: what to write.

    Raises:
        DataError: there is no GPU.
    """
    settings = GpuSettings(tokens, repeats=repeats, dtype=half_of(dtype))
    outcome = prefill_of_run(folder, pruned_file, pattern, settings)
    shape = shape_of_model(folder)
    result = make_result("gpu", subject, shape, settings, outcome)
    result.settings["pattern"] = pattern
    write_speed(result_file, result)
