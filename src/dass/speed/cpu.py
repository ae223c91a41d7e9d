"""Dense against sparse on a CPU: an MLP and a whole decoder block, by several engines.

All variants of all engines take turns in one run. Before each timed call the caches are swept with
a buffer larger than the last-level cache, as the weights of a model's other layers would do. The
output of each variant is first checked against torch's dense float32 product of the masked weight.
"""

from __future__ import annotations

import copy
import gc
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dass.models.shape import Shape
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import parse_pattern
from dass.speed import machine
from dass.speed.engines import Engine, Network, Prepared, TorchDense, make_engines, shallow
from dass.speed.shapes import random_block, random_weight
from dass.speed.timing import Measurement, Outcome, Skipped, Timed, interleave, reason_of
from dass.terms import DENSE, ROLES

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest relative error of an output that still counts as rounding."""
MOST_SWEPT = 1 << 30
SETTLE_SECONDS = 0.005

Variant = tuple[str, str, str]
"""Engine, dtype, ``dense`` or pattern."""


@dataclass(frozen=True)
class CpuSettings:
    """What is measured, and how often."""

    threads: int = field(default_factory=torch.get_num_threads)
    tokens: Sequence[int] = (1, 16, 256)
    patterns: Sequence[str] = ("u50", "u60", "u70", "u80", "2of4")
    parts: Sequence[str] = ("mlp", "block")
    repeats: int = 9
    warmup: int = 2
    options: Sequence[str] = ()
    """``openvino``."""


class Sweep:
    """Reads and writes a buffer larger than the last-level cache, and lets its threads fall asleep.

    They spin for a moment when done, and would take a core from the next engine.
    """

    def __init__(self) -> None:
        size = min(machine.cache_bytes() * 5 // 4, MOST_SWEPT)
        self._buffer = torch.zeros(size // 4)

    def __call__(self) -> None:
        self._buffer.add_(1.0)
        time.sleep(SETTLE_SECONDS)


def networks(shape: Shape, part: str, patterns: Sequence[str], folder: Path) -> Iterator[Network]:
    """The dense network, then one per pattern: the same weights, masked by magnitude."""
    layer, rotary = random_block(shape, attention=part == "block")
    for variant in (DENSE, *patterns):
        own = layer if variant == DENSE else _masked(layer, variant)
        yield Network(part, shape, variant, own, rotary, folder / variant)


def _masked(layer: Any, variant: str) -> nn.Module:
    """The layer with another MLP; its attention is shared."""
    own: Any = shallow(layer)
    own.mlp = copy.deepcopy(layer.mlp)
    pattern = parse_pattern(variant)
    for role in ROLES:
        weight = getattr(own.mlp, f"{role}_proj").weight.data
        weight.masked_fill_(~keep_mask(weight.abs(), pattern, "row", "input", role), 0)
    masked: nn.Module = own
    return masked


def pairs(engines: list[Engine], variants: list[Network]) -> Iterator[tuple[Engine, Network]]:
    """Which engine runs which network: dense engines no masked weights, sparse ones no dense."""
    for engine in engines:
        for network in variants:
            if engine.runs == "both" or (network.variant == DENSE) == (engine.runs == "dense"):
                yield engine, network


def measure(
    part: str, tokens: int, work: list[tuple[Engine, Network]], settings: CpuSettings,
    sweep: Callable[[], None], outcome: Outcome,
) -> None:  # fmt: skip
    """Prepare, check and time all variants on ``tokens`` tokens per call."""
    timed: dict[Variant, Timed] = {}
    errors: dict[Variant, float] = {}
    wanted: dict[str, np.ndarray[Any, Any]] = {}
    for engine, network in work:
        key = (engine.name, engine.dtype, network.variant)
        try:
            x = _input(tokens, network.shape)
            if network.variant not in wanted:
                wanted[network.variant] = _reference(network, x)
            prepared = engine.prepare(network, x, settings.threads)
            errors[key] = _checked(prepared, wanted[network.variant], engine.dtype)
        except Exception as error:  # an engine's failure is its own result
            reason = reason_of(error)
            outcome.skip(Skipped(part, engine.name, network.variant, reason, "", tokens))
            continue
        timed[key] = _after(sweep, prepared.seconds)
    seconds, failed = interleave(timed, settings.warmup, settings.repeats)
    for (name, _, variant), reason in failed.items():
        outcome.skip(Skipped(part, name, variant, reason, "", tokens))
    for key, took in seconds.items():
        name, dtype, variant = key
        outcome.measurements.append(
            Measurement(part, name, variant, tokens, dtype, took, "eager", errors[key])
        )


def _input(tokens: int, shape: Shape) -> Tensor:
    """[tokens, hidden] of unit variance."""
    return random_weight((tokens, shape.hidden), 99, torch.float32, "cpu").mul_(shape.hidden**0.5)


def _reference(network: Network, x: Tensor) -> np.ndarray[Any, Any]:
    """torch's dense float32 product of the (masked) weights."""
    return TorchDense(torch.float32).prepare(network, x, 1).output()


def _checked(prepared: Prepared, wanted: np.ndarray[Any, Any], dtype: str) -> float:
    """The relative error of a prepared network; raises where it is more than rounding."""
    error = float(np.abs(prepared.output() - wanted).max() / np.abs(wanted).max())
    if not error <= TOLERANCE[dtype]:
        raise RuntimeError(f"wrong product: relative error {error:.2g}, not timed")
    return error


def _after(sweep: Callable[[], None], seconds: Callable[[], float]) -> Timed:
    def run(_: int) -> float:
        sweep()
        return seconds()

    return run


def benchmark(
    shape: Shape, settings: CpuSettings, save: Callable[[Outcome], None] = lambda _: None
) -> Outcome:
    """Measure every part of a shape on every number of tokens.

    Args:
        shape: the model's sizes.
        settings: what and how often.
        save: called after every number of tokens, so that what was measured is not lost.

    Raises:
        ConfigError: an option is unknown.
    """
    outcome = Outcome()
    engines = make_engines(settings.options)
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with torch.no_grad(), tempfile.TemporaryDirectory(prefix="dass-speed-") as scratch:
            for part in settings.parts:
                folder = Path(scratch) / part
                work = list(pairs(engines, list(networks(shape, part, settings.patterns, folder))))
                for tokens in settings.tokens:
                    measure(part, tokens, work, settings, Sweep(), outcome)
                    gc.collect()
                    save(outcome)
                del work  # before the next part's networks are made
                shutil.rmtree(folder, ignore_errors=True)
                gc.collect()
    finally:
        torch.set_num_threads(before)
    return outcome
