"""Timing on a GPU: events around many calls, eager and as a CUDA graph, checked before timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dass.speed.timing import Measurement, Outcome, Refusal, Timed, interleave, reason_of
from dass.speed.twofour import Compress, backends, relative_error

TOKENS = (1, 16, 128, 512, 2048, 8192)
PARTS = ("gate", "down", "mlp", "block", "prefill")
TOLERANCE = {torch.float16: 0.02, torch.bfloat16: 0.1, torch.float32: 1e-3}
"""Largest relative error of an output that is a rounding error and not a wrong product."""
REPEAT_SECONDS = 0.004
"""A repeat makes as many calls as fill this time, for the clock's sake."""
MOST_CALLS = 48
ROTATED_CACHES = 3
"""Weights rotate through so many times the size of the second-level cache."""

Call = Callable[[], Tensor]
NO_GRAPH = "CUDA graphs need a GPU"


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    tokens: Sequence[int] = TOKENS
    parts: Sequence[str] = PARTS
    repeats: int = 20
    warmup: int = 3
    dtype: torch.dtype = torch.float16
    device: str = "cuda"
    prefill_gib: float = 14.0
    """How much memory the dense model that is prefilled may take; else fewer of its blocks run."""
    compress: Mapping[str, Compress] = field(default_factory=backends)

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        own = {name: getattr(self, name) for name in ("repeats", "warmup", "prefill_gib")}
        return own | {
            "tokens": list(self.tokens),
            "parts": list(self.parts),
            "dtype": dtype_name(self.dtype),
            "rotated_caches": ROTATED_CACHES,
        }


def dtype_name(dtype: torch.dtype) -> str:
    """``float16``, without torch's name in front."""
    return str(dtype).removeprefix("torch.")


def note(outcome: Outcome, refusal: Refusal) -> None:
    """Keep a refusal, once."""
    if refusal not in outcome.refusals:
        outcome.refusals.append(refusal)


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


def as_graph(calls: Sequence[Call], device: str) -> tuple[Call, Tensor]:
    """All calls as one CUDA graph: (its replay, where the first call's output will lie)."""
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

    def replay() -> Tensor:
        graph.replay()
        return first

    return replay, first


def calls_a_repeat(calls: Sequence[Call], device: str) -> int:
    """How often to go through all calls in one repeat."""
    time_calls(calls, device)
    once = time_calls(calls, device) * len(calls)
    most = max(1, MOST_CALLS // len(calls))
    return min(most, max(1, math.ceil(REPEAT_SECONDS / max(once, 1e-9))))


def timed_variants(
    variants: Mapping[tuple[str, str], tuple[Sequence[Call], Call]],
    settings: Settings,
    outcome: Outcome,
    about: tuple[str, int],
    blocks: int = 1,
) -> None:
    """Check, then time, all variants in turns, eagerly and as graphs; note what fails.

    Args:
        variants: (engine, variant) -> (calls on rotating weights, reference for the first).
        about: part and tokens.
        blocks: decoder blocks a call goes through.
    """
    part, tokens = about
    timed: dict[tuple[str, str, str], Timed] = {}
    errors: dict[tuple[str, str, str], float] = {}
    for (engine, variant), (calls, reference) in variants.items():
        for mode in ("eager", "graph"):
            try:
                run, error = _prepare(calls, reference, mode, settings, math.sqrt(blocks))
            except Exception as problem:  # one backend's failure does not lose the rest
                refusal = Refusal(part, engine, variant, reason_of(problem), mode, tokens)
                note(outcome, refusal)
                continue
            timed[engine, variant, mode] = run
            errors[engine, variant, mode] = error
    seconds, failed = interleave(timed, settings.warmup, settings.repeats)
    for (engine, variant, mode), reason in failed.items():
        note(outcome, Refusal(part, engine, variant, reason, mode, tokens))
    for (engine, variant, mode), took in seconds.items():
        outcome.measurements.append(
            Measurement(part, engine, variant, tokens, dtype_name(settings.dtype), took, mode,
                        errors[engine, variant, mode], blocks)
        )  # fmt: skip


def _prepare(
    calls: Sequence[Call], reference: Call, mode: str, settings: Settings, allowance: float
) -> tuple[Timed, float]:
    """A variant ready to be timed, and its error."""
    wanted = reference().clone()
    error = relative_error(calls[0](), wanted)
    tolerance = TOLERANCE[settings.dtype] * allowance
    if not error <= tolerance:
        raise RuntimeError(f"wrong product: relative error {error:.2g}, allowed {tolerance:g}")
    repeated = list(calls) * calls_a_repeat(calls, settings.device)
    if mode == "eager":
        return lambda _: time_calls(repeated, settings.device), error
    replay, output = as_graph(repeated, settings.device)
    replay()
    error = relative_error(output, wanted)
    if not error <= tolerance:
        raise RuntimeError(f"wrong product in a graph: relative error {error:.2g}")
    return lambda _: time_calls([replay], settings.device) / len(repeated), error
