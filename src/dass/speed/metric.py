"""How long a pruning metric takes on its own: scores and masks, without calibration passes.

The three projections of one decoder block are scored from given statistics, again and again; a
whole model takes that times its blocks. SparseGPT has no score apart from its update, so its update
is timed: factorising the Gram matrices and walking through the columns.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dass.models.shape import Shape
from dass.pruning.method import Method, ScoreMethod, Statistics, UpdateMethod
from dass.pruning.method_calls import mask_of
from dass.pruning.method_checks import check_groups
from dass.pruning.methods import make_method
from dass.pruning.patterns import Pattern, parse_pattern
from dass.runtime.job import device as found_device
from dass.speed.shapes import random_weight
from dass.speed.timing import Outcome, Variant, measure
from dass.terms import ROLES, Role

TOKENS = 512
"""Rows of the Gram matrices' activations; more would change values, not the time."""
SCORE, MASK = "score", "score and mask"
"""Parts: an update method has the second only."""


@dataclass(frozen=True)
class MetricSettings:
    """What is measured, and how often."""

    methods: Mapping[str, tuple[str, dict[str, Any]]] = field(
        default_factory=lambda: {name: (name, {}) for name in ("wanda", "sparsegpt", "dass")}
    )
    """Name -> (function, arguments)."""
    patterns: Sequence[str] = ("u50", "4of8", "2of4")
    repeats: int = 5
    warmup: int = 1
    dtype: str = field(default_factory=lambda: "float16" if found_device() == "cuda" else "float32")
    device: str = field(default_factory=found_device)
    threads: int = field(default_factory=torch.get_num_threads)


def statistics_of(shape: Shape, device: str, grams: bool) -> Statistics:
    """Statistics of random activations; Gram matrices where a method wants them."""
    x, z = (
        random_weight((TOKENS, size), seed, torch.float32, device)
        for seed, size in enumerate((shape.hidden, shape.intermediate))
    )
    return Statistics(
        input_norm=x.norm(dim=0),
        intermediate_norm=z.norm(dim=0),
        input_mean=x.mean(0),
        intermediate_mean=z.mean(0),
        input_variance=x.var(0, correction=0),
        intermediate_variance=z.var(0, correction=0),
        input_gram=x.t() @ x if grams else None,
        intermediate_gram=z.t() @ z if grams else None,
    )


def score_block(
    method: Method,
    weights: dict[Role, Tensor],
    statistics: Statistics,
    gradients: dict[Role, Tensor],
) -> None:
    """Score a block's three projections."""
    assert isinstance(method, ScoreMethod)
    for role, weight in weights.items():
        method.score(role, weight, replace(statistics, gradient=gradients.get(role)))


def mask_block(
    method: Method,
    weights: dict[Role, Tensor],
    statistics: Statistics,
    gradients: dict[Role, Tensor],
    pattern: Pattern,
) -> None:
    """Choose the masks of a block's three projections; an update method updates, too.

    Raises:
        PatternError: the method cannot lay the pattern's groups.
    """
    check_groups(method, pattern)
    # A method may keep what the projections of a block share, for that block only.
    of_block = replace(statistics, derived={})
    for role, weight in weights.items():
        own = replace(of_block, gradient=gradients.get(role))
        if isinstance(method, UpdateMethod):
            method.update(role, weight, own, pattern, role)
        else:
            mask_of(method, role, weight, own, pattern, role)


def benchmark(
    shape: Shape, settings: MetricSettings, save: Callable[[Outcome], None] = lambda _: None
) -> Outcome:
    """Time every method and pattern in turns on one block of a shape, then ``save`` the outcome.

    Raises:
        ConfigError: there is no such method.
    """
    outcome, variants = Outcome(), []
    methods = {name: make_method(*method) for name, method in settings.methods.items()}
    grams = any({"input_gram", "intermediate_gram"} & method.needs for method in methods.values())
    weights: dict[Role, Tensor] = {
        role: random_weight(shape.matrix(role), n, getattr(torch, settings.dtype), settings.device)
        for n, role in enumerate(ROLES)
    }
    given = statistics_of(shape, settings.device, grams)
    graded = any("gradient" in method.needs for method in methods.values())
    gradients = {role: weight.float().abs() for role, weight in weights.items() if graded}
    for name, method in methods.items():
        if isinstance(method, ScoreMethod):
            score = partial(score_block, method, weights, given, gradients)
            variants.append(_variant(SCORE, name, "", settings, score))
        for pattern in settings.patterns:
            mask = partial(mask_block, method, weights, given, gradients, parse_pattern(pattern))
            variants.append(_variant(MASK, name, pattern, settings, mask))
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with torch.inference_mode():
            measure(variants, settings.warmup, settings.repeats, outcome)
    finally:
        torch.set_num_threads(before)
    save(outcome)
    return outcome


def _variant(
    part: str, name: str, pattern: str, settings: MetricSettings, call: Callable[[], None]
) -> Variant:
    def synchronise() -> None:
        if settings.device == "cuda":
            torch.cuda.synchronize()

    def run(_: int) -> float:
        synchronise()
        started = time.perf_counter()
        call()
        synchronise()
        return time.perf_counter() - started

    return Variant(part, name, pattern, None, settings.dtype, lambda: (run, None))
