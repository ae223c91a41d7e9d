"""Whether two runs differ beyond noise: paired bootstrap, and Holm's correction.

Runs are compared window by window or question by question, so that what is hard for both does not
count as noise. Where a method has several draws of its calibration, these are resampled, too: a
difference must hold on other texts and with other calibration windows.

Of n, n − 1 are drawn at a time: the variance of a bootstrap of n is too low by (n − 1) / n, which
matters with five draws. Of a few items a bootstrap knows too little of their noise: two windows that
differ alike would be taken for certain. No p-value is below that of items whose signs are flipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""What a corrected p-value must be below."""
RESAMPLES = 10_000
_SEED = 20240503
_CHUNK = 2**20
"""Counts that are drawn at a time."""
_HOPELESS = 0.2
"""A p-value above it need not be known any better."""

Items: TypeAlias = NDArray[np.float64]
"""Of one run, a value per window or question."""
Differences: TypeAlias = NDArray[np.float64]
"""[draws, items]: one run's values less the other's."""


def differences(ours: Mapping[int, Items], theirs: Mapping[int, Items]) -> Differences:
    """Ours less theirs, both by seed.

    A method with one draw is held against each draw of the other; draws are paired by seed, or in
    order where less than two seeds are common.
    """
    common = sorted(ours.keys() & theirs.keys())
    if min(len(ours), len(theirs)) > 1 and len(common) < 2:
        pairs = list(zip(sorted(ours), sorted(theirs), strict=False))
    elif len(ours) == 1 or len(theirs) == 1:
        pairs = [(a, b) for a in sorted(ours) for b in sorted(theirs)]
    else:
        pairs = [(seed, seed) for seed in common]
    return np.stack([ours[a] - theirs[b] for a, b in pairs])


def p_value(parts: Sequence[Differences], resamples: int = RESAMPLES) -> float:
    """Two-sided p-value of the mean over parts of their mean differences being zero.

    How often a resampled mean is as far from the mean as the mean is from zero. Parts, such as
    tasks, have the same draws; their items are resampled within each.

    Args:
        parts: one for each task, or one of all windows.
        resamples: of draws and items; the least p-value is 1 / (resamples + 1). Fewer do where it
            turns out to be far above any level.

    Returns:
        not below 2^(1 − n) of the part with the fewest items, n: chance alone gives all of these
        one sign as often. So of a single item, nothing can be told.
    """
    least: float = 0.5 ** (min(part.shape[1] for part in parts) - 1)
    grouped = [_grouped(part) for part in parts]
    mean = float(np.mean([part.mean() for part in parts]))
    # Sums in another order differ in their last digits; equal ones must count as equal.
    limit = abs(mean) - 1e-12 * max(float(np.abs(part).max()) for part in parts)
    rows = min(1000, max(1, _CHUNK // max(len(counts) for _, counts in grouped)))
    far, drawn = 0, 0
    while drawn < resamples and far <= _HOPELESS * max(drawn, 1000):
        size = min(rows, resamples - drawn)
        means = _resampled_means(grouped, drawn, size)
        far += int((np.abs(means - mean) >= limit).sum())
        drawn += size
    return max(least, (far + 1) / (drawn + 1))


def _grouped(part: Differences) -> tuple[Differences, tuple[int, ...]]:
    """The distinct columns, and how often each is there: few, where differences are of hits."""
    columns, counts = np.unique(part, axis=1, return_counts=True)
    return columns, tuple(counts.tolist())


def _resampled_means(
    grouped: Sequence[tuple[Differences, tuple[int, ...]]], start: int, rows: int
) -> NDArray[np.float64]:
    """The means of so many resamples."""
    draws = len(grouped[0][0])
    by_draw = np.mean(
        [
            _weights(number + 1, start, rows, counts) @ columns.T
            for number, (columns, counts) in enumerate(grouped)
        ],
        axis=0,
    )
    means: NDArray[np.float64] = (by_draw * _weights(0, start, rows, (1,) * draws)).sum(axis=1)
    return means


@lru_cache(maxsize=32)
def _weights(stream: int, start: int, rows: int, counts: tuple[int, ...]) -> NDArray[np.float64]:
    """[rows, distinct]: the share that each of these, so many times there, has in a resample."""
    n = sum(counts)
    drawn = max(n - 1, 1)
    generator = np.random.default_rng([_SEED, stream, start])
    return generator.multinomial(drawn, np.array(counts) / n, size=rows) / drawn


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for being so many: the least times n, the next times n − 1, …

    Source: Holm, "A simple sequentially rejective multiple test procedure" (Scandinavian Journal
    of Statistics 6, 1979).
    """
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, (len(p_values) - rank) * p_values[index])
        corrected[index] = min(1.0, highest)
    return corrected
