"""Fair timing: interleaved variants, warm-up, medians and quartiles, every repeat kept.

Variants that are compared take turns, round after round, and each round begins with another one:
a clock that drops or a neighbour that wakes up affects all of them alike.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Timed = Callable[[int], float]
"""Runs a variant once, in round ``i``, and returns the seconds that it took."""
TOLERANCE = {"float16": 0.02, "bfloat16": 0.1, "float32": 1e-3}
"""Largest relative error of an output that still counts as rounding."""
DECODE_TO = 16
"""Sequences that generate a token each; more are not measured."""
TOKENS_OF = {"prefill": range(128, sys.maxsize), "decode": range(1, DECODE_TO + 1)}
"""Part -> the numbers of tokens that it is measured at; all others at any."""


class Spread(NamedTuple):
    """Median and quartiles of a sample."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Measurement:
    """All repeats of one variant on one number of tokens."""

    # Closed to unknown keys where a result file is read.
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    part: str
    """What ran: ``gate`` (up is alike), ``down``, ``mlp``, ``block`` or ``prefill``."""
    engine: str
    """Whose kernels: ``torch``, ``cusparselt``, ``onnxruntime``, ..."""
    variant: str
    """``dense``, a pattern (``2of4``, ``u70``), or a method's pattern (``dass-2of4``)."""
    tokens: int
    dtype: str
    seconds: list[float]
    """Of one call, in each repeat."""
    mode: str = "eager"
    """``eager``, or ``graph``: replayed as a CUDA graph."""
    error: float | None = None
    """Largest deviation from the dense product of the masked weight, over its largest entry."""
    blocks: int = 1
    """Decoder blocks that a call went through."""

    @property
    def spread(self) -> Spread:
        """Median and quartiles of the seconds."""
        return spread(self.seconds)


@dataclass(frozen=True)
class Skipped:
    """What was not measured, and why."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    part: str
    engine: str
    variant: str
    reason: str
    mode: str = ""
    """Empty: in every mode."""
    tokens: int | None = None
    """None: at any number of tokens."""


@dataclass(frozen=True, eq=False)
class Variant:
    """What a benchmark measures or, where it cannot, skips; fields as in both."""

    part: str
    engine: str
    variant: str
    tokens: int | None
    dtype: str
    prepare: Callable[[], tuple[Timed, float | None]]
    """Makes it ready; returns what to time and the error of its output."""
    mode: str = ""
    blocks: int = 1

    def measured(self, seconds: list[float], error: float | None) -> Measurement:
        """With the seconds of each repeat."""
        return Measurement(self.part, self.engine, self.variant, self.tokens or 0, self.dtype,
                           seconds, self.mode or "eager", error, self.blocks)  # fmt: skip

    def skipped(self, reason: str) -> Skipped:
        """With the reason."""
        return Skipped(self.part, self.engine, self.variant, reason, self.mode, self.tokens)


@dataclass
class Outcome:
    """What a benchmark has found so far."""

    measurements: list[Measurement] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    weight_bytes: dict[str, int] = field(default_factory=dict)
    """As :class:`dass.speed.results.SpeedResult` has it."""

    def skip(self, one: Skipped) -> None:
        """Note what is not measured, once."""
        if one not in self.skipped:
            self.skipped.append(one)


def measure(variants: Iterable[Variant], warmup: int, repeats: int, outcome: Outcome) -> None:
    """Prepare all variants, then time them in turns; one that fails does not end the others."""
    timed: dict[Variant, Timed] = {}
    errors: dict[Variant, float | None] = {}
    for one in variants:
        try:
            timed[one], errors[one] = one.prepare()
        except Exception as error:  # whatever a backend raises is its own result
            outcome.skip(one.skipped(reason_of(error)))
    seconds, failed = interleave(timed, warmup, repeats)
    for one, reason in failed.items():
        outcome.skip(one.skipped(reason))
    for one, took in seconds.items():
        outcome.measurements.append(one.measured(took, errors[one]))


def spread(sample: Sequence[float]) -> Spread:
    """Median and quartiles, interpolated between the two nearest values.

    Raises:
        ValueError: the sample is empty.
    """
    if len(sample) == 1:
        return Spread(sample[0], sample[0], sample[0])
    low, median, high = statistics.quantiles(sample, n=4, method="inclusive")
    return Spread(low, median, high)


def interleave(
    variants: Mapping[Any, Timed], warmup: int, repeats: int
) -> tuple[dict[Any, list[float]], dict[Any, str]]:
    """Run all variants in turns.

    A variant that fails is left out from then on; it does not end the others.

    Args:
        variants: name -> what to run and time.
        warmup: rounds before the first that counts.
        repeats: rounds that count.

    Returns:
        (name -> seconds of each repeat, name -> why it failed).
    """
    seconds: dict[Any, list[float]] = {name: [] for name in variants}
    failed: dict[Any, str] = {}
    for turn in range(warmup + repeats):
        names = list(variants)
        first = turn % max(len(names), 1)
        for name in names[first:] + names[:first]:
            if name in failed:
                continue
            try:
                took = variants[name](turn)
            except Exception as error:  # as above
                failed[name] = reason_of(error)
                continue
            if turn >= warmup:
                seconds[name].append(took)
    return {name: took for name, took in seconds.items() if name not in failed}, failed


def relative_error(output: Tensor, reference: Tensor) -> float:
    """The largest deviation over the reference's largest entry."""
    deviation = (output.float() - reference.float()).abs().max()
    return float(deviation / reference.float().abs().max())


def checked(output: Tensor, reference: Tensor, tolerance: float) -> float:
    """The relative error; raises where it is more than rounding."""
    error = relative_error(output, reference)
    if not error <= tolerance:
        raise RuntimeError(f"wrong product: relative error {error:.2g}, allowed {tolerance:g}")
    return error


def reason_of(error: BaseException) -> str:
    """An error in one line, as tables quote it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def speed_up(dense: Sequence[float], other: Sequence[float]) -> Spread:
    """How many times faster than dense, round by round: median and quartiles of the ratios.

    The two samples are of the same interleaved rounds, so that what disturbed one round
    disturbed both.

    Raises:
        ValueError: the samples are not of equal length.
    """
    return spread([a / b for a, b in zip(dense, other, strict=True)])


def crossover(speed_ups: Mapping[int, Spread]) -> int | None:
    """From how many tokens on a variant pays, of those measured: None if it never does.

    It pays where the lower quartile of its speed-up is above 1; from the answer on it does so at
    every number of tokens measured.
    """
    found = None
    for tokens in sorted(speed_ups, reverse=True):
        if speed_ups[tokens].low <= 1:
            break
        found = tokens
    return found
