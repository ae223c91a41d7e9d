"""SparseGPT: prune column by column and let the later columns make up for the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dass.errors import NumericError
from dass.masks import keep_mask
from dass.methods import Need, Role, Statistics
from dass.patterns import NofM, Pattern, check_fit


@dataclass(frozen=True)
class SparseGPT:
    """Remove weights by the OBS error w² / [H⁻¹]_jj² and update the columns to their right.

    Unstructured masks are chosen per block of ``block`` columns within the whole matrix; N:M
    masks every M columns, when the updates have reached them. H is XᵀX up to a factor, which
    changes neither the order of the errors nor the update; ``damping`` times its mean diagonal
    is added to the diagonal.

    Source: Frantar and Alistarh, "SparseGPT: massive language models can be accurately pruned
    in one-shot" (ICML 2023), algorithm 1 and section 3.
    """

    damping: float = 0.01
    block: int = 128

    needs: ClassVar[frozenset[Need]] = frozenset({"input_gram", "intermediate_gram"})

    def update(
        self, role: Role, weight: Tensor, statistics: Statistics, pattern: Pattern, name: str
    ) -> tuple[Tensor, Tensor]:
        """Prune a projection [out, in] of any role; ``down`` sees the intermediate activation.

        Raises:
            NumericError: the damped Gram matrix is not positive definite.
            PatternError: M does not divide the input dimension.
        """
        out_features, in_features = weight.shape
        check_fit((out_features, in_features), pattern, "input", name)
        gram = statistics.get("intermediate_gram" if role == "down" else "input_gram")
        dead = gram.diagonal() == 0
        factor = inverse_factor(gram, self.damping, name)
        # A channel that no token excites says nothing about its weights: they count as zero.
        current = weight.float().masked_fill(dead, 0.0)
        mask = torch.ones_like(current, dtype=torch.bool)
        width = _block_width(self.block, pattern)
        for start in range(0, in_features, width):
            stop = min(start + width, in_features)
            errors = _prune_columns(
                current[:, start:stop], mask[:, start:stop], factor[start:stop, start:stop],
                pattern, name,
            )  # fmt: skip
            current[:, stop:] -= errors @ factor[start:stop, stop:]
        return current.to(weight.dtype), mask


def inverse_factor(gram: Tensor, damping: float, name: str) -> Tensor:
    """The upper Cholesky factor of the inverse of the damped Gram matrix, [in, in] float32.

    Raises:
        NumericError: the matrix is not positive definite.
    """
    damped = gram.float().clone()
    diagonal = damped.diagonal()
    diagonal[diagonal == 0] = 1.0
    diagonal += damping * diagonal.mean()
    lower, failed = torch.linalg.cholesky_ex(damped)
    if not failed:
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if failed:
        raise NumericError(
            f"{name}: the Gram matrix of its inputs is not positive definite; "
            f"use more calibration tokens or a larger `damping` than {damping}"
        )
    factor: Tensor = upper
    return factor


def _block_width(block: int, pattern: Pattern) -> int:
    """Whole N:M groups in each block."""
    if not isinstance(pattern, NofM):
        return block
    return max(block // pattern.group, 1) * pattern.group


def _prune_columns(
    columns: Tensor, mask: Tensor, factor: Tensor, pattern: Pattern, name: str
) -> Tensor:
    """Prune one block of columns in place, left to right.

    Args:
        columns: float32 [out, width], changed in place.
        mask: bool [out, width], written.
        factor: [width, width], the block's part of the factor.

    Returns:
        float32 [out, width]: the error of each column, which later columns make up for.
    """
    diagonal = factor.diagonal()
    errors = torch.zeros_like(columns)
    if not isinstance(pattern, NofM):
        mask.copy_(keep_mask((columns / diagonal).square(), pattern, "matrix", "input", name))
    for j in range(columns.shape[1]):
        if isinstance(pattern, NofM) and j % pattern.group == 0:
            group = slice(j, j + pattern.group)
            error = (columns[:, group] / diagonal[group]).square()
            mask[:, group] = keep_mask(error, pattern, "row", "input", name)
        column = columns[:, j]
        errors[:, j] = column.masked_fill(mask[:, j], 0.0) / diagonal[j]
        columns[:, j:] -= errors[:, j : j + 1] * factor[j, j:]
        # In exact arithmetic the column now equals its kept entries; make it so.
        columns[:, j] = column.masked_fill(~mask[:, j], 0.0)
    return errors
