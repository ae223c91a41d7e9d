"""Dense against sparse on a CPU: an MLP and a whole decoder block, by several engines.

    python -m dass.speed.cpu --shapes 7b --threads 2 --out FILE.json

All variants of all engines take turns in one run. Before each timed call the caches are swept with
a buffer larger than the last of them, as the weights of a model's other layers would do. What a
variant computes is checked against torch's dense float32 product of the masked weight first.
"""

from __future__ import annotations

import argparse
import copy
import gc
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dass.errors import DassError
from dass.pruning.masks import keep_mask
from dass.pruning.methods import ROLES
from dass.pruning.patterns import parse_pattern
from dass.speed import machine
from dass.speed.engines import DENSE, DeepSparse, Engine, Network, Prepared, make_engines, shallow
from dass.speed.recording import chosen_shapes, measure_shapes
from dass.speed.shapes import SHAPES, Shape, random_block, random_weight
from dass.speed.timing import Measurement, Outcome, Refusal, Timed, interleave, reason_of

TOKENS = (1, 16, 256)
PATTERNS = ("u50", "u60", "u70", "u80", "2of4")
PARTS = ("mlp", "block")
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest relative error of an output that is a rounding error and not a wrong product."""
MOST_SWEPT = 1 << 30
SETTLE_SECONDS = 0.005

Key = tuple[str, str, str]
"""Engine, dtype, variant."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    threads: int
    tokens: Sequence[int] = TOKENS
    patterns: Sequence[str] = PATTERNS
    parts: Sequence[str] = PARTS
    repeats: int = 9
    warmup: int = 2
    options: Sequence[str] = ()
    """``openvino``, ``deepsparse``."""
    deepsparse_python: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return {
            "threads": self.threads,
            "tokens": list(self.tokens),
            "patterns": list(self.patterns),
            "parts": list(self.parts),
            "repeats": self.repeats,
            "warmup": self.warmup,
            "options": list(self.options),
        }


class Sweep:
    """Reads and writes a buffer larger than the last-level cache, and lets its threads fall asleep.

    They spin for a moment when they are done, and would take a core from the next engine.
    """

    def __init__(self) -> None:
        size = min(machine.cache_bytes() * 5 // 4, MOST_SWEPT)
        self._buffer = torch.zeros(size // 4)

    def __call__(self) -> None:
        self._buffer.add_(1.0)
        time.sleep(SETTLE_SECONDS)


def networks(shape: Shape, part: str, patterns: Sequence[str], folder: Path) -> Iterator[Network]:
    """The dense network, then one for each pattern: the same weights, masked by magnitude."""
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
    """Which engine runs which network: dense ones get no masked weights, sparse ones no dense."""
    for engine in engines:
        for network in variants:
            if engine.runs == "both" or (network.variant == DENSE) == (engine.runs == "dense"):
                yield engine, network


def measure(
    part: str, tokens: int, work: list[tuple[Engine, Network]], settings: Settings,
    sweep: Callable[[], None], outcome: Outcome,
) -> None:  # fmt: skip
    """Prepare, check and time all variants on so many tokens."""
    timed: dict[Key, Timed] = {}
    errors: dict[Key, float] = {}
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
            note = Refusal(part, engine.name, network.variant, reason_of(error), "", tokens)
            outcome.refusals.append(note)
            continue
        timed[key] = _after(sweep, prepared.seconds)
    seconds, failed = interleave(timed, settings.warmup, settings.repeats)
    for (name, _, variant), reason in failed.items():
        outcome.refusals.append(Refusal(part, name, variant, reason, "", tokens))
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
    from dass.speed.engines import TorchDense

    return TorchDense(torch.float32).prepare(network, x, 1).output()


def _checked(prepared: Prepared, wanted: np.ndarray[Any, Any], dtype: str) -> float:
    """The relative error of what was prepared; raises where it is no rounding error."""
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
    shape: Shape, settings: Settings, save: Callable[[Outcome], None] = lambda _: None
) -> Outcome:
    """Measure every part of a shape on every number of tokens.

    Args:
        shape: the model's sizes.
        settings: what and how often.
        save: called after every number of tokens, so that what was measured is not lost.
    """
    outcome = Outcome()
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    engines = _engines(settings, outcome)
    try:
        with torch.no_grad(), tempfile.TemporaryDirectory(prefix="dass-speed-") as scratch:
            for part in settings.parts:
                folder = Path(scratch) / part
                _measure_part(shape, part, folder, engines, settings, outcome, save)
                shutil.rmtree(folder, ignore_errors=True)
                gc.collect()
    finally:
        _forget(engines)
        torch.set_num_threads(before)
    return outcome


def _measure_part(
    shape: Shape, part: str, folder: Path, engines: list[Engine], settings: Settings,
    outcome: Outcome, save: Callable[[Outcome], None],
) -> None:  # fmt: skip
    """All numbers of tokens of one part, whose networks are dropped at the end."""
    work = list(pairs(engines, list(networks(shape, part, settings.patterns, folder))))
    for tokens in settings.tokens:
        measure(part, tokens, work, settings, Sweep(), outcome)
        _forget(engines)
        gc.collect()
        save(outcome)


def _forget(engines: list[Engine]) -> None:
    """End the processes that engines hold."""
    for engine in engines:
        if isinstance(engine, DeepSparse):
            engine.forget()


def _engines(settings: Settings, outcome: Outcome) -> list[Engine]:
    """The engines; DeepSparse only if it starts here."""
    engines = make_engines(list(settings.options), settings.deepsparse_python)
    for engine in engines:
        if not isinstance(engine, DeepSparse):
            continue
        try:
            outcome.engines[engine.name] = engine.about()
        except DassError as error:
            engine.forget()
            for part in settings.parts:
                outcome.refusals.append(Refusal(part, engine.name, "all", reason_of(error)))
            return [other for other in engines if other is not engine]
    return engines


# --- Command line -------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Measure shapes on this CPU, write one file."""
    parser = argparse.ArgumentParser(prog="python -m dass.speed.cpu", description=main.__doc__)
    parser.add_argument("--shapes", default="7b", help=f"of {', '.join(SHAPES)}; with commas")
    parser.add_argument("--tokens", default=",".join(map(str, TOKENS)))
    parser.add_argument("--patterns", default=",".join(PATTERNS))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--openvino", action="store_true", help="measure OpenVINO, too")
    parser.add_argument("--deepsparse", metavar="PYTHON",
                        help="measure DeepSparse, too, by this interpreter, which has it: its "
                        "licence allows evaluation only")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    shapes = chosen_shapes(parser, options.shapes)
    extra = ["openvino"] * options.openvino + ["deepsparse"] * bool(options.deepsparse)
    settings = Settings(
        threads=options.threads, tokens=[int(count) for count in options.tokens.split(",")],
        patterns=options.patterns.split(","), parts=options.parts.split(","),
        repeats=options.repeats, options=extra, deepsparse_python=options.deepsparse,
    )  # fmt: skip
    given = sys.argv[1:] if arguments is None else arguments
    # Where the interpreter lies is of no interest elsewhere.
    shown = ["PYTHON" if word == options.deepsparse else word for word in given]
    return measure_shapes(
        shapes, options.out, "cpu", shown, settings.as_dict(),
        lambda shape, save: benchmark(shape, settings, save),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
