"""How long a pruning metric takes on its own: scores and mask, without calibration passes.

    python -m dass.speed.metric --shapes 7b --out FILE.json

One decoder block's three projections are scored from given statistics, again and again; times of a
whole model are that times its blocks. For SparseGPT, which has no score apart from its update, it
is the update: factorising the Gram matrices and walking through the columns.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dass.pruning.masks import keep_mask
from dass.pruning.methods import BUILT_IN, ROLES, Method, Role, ScoreMethod, Statistics, make_method
from dass.pruning.patterns import Pattern, parse_pattern
from dass.runtime.job import device as found_device
from dass.speed.recording import chosen_shapes, measure_shapes
from dass.speed.shapes import SHAPES, Shape, random_weight
from dass.speed.timing import Measurement, Outcome, Refusal, Timed, interleave

TOKENS = 512
"""That the Gram matrices are of; more would change their values, not the time."""
SCORE, MASK = "score", "score and mask"
"""Parts: an update method has the second only."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    methods: Mapping[str, tuple[str, dict[str, Any]]]
    """Name -> (function, arguments)."""
    patterns: Sequence[str]
    repeats: int = 5
    warmup: int = 1
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    threads: int = 1

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return {
            "methods": {name: list(method) for name, method in self.methods.items()},
            "patterns": list(self.patterns),
            "repeats": self.repeats,
            "warmup": self.warmup,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device,
            "threads": self.threads,
        }


def statistics_of(shape: Shape, device: str, grams: bool) -> Statistics:
    """Statistics of random activations; Gram matrices where a method wants them."""
    x, z = (
        random_weight((TOKENS, size), seed, torch.float32, device)
        for seed, size in enumerate((shape.hidden, shape.intermediate))
    )
    return Statistics(
        input_norm=x.norm(dim=0),
        intermediate_norm=z.norm(dim=0),
        input_gram=x.t() @ x if grams else None,
        intermediate_gram=z.t() @ z if grams else None,
    )


def score_block(method: Method, weights: dict[Role, Tensor], statistics: Statistics) -> None:
    """Score a block's three projections."""
    assert isinstance(method, ScoreMethod)
    for role, weight in weights.items():
        method.score(role, weight, statistics)


def mask_block(
    method: Method, weights: dict[Role, Tensor], statistics: Statistics, pattern: Pattern
) -> None:
    """Choose the masks of a block's three projections; an update method updates, too."""
    # A method may keep for a block what its projections share, and for no other.
    own = Statistics(*(getattr(statistics, need) for need in _NEEDS))
    for role, weight in weights.items():
        if isinstance(method, ScoreMethod):
            score = method.score(role, weight, own)
            keep_mask(score.values, pattern, score.scope, score.axis, role)
        else:
            method.update(role, weight, own, pattern, role)


_NEEDS = ("input_norm", "intermediate_norm", "input_gram", "intermediate_gram")


def benchmark(
    shape: Shape, settings: Settings, save: Callable[[Outcome], None] = lambda _: None
) -> Outcome:
    """Time every method and pattern in turns on one block of a shape; ``save`` what came out."""
    outcome, timed = Outcome(), {}
    methods = {name: make_method(*method) for name, method in settings.methods.items()}
    grams = any({"input_gram", "intermediate_gram"} & method.needs for method in methods.values())
    weights: dict[Role, Tensor] = {
        role: random_weight(shape.matrix(role), n, settings.dtype, settings.device)
        for n, role in enumerate(ROLES)
    }
    given = statistics_of(shape, settings.device, grams)
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    for name, method in methods.items():
        if isinstance(method, ScoreMethod):
            timed[SCORE, name, ""] = _timed(settings, score_block, method, weights, given)
        for pattern in settings.patterns:
            parsed = parse_pattern(pattern)
            run = _timed(settings, mask_block, method, weights, given, parsed)
            timed[MASK, name, pattern] = run
    try:
        with torch.inference_mode():
            seconds, failed = interleave(timed, settings.warmup, settings.repeats)
    finally:
        torch.set_num_threads(before)
    dtype = str(settings.dtype).removeprefix("torch.")
    for (part, name, pattern), took in seconds.items():
        outcome.measurements.append(Measurement(part, name, pattern, 0, dtype, took))
    for (part, name, pattern), reason in failed.items():
        outcome.refusals.append(Refusal(part, name, pattern, reason))
    save(outcome)
    return outcome


def _timed(settings: Settings, function: Callable[..., None], *arguments: Any) -> Timed:
    def synchronise() -> None:
        if settings.device == "cuda":
            torch.cuda.synchronize()

    def run(_: int) -> float:
        synchronise()
        started = time.perf_counter()
        function(*arguments)
        synchronise()
        return time.perf_counter() - started

    return run


def main(arguments: list[str] | None = None) -> int:
    """Time the built-in methods on shapes, on the GPU where there is one; write one file."""
    parser = argparse.ArgumentParser(prog="python -m dass.speed.metric", description=main.__doc__)
    parser.add_argument("--shapes", default="7b", help=f"of {', '.join(SHAPES)}; with commas")
    parser.add_argument("--methods", default="wanda,sparsegpt,dass")
    parser.add_argument("--patterns", default="u50,4of8,2of4")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    shapes = chosen_shapes(parser, options.shapes)
    if unknown := [name for name in options.methods.split(",") if name not in BUILT_IN]:
        parser.error(f"no method {unknown[0]!r}; there are {', '.join(BUILT_IN)}")
    device = found_device()
    settings = Settings(
        methods={name: (name, {}) for name in options.methods.split(",")},
        patterns=options.patterns.split(","), repeats=options.repeats, device=device,
        dtype=torch.float16 if device == "cuda" else torch.float32, threads=options.threads,
    )  # fmt: skip
    given = sys.argv[1:] if arguments is None else arguments
    return measure_shapes(
        shapes, options.out, "metric", given, settings.as_dict(),
        lambda shape, save: benchmark(shape, settings, save),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
