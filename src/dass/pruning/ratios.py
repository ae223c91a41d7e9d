"""How far each block is pruned: what the blocks' scores make of an overall sparsity.

The overall share of zeros stays what the pattern asks for. A ratio is a multiple of 1/steps, and
the multiples are rounded by largest remainder, as seats are given to parties: first all down, then
one up at a time where most was cut off, until the whole is reached. Of N:M, steps is M. Of
unstructured patterns it divides all sides of the matrices where it can (:func:`steps_of`), so that
no comparison group has to round again.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

from dass.errors import PatternError
from dass.pruning.patterns import NofM, Pattern, Unstructured, block_pattern

FEWEST_STEPS = 64
"""Ratios of unstructured patterns are at least so fine."""


def owl_ratios(
    shares: Sequence[float], sizes: Sequence[int], sparsity: float, deviation: float
) -> list[float]:
    """Ratios of blocks from the shares of outliers in them: the more outliers, the fewer zeros.

    s_l = s − (d_l − mean d), d_l = 2λ · (D_l − min D) / (max D − min D).

    Source: Yin et al., "Outlier weighed layerwise sparsity (OWL)" (ICML 2024), section 3; the mean
    is weighed by size, as theirs is for blocks of one size.

    Args:
        shares: D, of each block.
        sizes: weights in each block.
        sparsity: s, the share of zeros in all blocks together.
        deviation: λ.

    Raises:
        PatternError: all blocks have the same share.
    """
    distances = [2 * deviation * place for place in _places(shares, "share of outliers")]
    mean = _mean(distances, sizes)
    return [sparsity - (distance - mean) for distance in distances]


def alpha_ratios(
    exponents: Sequence[float], sizes: Sequence[int], sparsity: float, epsilon: float
) -> list[float]:
    """Ratios of blocks from the exponents of their spectra's tails: the heavier, the fewer zeros.

    s_l = η · (1 − ε + 2ε · (α_l − min α) / (max α − min α)), with η such that the mean is s.

    Source: Lu et al., "AlphaPruning" (NeurIPS 2024), the linear mapping, per block as by default in
    their code.

    Args:
        exponents: α, of each block.
        sizes: weights in each block.
        sparsity: s, the share of zeros in all blocks together.
        epsilon: ε.

    Raises:
        PatternError: all blocks have the same exponent.
    """
    factors = [1 - epsilon + 2 * epsilon * place for place in _places(exponents, "tail exponent")]
    return [factor * sparsity / _mean(factors, sizes) for factor in factors]


def steps_of(sides: Sequence[int], pattern: Pattern) -> int:
    """Into how many steps a ratio is divided.

    Args:
        sides: numbers of rows and columns of all matrices.
        pattern: what is asked for overall.
    """
    if isinstance(pattern, NofM):
        return pattern.group
    common = math.gcd(*sides)
    return common * math.ceil(FEWEST_STEPS / common)


def rounded_ratios(
    wanted: Sequence[float], sizes: Sequence[int], pattern: Pattern, steps: int
) -> list[float]:
    """The multiples of 1/steps that come to the pattern's sparsity, by largest remainder.

    Unstructured, they fall short of it by less than a step of one block; of N:M by nothing.

    Args:
        wanted: of each block, their mean the pattern's sparsity.
        sizes: weights in each block.
        pattern: what is asked for overall.
        steps: as :func:`steps_of` says.

    Raises:
        PatternError: a ratio is not between 0 and 1; all of them round to the same; N:M does not
            come out, since blocks differ in size; or there are too few steps for the sparsity.
    """
    for block, ratio in enumerate(wanted):
        if not 0 < ratio < 1:
            raise PatternError(
                f"block {block} would lose a share of {ratio:.4f} of its weights for {pattern}; "
                "let ratios differ by less (deviation or epsilon)"
            )
    counts = [min(max(math.floor(ratio * steps), 1), steps - 1) for ratio in wanted]
    left = math.floor(_sparsity(pattern) * steps * sum(sizes))
    left -= sum(count * size for count, size in zip(counts, sizes, strict=True))

    def missing(block: int) -> float:
        return wanted[block] * steps - counts[block]

    blocks = range(len(counts))
    while left < 0 and (lowered := [b for b in blocks if counts[b] > 1]):
        block = min(lowered, key=missing)
        counts[block], left = counts[block] - 1, left + sizes[block]
    while raised := [b for b in blocks if counts[b] < steps - 1 and sizes[b] <= left]:
        block = max(raised, key=missing)
        counts[block], left = counts[block] + 1, left - sizes[block]
    if left < 0:
        raise PatternError(f"{pattern} has too few zeros to share out; ask for more")
    if left and isinstance(pattern, NofM):
        raise PatternError(
            f"the blocks differ in size, so that {pattern} does not come out; ask for an "
            "unstructured pattern"
        )
    if len(set(counts)) == 1:
        raise PatternError(
            f"rounded to 1/{steps}, all blocks have the same ratio for {pattern}, as without "
            "`ratios`; let them differ by more (deviation or epsilon), or leave this pattern out"
        )
    return [count / steps for count in counts]


def check_listed(ratios: Sequence[float], sizes: Sequence[int], pattern: Pattern) -> None:
    """Check ratios that somebody wrote down, of blocks of these sizes.

    Raises:
        PatternError: there is not one for each block, their mean is not the pattern's, or one is
            none of N:M.
    """
    if len(ratios) != len(sizes):
        raise PatternError(f"{len(ratios)} ratios, but there are {len(sizes)} blocks; correct them")
    mean = _mean(ratios, sizes)
    if abs(mean - pattern.sparsity) > 1e-6:
        raise PatternError(
            f"the mean of the ratios is {mean:.6g}, but {pattern} asks for "
            f"{pattern.sparsity:g}; correct them"
        )
    for block, ratio in enumerate(ratios):
        block_pattern(ratio, pattern, f"block {block}")


def _places(scores: Sequence[float], what: str) -> list[float]:
    """Where each score stands between the lowest, 0, and the highest, 1."""
    low, high = min(scores), max(scores)
    if low == high:
        raise PatternError(
            f"every block has the same {what} ({low:.4g}), by which no ratio can differ; "
            "leave `ratios` out"
        )
    return [(score - low) / (high - low) for score in scores]


def _mean(values: Sequence[float], sizes: Sequence[int]) -> float:
    """The mean of what blocks of these sizes have."""
    return sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)


def _sparsity(pattern: Pattern) -> Fraction:
    """The share of zeros that a pattern asks for, exactly."""
    if isinstance(pattern, Unstructured):
        return pattern.percent / 100
    return 1 - Fraction(pattern.kept, pattern.group)
