"""The blocks that say which benchmarks are run."""

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from dass.config.types import (
    Count,
    NamesOrAll,
    Patterns,
    RunName,
    Strict,
    Switch,
    failure,
    from_command_line,
    once,
    only_known,
    shown,
)
from dass.models.shape import Shape


def _known_sizes(value: Any) -> Any:
    if not isinstance(value, dict):
        raise failure(("", f"must be a block of keys, not {shown(value)}"))
    known = only_known(value, (field.name for field in fields(Shape)))
    return {key: from_command_line(size) for key, size in known.items()}


def _shared_evenly(shape: Shape) -> Shape:
    if shape.heads % shape.key_value_heads:
        raise failure(
            ("key_value_heads", f"{shape.heads} heads cannot share them evenly; correct one")
        )
    return shape


Sizes = Annotated[Shape, BeforeValidator(_known_sizes), AfterValidator(_shared_evenly)]


class _Benchmark(Strict):
    """What is measured."""

    of: NamesOrAll
    """Keys of `models` or of `speed.shapes`, or `all` models."""


class MetricSpeedConfig(_Benchmark):
    """How long the pruning metric takes without calibration passes: every method and its patterns,
    each method in turns with SparseGPT where the study has it."""

    methods: NamesOrAll = "all"
    """Keys of `methods`, or `all`."""
    repeats: Count = 5
    """Repeats that count, after the warm-up."""


class GpuSpeedConfig(_Benchmark):
    """Dense against 2:4 on a GPU. Part of the study only where there is a GPU; elsewhere the table
    says `not measured here`."""

    tokens: Annotated[list[Count], AfterValidator(once)] = Field(
        default=[1, 4, 16, 128, 512, 2048, 8192], min_length=1
    )
    """Tokens per call."""
    repeats: Count = 20
    """Repeats that count, after the warm-up."""
    prefill: Switch = True
    """Also prefill and decode with each pruned model itself, end to end, where it fits; models are
    pruned for it."""
    prefill_patterns: Patterns = Field(default=["2of4"])
    """Patterns of the runs that `prefill` measures, spelled as in `experiments`. Stock kernels run
    `2of4` only, packed weights any."""


class CpuSpeedConfig(_Benchmark):
    """Dense against sparse on the CPU. torch (float32, bfloat16 and CSR) and onnxruntime are always
    measured, since a speed-up says nothing without good dense baselines."""

    engines: Annotated[list[Literal["openvino"]], AfterValidator(once)] = Field(default=[])
    """Engines to measure as well; `openvino` must be installed (`pip install openvino`)."""
    patterns: Patterns = Field(default=["u50", "u60", "u70", "u80", "2of4"])
    """Patterns of the sparse variants, spelled as in `experiments`."""
    parts: Annotated[list[Literal["mlp", "block"]], AfterValidator(once)] = Field(
        default=["mlp", "block"], min_length=1
    )
    """What is timed: the gated MLP, the whole decoder block."""
    tokens: Annotated[list[Count], AfterValidator(once)] = Field(default=[1, 16, 256], min_length=1)
    """Tokens per call: 1 is text generation, many are prefill."""
    repeats: Count = 9
    """Repeats that count, after the warm-up."""
    threads: Count | None = None
    """Threads that every engine computes with; without it, all cores of the run. No other job runs
    beside the benchmark in any case."""


class SpeedConfig(Strict):
    """Which speed benchmarks are run: those whose block is here. Without `speed`, none."""

    shapes: dict[RunName, Sizes] = Field(default={})
    """Sizes to measure besides those of the study's models, by name."""
    metric: MetricSpeedConfig | None = None
    """Time of the pruning metrics."""
    gpu: GpuSpeedConfig | None = None
    """2:4 on a GPU."""
    cpu: CpuSpeedConfig | None = None
    """Sparse engines on the CPU."""
