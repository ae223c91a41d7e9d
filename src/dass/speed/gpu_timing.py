"""Timing on a GPU: events around many calls, eager and as a CUDA graph, checked before timed."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from dass.errors import DataError
from dass.speed.timing import TOLERANCE, Outcome, Timed, Variant, checked, measure
from dass.speed.twofour import Compress, backends

REPEAT_SECONDS = 0.004
"""A repeat makes as many calls as fill this time, for the clock's sake."""
MOST_CALLS = 48

Call = Callable[[], Tensor]
NO_GRAPH = "CUDA graphs need a GPU"


@dataclass(frozen=True)
class GpuSettings:
    """What is measured, and how often."""

    tokens: Sequence[int] = (1, 4, 16, 128, 512, 2048, 8192)
    parts: Sequence[str] = ("gate", "down", "mlp", "block", "prefill", "decode")
    repeats: int = 20
    warmup: int = 3
    dtype: str = "float16"
    device: str = "cuda"
    prefill_gib: float = 14.0
    """How much memory the dense model of prefill and decode may take; if short, fewer blocks."""
    rotated_caches: int = 3
    """Weights rotate through this many times the size of the second-level cache."""
    compress: Mapping[str, Compress] = field(default_factory=backends)
    packed: bool = True
    """Whether packed weights are measured as well."""

    def __post_init__(self) -> None:
        if on_gpu(self.device) and not torch.cuda.is_available():
            raise DataError(
                "there is no GPU here, so nothing is measured; ask for one, or leave speed.gpu out "
                "(on the command line --device cpu is a dry run)"
            )

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch has it."""
        return getattr(torch, self.dtype)  # type: ignore[no-any-return]


def on_gpu(device: str) -> bool:
    """Whether a device is a GPU."""
    return torch.device(device).type == "cuda"


def time_calls(calls: Sequence[Call], device: str) -> float:
    """Seconds of one call: all are issued one after the other, then awaited."""
    if not on_gpu(device):
        started = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - started) / len(calls)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for call in calls:
        call()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1000 / len(calls)


def as_graph(calls: Sequence[Call], device: str) -> Call:
    """The replay of all calls as one CUDA graph; it returns the first call's output."""
    if not on_gpu(device):
        raise RuntimeError(NO_GRAPH)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls[:2]:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        first = calls[0]()
        for call in calls[1:]:
            call()

    def replay(_: Sequence[Call] = calls) -> Tensor:  # kept: the graph reads what they hold
        graph.replay()
        return first

    return replay


def calls_per_repeat(calls: Sequence[Call], device: str) -> int:
    """How often to go through all calls in one repeat."""
    time_calls(calls, device)
    once = time_calls(calls, device) * len(calls)
    most = max(1, MOST_CALLS // len(calls))
    return min(most, max(1, math.ceil(REPEAT_SECONDS / max(once, 1e-9))))


def timed_variants(
    variants: Mapping[tuple[str, str], tuple[Sequence[Call], Call]], settings: GpuSettings,
    outcome: Outcome, part: str, tokens: int, blocks: int = 1,
) -> None:  # fmt: skip
    """Check, then time all variants in turns, eagerly and as graphs; note what fails.

    Args:
        variants: (engine, variant) -> (calls on rotating weights, reference for the first).
        settings, outcome: what and how often; where it goes.
        part, tokens: what a call is of.
        blocks: decoder blocks that a call goes through.
    """
    modes = [
        Variant(part, *name, tokens, settings.dtype,
                partial(_prepare, *calls, mode, settings, math.sqrt(blocks)), mode, blocks)
        for name, calls in variants.items()
        for mode in ("eager", "graph")
    ]  # fmt: skip
    measure(modes, settings.warmup, settings.repeats, outcome)


def _prepare(
    calls: Sequence[Call], reference: Call, mode: str, settings: GpuSettings, allowance: float
) -> tuple[Timed, float]:
    """A variant that is ready to be timed, and its error."""
    wanted, tolerance = reference().clone(), TOLERANCE[settings.dtype] * allowance
    error = checked(calls[0](), wanted, tolerance)
    repeated = list(calls) * calls_per_repeat(calls, settings.device)
    if mode == "eager":
        return lambda _: time_calls(repeated, settings.device), error
    replay = as_graph(repeated, settings.device)
    error = checked(replay(), wanted, tolerance)
    return lambda _: time_calls([replay], settings.device) / len(repeated), error


def half_of(dtype: str) -> str:
    """The half precision to measure a model of this dtype in: 2:4 kernels take no float32."""
    return "bfloat16" if dtype == "bfloat16" else "float16"
