"""The iterations of ADMM pruning.

Source: Boža, "Fast and effective weight update for pruned large language models" (TMLR 2024,
arXiv 2401.02938); the notation is that of :class:`dass.pruning.methods.admm.ADMM`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from dass.errors import NumericError
from dass.models.numerics import all_finite
from dass.pruning.masks import keep_mask, lowest_go
from dass.pruning.patterns import NofM, Pattern, Unstructured, check_fit

RHO = 1.0
"""The penalty: the correlation's diagonal is one, and so it fits every layer."""


@dataclass(frozen=True)
class Problem:
    """What the matrices that share an input have in common."""

    scale: Tensor
    """float32 [in]: √diag G; 0 where a channel is dead: it says nothing about its weights."""
    correlation: Tensor
    """float32 [in, in]: Ĝ, the damped correlation."""
    inverse: Tensor
    """float32 [in, in]: (Ĝ + ρ I)⁻¹."""

    @classmethod
    def of(cls, gram: Tensor, damping: float, name: str) -> Problem:
        """The problem of a Gram matrix, float32 [in, in], which stays as it is.

        Raises:
            NumericError: the matrix is not finite, or not positive semi-definite.
        """
        scale = gram.diagonal().sqrt()
        unit = _safe_inverse(scale)
        correlation = gram * unit * unit.unsqueeze(1)
        diagonal = correlation.diagonal()
        diagonal += damping * diagonal.mean()
        return cls(scale, correlation, shifted_inverse(correlation, RHO, name))


def shifted_inverse(correlation: Tensor, rho: float, name: str) -> Tensor:
    """(Ĝ + ρ I)⁻¹ of a damped correlation Ĝ, float32 [in, in], which stays as it is.

    Raises:
        NumericError: the Gram matrix is not finite, or not positive semi-definite.
    """
    shifted = correlation.clone()
    shifted.diagonal().add_(rho)
    lower, failed = torch.linalg.cholesky_ex(shifted)
    del shifted
    if failed or not all_finite(lower.diagonal()):
        raise NumericError(
            f"{name}: the Gram matrix of its inputs is not finite or not positive "
            "semi-definite; calibrate in float32, or raise `damping`"
        )
    return torch.cholesky_inverse(lower)


def prune_split(
    weight: Tensor, problem: Problem, pattern: Pattern, steps: int, mask_steps: int, name: str
) -> tuple[Tensor, Tensor]:
    """Prune a matrix.

    Args:
        weight: [out, in], unchanged.
        problem: of its inputs.
        pattern: how many of which entries go.
        steps: in all.
        mask_steps: of them, from the first on, in which masks are chosen.
        name: what to call the matrix in an error.

    Returns:
        (new weight [out, in] in the dtype of ``weight``, bool mask [out, in] of kept entries).

    Raises:
        NumericError: a weight is not finite.
        PatternError: M does not divide the input dimension.
    """
    check_fit((weight.shape[0], weight.shape[1]), pattern, "input", name)
    v = weight.float() * problem.scale
    if not all_finite(v):
        raise NumericError(f"{name}: the weights are not finite; fetch the model again")
    target = v @ problem.correlation
    u = torch.zeros_like(v)
    mask = torch.ones_like(v, dtype=torch.bool)
    for step in range(1, steps + 1):
        both = v + u
        if step <= mask_steps:
            mask = _mask(both.abs(), pattern, Fraction(step, mask_steps), name)
        z = both.masked_fill(~mask, 0.0)
        u = both - z
        v = (target + RHO * (z - u)) @ problem.inverse
    kept = (v + u).masked_fill_(~mask, 0.0)
    return (kept * _safe_inverse(problem.scale)).to(weight.dtype), mask


def _mask(size: Tensor, pattern: Pattern, done: Fraction, name: str) -> Tensor:
    """The mask after a part of the steps that choose masks."""
    if not isinstance(pattern, NofM):
        return lowest_go(size.reshape(1, -1), pattern).reshape(size.shape)
    best = keep_mask(size, pattern, "row", "input", name)
    if done == 1:
        return best
    share = 1 - (1 - done) ** 3
    others = size.masked_fill(best, math.inf).reshape(1, -1)
    percent = 100 * share * Fraction(pattern.group - pattern.kept, pattern.group)
    return lowest_go(others, Unstructured(percent)).reshape(size.shape)


def _safe_inverse(scale: Tensor) -> Tensor:
    """1 / x, and 0 where x is."""
    return scale.reciprocal().masked_fill(scale == 0, 0.0)
