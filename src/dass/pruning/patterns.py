"""Sparsity patterns: what they are called, what they ask for, which matrices they fit."""

import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from dass.errors import PatternError

Scope = Literal["matrix", "row", "column"]
"""Within which entries of a matrix scores are compared when the pattern is unstructured."""

Axis = Literal["input", "output"]
"""Along which dimension of a weight [out, in] the M entries of an N:M group lie."""


TILE = 4
"""The side of a tile whose groups lie along both dimensions."""


@dataclass(frozen=True)
class Unstructured:
    """``u50``: the lowest 50 % of each comparison group go."""

    percent: Fraction

    @property
    def sparsity(self) -> float:
        """The share of zeros that the pattern asks for."""
        return float(self.percent / 100)

    def pruned(self, size: int) -> int:
        """How many of ``size`` entries go: floor(size × ratio), exactly."""
        return math.floor(size * self.percent / 100)

    def __str__(self) -> str:
        return f"u{float(self.percent):g}"


@dataclass(frozen=True)
class NofM:
    """``2of4``: of each group of 4 consecutive entries 2 are kept."""

    kept: int
    group: int
    both: bool = False
    """``2of4x4``: of each tile of 4 by 4 entries, 2 of every row and 2 of every column are kept, so
    that the groups lie along both dimensions."""

    @property
    def sparsity(self) -> float:
        """The share of zeros that the pattern asks for."""
        return 1 - self.kept / self.group

    def __str__(self) -> str:
        return f"{self.kept}of{self.group}" + (f"x{self.group}" if self.both else "")


Pattern = Unstructured | NofM


def parse_pattern(text: str) -> Pattern:
    """Read ``u50``, ``u62.5``, ``2of4``, ``4of8``, ``2of4x4``, …

    Raises:
        PatternError: the text is no pattern, or asks for all or more than there is.
    """
    if match := re.fullmatch(r"u(\d+(?:\.\d+)?)", text):
        percent = Fraction(match[1])
        if not 0 < percent < 100:
            raise PatternError(f"pattern {text!r}: the percentage of zeros must be in (0, 100)")
        return Unstructured(percent)
    if match := re.fullmatch(r"(\d+)of(\d+)(?:x(\d+))?", text):
        kept, group, both = int(match[1]), int(match[2]), match[3] is not None
        if both and (group, int(match[3])) != (TILE, TILE):
            raise PatternError(f"pattern {text!r}: tiles are {TILE} by {TILE} only; write 2of4x4")
        if not 0 < kept < group:
            raise PatternError(
                f"pattern {text!r}: cannot keep {kept} of {group}; "
                "N of M needs 0 < N < M, as in 2of4"
            )
        return NofM(kept, group, both)
    raise PatternError(
        f"unknown pattern {text!r}: write u50 (50 % zeros, unstructured) or 2of4 (2 kept of each 4)"
    )


def block_pattern(share: float, pattern: Pattern, where: str) -> Pattern:
    """The pattern of one block, where blocks differ.

    Args:
        share: of the block's zeros; its fraction with a denominator up to 10^6 is meant.
        pattern: what is asked for overall.
        where: what to call the block in an error.

    Raises:
        PatternError: the share is not between 0 and 1, or no N of M.
    """
    exact = Fraction(share).limit_denominator(10**6)
    if not 0 < exact < 1:
        raise PatternError(f"{where}: a share of {share:g} zeros; it must be in (0, 1)")
    if isinstance(pattern, Unstructured):
        return Unstructured(100 * exact)
    kept = pattern.group * (1 - exact)
    if kept.denominator != 1:
        raise PatternError(
            f"{where}: a share of {share:g} zeros is no N of {pattern.group}; give a multiple of "
            f"1/{pattern.group}"
        )
    return replace(pattern, kept=int(kept))


def check_fit(shape: tuple[int, int], pattern: Pattern, axis: Axis, name: str) -> None:
    """Raise PatternError unless ``pattern`` fits a matrix [out, in] of this shape."""
    if not isinstance(pattern, NofM):
        return
    axes: tuple[Axis, ...] = ("input", "output") if pattern.both else (axis,)
    for one in axes:
        size = shape[1] if one == "input" else shape[0]
        if size % pattern.group:
            raise PatternError(
                f"{name}: pattern {pattern} needs the {one} dimension to be a multiple of "
                f"{pattern.group}, but it is {size}; choose another pattern for this model"
            )
