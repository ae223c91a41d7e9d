"""Rows of a summary, from as few words as a test needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dass.results.schema import (
    OtherText,
    PeakMemory,
    PerplexityResult,
    PruningResult,
    Run,
    SplitPerplexity,
    TaskAccuracy,
    ZeroShotResult,
)
from dass.results.summary import SummaryRow


def row(
    run: str,
    perplexity: Mapping[str, float | Sequence[float]] | float | None = None,
    tasks: dict[str, TaskAccuracy] | None = None,
    limit: int | None = None,
    bos: str = "text",
    seconds: float | None = None,
    provenance: dict[str, Any] | None = None,
    c4: float | None = None,
) -> SummaryRow:
    """A run that came to this, e.g. ``row("a/c4/dass/u50", 5.5)``: on the validation split.

    With seconds it has a result of pruning. ``c4`` is its perplexity on another text.
    """
    if isinstance(perplexity, int | float):
        perplexity = {"validation": perplexity}
    common: dict[str, Any] = {"run": Run.parse(run), "provenance": provenance or {}}
    unmasked = common | {"mask_hash": None}
    return SummaryRow(
        run=common["run"],
        pruning=PruningResult(
            **common, settings={}, calibration_hash="c", mask_hash="m", sparsity={"w": 0.5},
            mean_sparsity=0.5, seconds={"total": seconds}, block_seconds=[], tokens=512,
            peak_memory_bytes=PeakMemory(host=2_000_000_000, device=None),
        )
        if seconds
        else None,
        perplexity=PerplexityResult(
            **unmasked, settings={"length": 2048, "bos": bos}, dataset="wikitext2",
            splits={split: _split(value) for split, value in perplexity.items()},
            others={"c4": OtherText(split="validation", **_split(c4).model_dump())} if c4 else {},
        )
        if perplexity
        else None,
        zero_shot=ZeroShotResult(**unmasked, settings={}, tasks=tasks, limit=limit)
        if tasks
        else None,
    )  # fmt: skip


def _split(value: float | Sequence[float]) -> SplitPerplexity:
    """Of 100 windows that are all alike, or of windows with these log-likelihoods."""
    if isinstance(value, int | float):
        nlls, perplexity = [math.log(value)] * 100, float(value)
    else:
        nlls, perplexity = list(value), math.exp(sum(value) / len(value))
    return SplitPerplexity(
        perplexity=perplexity, nll=math.log(perplexity), tokens=9 * len(nlls), windows=len(nlls),
        tokens_hash="t", window_nlls=nlls,
    )  # fmt: skip


def accuracy(
    acc: float, stderr: float | None = 0.03, norm: float | None = None, samples: int = 100
) -> TaskAccuracy:
    """An accuracy; acc_norm, where there is one, has the same standard error."""
    return TaskAccuracy(
        acc=acc, acc_stderr=stderr, acc_norm=norm, acc_norm_stderr=stderr if norm else None,
        samples=samples, version=1, requests_hash="r", hits=hits(acc, samples),
        norm_hits=None if norm is None else hits(norm, samples),
    )  # fmt: skip


def hits(share: float, samples: int) -> str:
    """The first questions answered rightly, as many as this share comes to."""
    right = round(share * samples)
    return "1" * right + "0" * (samples - right)
