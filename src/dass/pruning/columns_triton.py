"""SparseGPT's column loop as one kernel per block of columns.

In PyTorch each column costs several launches of a few microseconds; a model of 7 billion
parameters has 15,000 columns per decoder block. Here a program keeps some rows of a block of
columns in registers and goes through the columns itself.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dass.pruning.patterns import NofM, Pattern

ROWS = 16
"""Rows of a block of columns that one program keeps in registers."""


def fits(width: int, pattern: Pattern) -> bool:
    """Whether the kernel can prune blocks of this many columns to this pattern."""
    power_of_two = width >= 16 and width & (width - 1) == 0
    return power_of_two and (not isinstance(pattern, NofM) or pattern.group <= 16)


def prune_columns(columns: Tensor, mask: Tensor, factor: Tensor, pattern: Pattern) -> Tensor:
    """Prune one block of columns in place, left to right.

    Args:
        columns: float32 [out, width], changed in place; rows may be apart in memory.
        mask: bool [out, width], contiguous; read (unstructured) or written (N:M).
        factor: float32 [width, width], upper triangular.
        pattern: as of :func:`fits`.

    Returns:
        float32 [out, width]: the error of each column, which later columns make up for.
    """
    rows, width = columns.shape
    errors = torch.empty((rows, width), dtype=torch.float32, device=columns.device)
    grouped = isinstance(pattern, NofM)
    _prune_columns[(triton.cdiv(rows, ROWS),)](
        columns, mask, factor.contiguous(), errors, rows, columns.stride(0),
        WIDTH=width, ROWS=ROWS,
        GROUP=pattern.group if isinstance(pattern, NofM) else 1,
        KEPT=pattern.kept if isinstance(pattern, NofM) else 1,
        CHOOSE=grouped,
    )  # fmt: skip
    return errors


@triton.jit  # type: ignore[untyped-decorator]
def _prune_columns(  # type: ignore[no-untyped-def]
    columns, mask, factor, errors, n_rows, stride,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr, KEPT: tl.constexpr,
    CHOOSE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = (row < n_rows)[:, None]
    at = row.to(tl.int64)[:, None] * stride + column[None, :]
    dense_at = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    tile = tl.load(columns + at, mask=inside, other=0.0)
    keep = tl.load(mask + dense_at, mask=inside, other=0).to(tl.int32)
    lost = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for start in range(0, WIDTH, GROUP):
        if CHOOSE:
            # Rank the group's members by their errors; a tie goes to the lower column.
            diagonal = tl.load(factor + column * (WIDTH + 1))
            score = tile / diagonal[None, :]
            score = score * score
            rank = tl.zeros((ROWS, WIDTH), dtype=tl.int32)
            for member in tl.static_range(0, GROUP):
                other = start + member
                theirs = tl.sum(tl.where(column[None, :] == other, score, 0.0), axis=1)[:, None]
                first = (theirs < score) | ((theirs == score) & (other < column[None, :]))
                rank += first.to(tl.int32)
            group = (column >= start) & (column < start + GROUP)
            keep = tl.where(group[None, :], (rank >= GROUP - KEPT).to(tl.int32), keep)
        for member in tl.static_range(0, GROUP):
            j = start + member
            here = column[None, :] == j
            value = tl.sum(tl.where(here, tile, 0.0), axis=1)
            kept = tl.sum(tl.where(here, keep, 0), axis=1)
            line = tl.load(factor + j * WIDTH + column)
            pivot = tl.sum(tl.where(column == j, line, 0.0), axis=0)
            error = tl.where(kept != 0, 0.0, value / pivot)
            tile -= error[:, None] * line[None, :]
            tile = tl.where(here & (keep == 0), 0.0, tile)
            lost = tl.where(here, error[:, None], lost)
    tl.store(columns + at, tile, mask=inside)
    tl.store(errors + dense_at, lost, mask=inside)
    if CHOOSE:
        tl.store(mask + dense_at, keep.to(tl.int1), mask=inside)
