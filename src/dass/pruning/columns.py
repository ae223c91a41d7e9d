"""The column loop of SparseGPT: errors of the optimal brain surgeon, and their compensation.

Source: Frantar and Alistarh, "SparseGPT: massive language models can be accurately pruned in
one-shot" (ICML 2023), algorithm 1.
"""

import torch
from torch import Tensor

from dass.errors import NumericError
from dass.models.numerics import all_finite, kernels_take
from dass.pruning.masks import keep_mask, lowest_go
from dass.pruning.patterns import NofM, Pattern, check_fit


def prune_columns(
    weight: Tensor, dead: Tensor, factor: Tensor, pattern: Pattern, block: int, name: str
) -> tuple[Tensor, Tensor]:
    """Prune a matrix left to right, block of columns by block of columns.

    Args:
        weight: [out, in], unchanged.
        dead: bool [in], channels that no token excites: they say nothing about their weights,
            which count as zero.
        factor: float32 [in, in], of :func:`inverse_factor`.
        pattern: how many of which entries go.
        block: columns for which masks are chosen together.
        name: what to call the matrix in an error.

    Returns:
        (new weight [out, in] in the dtype of ``weight``, bool mask [out, in] of kept entries).

    Raises:
        NumericError: a weight is not finite.
        PatternError: M does not divide the input dimension.
    """
    out_features, in_features = weight.shape
    check_fit((out_features, in_features), pattern, "input", name)
    current = weight.float().masked_fill(dead, 0.0)
    if not all_finite(current):  # here, so that no block of columns waits for the device
        raise NumericError(f"{name}: the weights are not finite; fetch the model again")
    mask = torch.ones_like(current, dtype=torch.bool)
    width = _block_width(block, pattern)
    for start in range(0, in_features, width):
        stop = min(start + width, in_features)
        part = slice(start, stop)
        errors, mask[:, part] = _prune_block(current[:, part], factor[part, part], pattern, name)
        current[:, stop:].addmm_(errors, factor[part, stop:], alpha=-1)
    return current.to(weight.dtype), mask


def inverse_factor(gram: Tensor, damping: float, name: str) -> Tensor:
    """Upper triangular U with UᵀU = H⁻¹, H the damped Gram matrix; [in, in] float32.

    With J the exchange of first and last, J H J = L Lᵀ gives H = R Rᵀ for the upper triangular
    R = J L J, hence U = R⁻¹: one factorisation and one triangular inverse, where factorising an
    explicit H⁻¹ takes two factorisations and an inverse, and loses more digits.

    Raises:
        NumericError: the matrix is not positive definite.
    """
    damped = gram.float().flip(0, 1)
    diagonal = damped.diagonal()
    diagonal.masked_fill_(diagonal == 0, 1.0)
    diagonal += damping * diagonal.mean()
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed or not all_finite(lower.diagonal()):
        raise NumericError(
            f"{name}: the Gram matrix of its inputs is not positive definite; "
            f"use more calibration tokens or a larger `damping` than {damping}"
        )
    del damped, diagonal  # each of these matrices is half a gigabyte for a LLaMA2-7B
    upper = lower.flip(0, 1)
    del lower
    factor = torch.eye(len(upper), dtype=upper.dtype, device=upper.device)
    torch.linalg.solve_triangular(upper, factor, upper=True, out=factor)
    return factor


def _block_width(block: int, pattern: Pattern) -> int:
    """Whole N:M groups in each block."""
    if not isinstance(pattern, NofM):
        return block
    return max(block // pattern.group, 1) * pattern.group


def _prune_block(
    columns: Tensor, factor: Tensor, pattern: Pattern, name: str
) -> tuple[Tensor, Tensor]:
    """Prune one block of columns in place.

    Args:
        columns: float32 [out, width], changed in place.
        factor: [width, width], the block's part of the factor.

    Returns:
        (float32 [out, width], the error of each column, which later columns make up for;
        bool [out, width], true where a weight is kept).
    """
    if isinstance(pattern, NofM):
        mask = torch.ones(columns.shape, dtype=torch.bool, device=columns.device)
    else:
        score = (columns / factor.diagonal()).square()
        mask = lowest_go(score.reshape(1, -1), pattern).reshape(score.shape)
    if kernels_take(columns, torch.float32):
        from dass.pruning import columns_triton

        if columns_triton.fits(columns.shape[1], pattern):
            return columns_triton.prune_columns(columns, mask, factor, pattern), mask
    return _prune_in_order(columns, mask, factor, pattern, name), mask


def _prune_in_order(
    columns: Tensor, mask: Tensor, factor: Tensor, pattern: Pattern, name: str
) -> Tensor:
    """Prune one block of columns in place, left to right; returns the error of each column."""
    diagonal = factor.diagonal()
    # Transposed copies: each column in one piece of memory, which is several times faster.
    values, kept = columns.t().contiguous(), mask.t().contiguous()
    errors = torch.zeros_like(values)
    for j in range(len(values)):
        if isinstance(pattern, NofM) and j % pattern.group == 0:
            group = slice(j, j + pattern.group)
            error = (values[group] / diagonal[group, None]).square()
            kept[group] = keep_mask(error, pattern, "column", "output", name)
        errors[j] = values[j].masked_fill(kept[j], 0.0) / diagonal[j]
        values[j + 1 :].addr_(factor[j, j + 1 :], errors[j], alpha=-1)
        # The update would leave of the column its kept entries, but for rounding.
        values[j].masked_fill_(~kept[j], 0.0)
    columns.copy_(values.t())
    mask.copy_(kept.t())
    return errors.t()
