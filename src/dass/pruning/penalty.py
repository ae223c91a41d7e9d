"""The iterations of ALPS: a penalty that grows until the mask settles, then conjugate gradients.

Source: Meng et al., "ALPS: improved optimization for highly sparse one-shot pruning for large
language models" (NeurIPS 2024), algorithms 1 and 2; thresholds and counts are those of its code.
The notation is that of :class:`dass.pruning.methods.alps.ALPS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dass.errors import NumericError
from dass.models.numerics import all_finite
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import Pattern, check_fit
from dass.pruning.splitting import shifted_inverse

FIRST_RHO = 0.1
LARGEST_RHO = 1e6
CHECK_EVERY = 3
"""Steps between two looks at how far the mask has moved."""
FAST, SLOW = 0.1, 0.005
"""Shares of the kept entries: a mask that moves by more lets ρ grow faster."""
SETTLED, MAY_SETTLE_AFTER = 0.0003, 30
"""A mask that moves by a smaller share has settled, after so many steps."""


@dataclass(frozen=True)
class Layer:
    """What the matrices that share an input have in common."""

    scale: Tensor
    """float32 [in]: the root of the damped Gram matrix's diagonal; 0 only where all of it is."""
    correlation: Tensor
    """float32 [in, in]: Ĝ, the damped Gram matrix scaled so that its diagonal is 1."""

    @classmethod
    def of(cls, gram: Tensor, damping: float) -> Layer:
        """The layer of a Gram matrix, float32 [in, in], which stays as it is."""
        diagonal = gram.diagonal()
        scale = (diagonal + damping * diagonal.mean()).sqrt()
        unit = _over(torch.ones_like(scale), scale)
        correlation = (gram * unit).mul_(unit.unsqueeze(1))
        return cls(scale, correlation.fill_diagonal_(1.0))


def prune_with_growing_penalty(
    weight: Tensor, layer: Layer, pattern: Pattern, steps: int, gradient_steps: int, name: str
) -> tuple[Tensor, Tensor]:
    """Prune a matrix.

    Args:
        weight: [out, in], unchanged.
        layer: of its inputs.
        pattern: how many of which entries go.
        steps: at most, in which masks are chosen.
        gradient_steps: of conjugate gradients, with the last mask.
        name: what to call the matrix in an error.

    Returns:
        (new weight [out, in] in the dtype of ``weight``, bool mask [out, in] of kept entries).

    Raises:
        NumericError: a weight is not finite, or as :func:`dass.pruning.splitting.shifted_inverse`.
        PatternError: M does not divide the input dimension.
    """
    check_fit((weight.shape[0], weight.shape[1]), pattern, "input", name)
    if not all_finite(weight):
        raise NumericError(f"{name}: the weights are not finite; fetch the model again")
    dense = weight.float() * layer.scale
    v = _settled(dense, layer, pattern, steps, name)
    mask = keep_mask(v.abs(), pattern, "matrix", "input", name)
    v = _fitted(v.masked_fill(~mask, 0.0), mask, dense, layer.correlation, gradient_steps)
    return _over(v, layer.scale).to(weight.dtype), mask


def _settled(dense: Tensor, layer: Layer, pattern: Pattern, steps: int, name: str) -> Tensor:
    """V once the mask has settled, or after all steps.

    V is had from what it lacks of the dense weights: in float32 this loses nothing, whereas
    (V₀Ĝ + ρ(Z − U))(Ĝ + ρI)⁻¹ would lose what the inverse of a small ρ lacks in digits.
    """
    rho, has_grown = FIRST_RHO, False
    inverse = shifted_inverse(layer.correlation, rho, name)
    before = keep_mask(dense.abs(), pattern, "matrix", "input", name)
    kept = int(before.count_nonzero())
    z = first = dense.masked_fill(~before, 0.0)
    u, v = torch.zeros_like(dense), dense
    for step in range(1, steps + 1):
        v = dense + rho * ((z - u - dense) @ inverse)
        both = v + u
        mask = keep_mask(both.abs(), pattern, "matrix", "input", name)
        z = both.masked_fill(~mask, 0.0)
        u = both.sub_(z)
        if step % CHECK_EVERY:
            continue
        moved = int((mask != before).count_nonzero())
        before = mask
        if has_grown and not moved:
            break
        if moved > SLOW * kept or has_grown:
            has_grown = True
            factor = 1.3 if moved > FAST * kept else 1.2 if moved > SLOW * kept else 1.1
        else:  # the mask has hardly moved yet: ρ is too large
            factor = 1 / 5
            if moved:
                z, u, v = first, torch.zeros_like(u), dense
        u /= (new := min(rho * factor, LARGEST_RHO)) / rho  # ρU stays
        rho = new
        if step > MAY_SETTLE_AFTER and moved < SETTLED * kept:
            break
        inverse = inverse.new_empty(0)  # its memory is free before there is another
        inverse = shifted_inverse(layer.correlation, rho, name)
    return v


def _fitted(v: Tensor, mask: Tensor, dense: Tensor, correlation: Tensor, steps: int) -> Tensor:
    """Closer to the least-squares fit of ``dense`` on the mask: conjugate gradients of each row.

    The correlation's diagonal is 1, so that it is its own diagonal preconditioner.
    """
    residual = ((dense - v) @ correlation).masked_fill_(~mask, 0.0)
    direction, size = residual, residual.square().sum(1, keepdim=True)
    for _ in range(steps):
        product = direction @ correlation
        length = _over(size, (direction * product).sum(1, keepdim=True))
        v = v + length * direction
        residual = (residual - length * product).masked_fill_(~mask, 0.0)
        last, size = size, residual.square().sum(1, keepdim=True)
        direction = residual + _over(size, last) * direction
    return v


def _over(x: Tensor, y: Tensor) -> Tensor:
    """x / y, and 0 where y is."""
    return (x / y).masked_fill(y == 0, 0.0)
