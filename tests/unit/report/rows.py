"""Rows of a summary, from as few words as a test needs."""

from __future__ import annotations

from typing import Any

from dass.results.schema import Run, SplitPerplexity, TaskAccuracy
from dass.results.summary import PerplexitySummary, PruningSummary, SummaryRow, ZeroShotSummary


def row(
    run: str,
    perplexity: PerplexitySummary | float | None = None,
    tasks: dict[str, TaskAccuracy] | None = None,
    limit: int | None = None,
    **changes: Any,
) -> SummaryRow:
    """A run that came to this, e.g. ``row("a/c4/dass/u50", 5.5)``: on the validation split."""
    if isinstance(perplexity, int | float):
        perplexity = perplexities(validation=perplexity)
    given: dict[str, Any] = {
        "run": Run.parse(run), "mask_hash": None, "perplexity": perplexity,
        "zero_shot": ZeroShotSummary(tasks=tasks, limit=limit, seconds=None) if tasks else None,
        "pruning": None, "peak_memory_bytes": None, "peak_device_memory_bytes": None,
        "date": None, "commits": [], "devices": [], "versions": [],
    }  # fmt: skip
    return SummaryRow(**given | changes)


def perplexities(bos: Any = "text", length: int = 2048, **values: float) -> PerplexitySummary:
    """Split -> perplexity, on WikiText2."""
    splits = {
        split: SplitPerplexity(perplexity=value, nll=1.0, tokens=9, windows=100, tokens_hash="t")
        for split, value in values.items()
    }
    return PerplexitySummary(
        dataset="wikitext2", length=length, bos=bos, splits=splits, seconds=None
    )


def accuracy(
    acc: float, stderr: float | None = 0.03, norm: float | None = None, samples: int = 100
) -> TaskAccuracy:
    """An accuracy; acc_norm, where there is one, has the same standard error."""
    return TaskAccuracy(
        acc=acc, acc_stderr=stderr, acc_norm=norm, acc_norm_stderr=stderr if norm else None,
        samples=samples, version=1, requests_hash="r",
    )  # fmt: skip


def pruning(seconds: float, sparsity: float = 0.5) -> PruningSummary:
    return PruningSummary(mean_sparsity=sparsity, seconds=seconds, tokens=512, calibration_hash="c")
