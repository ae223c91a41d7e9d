"""Dense against sparse on a CPU: an MLP and a whole decoder block, by several engines.

All variants of all engines take turns in one run. Before each timed call the caches are swept with
a buffer larger than the last-level cache, as the weights of a model's other layers would do. The
output of each variant is first checked against torch's dense float32 product of the masked weight.
"""

import copy
import gc
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dass.models.shape import Shape
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import parse_pattern
from dass.speed import machine
from dass.speed.engines import Engine, Network, TorchDense, make_engines, shallow
from dass.speed.shapes import random_block, random_weight
from dass.speed.timing import TOLERANCE, Outcome, Timed, Variant, checked, measure
from dass.terms import DENSE, ROLES

MOST_SWEPT = 1 << 30
SETTLE_SECONDS = 0.005


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


def sweep(buffer: Tensor) -> None:
    """Read and write a buffer larger than the last-level cache, and let its threads fall asleep.

    They spin for a moment when done, and would take a core from the next engine.
    """
    buffer.add_(1.0)
    time.sleep(SETTLE_SECONDS)


def networks(shape: Shape, part: str, patterns: Sequence[str], folder: Path) -> Iterator[Network]:
    """The dense network, then one per pattern: the same weights, masked by magnitude."""
    layer, rotary = random_block(shape, attention=part == "block")
    for variant in (DENSE, *patterns):
        own = layer if variant == DENSE else _masked(layer, variant)
        yield Network(part, variant, own, rotary, folder / variant)


def _masked(layer: Any, variant: str) -> nn.Module:
    """The layer with another MLP; its attention is shared."""
    masked: nn.Module = shallow(layer)
    masked.mlp = copy.deepcopy(layer.mlp)
    pattern = parse_pattern(variant)
    for role in ROLES:
        weight = getattr(masked.mlp, f"{role}_proj").weight.data
        weight.masked_fill_(~keep_mask(weight.abs(), pattern, "row", "input", role), 0)
    return masked


def pairs(engines: list[Engine], variants: list[Network]) -> Iterator[tuple[Engine, Network]]:
    """Which engine runs which network: dense engines no masked weights, sparse ones no dense."""
    for engine in engines:
        for network in variants:
            kind = DENSE if network.variant == DENSE else "sparse"
            if engine.runs in ("both", kind, network.variant):
                yield engine, network


def prepare(
    engine: Engine, network: Network, x: Tensor, wanted: Tensor, threads: int, buffer: Tensor
) -> tuple[Timed, float]:
    """A network that is ready to be timed after a sweep, and its error; raises if it is wrong."""
    call = engine.prepare(network, x, threads)
    error = checked(torch.as_tensor(call()), wanted, TOLERANCE[engine.dtype])

    def run(_: int) -> float:
        sweep(buffer)
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    return run, error


def measure_part(
    part: str, tokens: int, work: list[tuple[Engine, Network]], settings: CpuSettings,
    outcome: Outcome,
) -> None:  # fmt: skip
    """Time all variants on ``tokens`` tokens per call, of unit variance."""
    hidden = work[0][1].layer.hidden_size
    x = random_weight((tokens, hidden), 99, torch.float32, "cpu").mul_(hidden**0.5)
    reference = TorchDense(torch.float32)
    masks = {network.variant: network for _, network in work}
    wanted = {name: reference.prepare(network, x, 1)() for name, network in masks.items()}
    buffer = torch.zeros(min(machine.cache_bytes() * 5 // 4, MOST_SWEPT) // 4)
    variants = [
        Variant(part, engine.name, network.variant, tokens, engine.dtype,
                partial(prepare, engine, network, x, wanted[network.variant], settings.threads,
                        buffer))
        for engine, network in work
    ]  # fmt: skip
    measure(variants, settings.warmup, settings.repeats, outcome)


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
                    measure_part(part, tokens, work, settings, outcome)
                    shutil.rmtree(folder, ignore_errors=True)
                    gc.collect()
                    save(outcome)
                del work  # before the next part's networks are made
                gc.collect()
    finally:
        torch.set_num_threads(before)
    return outcome
