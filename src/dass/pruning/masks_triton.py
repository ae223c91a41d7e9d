"""Masks on a GPU as one kernel each: what :mod:`dass.pruning.masks` does in many passes.

The same masks to the bit, ties included; :mod:`dass.pruning.masks` says what they mean.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDEST_ROW = 32768
"""Entries of a row that one program keeps in registers."""

LARGEST_GROUP = 32
"""Members of an N:M group that a program ranks."""

TILE = 256
"""Groups that one program ranks."""


def lowest_go(rows: Tensor, count: int) -> Tensor:
    """Keep mask of float32 [groups, size]: the ``count`` lowest entries of each row go.

    Among equal entries the first go. Size is at most :data:`WIDEST_ROW`, 0 < count <= size.
    """
    rows = rows.contiguous()
    keep = torch.empty(rows.shape, dtype=torch.bool, device=rows.device)
    width = triton.next_power_of_2(rows.shape[1])
    _lowest_go[(len(rows),)](
        rows, keep, rows.shape[1], count, WIDTH=width, num_warps=min(max(width // 1024, 1), 32)
    )
    return keep


def best_of_groups(scores: Tensor, group: int, kept: int) -> Tensor:
    """Keep mask of float32 [outer, group, inner]: of each group the last ``kept`` in a stable
    ascending order stay. ``group`` is at most :data:`LARGEST_GROUP`.
    """
    scores = scores.contiguous()
    keep = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    groups, inner = scores.numel() // group, scores.shape[2]
    _best_of_groups[(triton.cdiv(groups, TILE),)](
        scores, keep, groups, inner,
        GROUP=group, PADDED=triton.next_power_of_2(group), KEPT=kept, TILE=TILE,
    )  # fmt: skip
    return keep


@triton.jit  # type: ignore[untyped-decorator]
def _lowest_go(rows, keep, size, count, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDTH)
    inside = at < size
    # Adding zero makes -0.0 equal to 0.0. As integers, floats order as they do once the bits
    # below the sign are turned over where it is set.
    value = tl.load(rows + row * size + at, mask=inside, other=0.0) + 0.0
    bits = value.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    key = tl.where(inside, key, 0x7FFFFFFF)
    # The largest threshold with fewer than `count` keys below it is the count-th lowest key.
    negative = tl.sum((key < 0).to(tl.int32), axis=0)
    threshold = tl.where(negative < count, 0, -2147483648)
    for step in tl.static_range(31):
        candidate = threshold + (1 << (30 - step))
        below = tl.sum((key < candidate).to(tl.int32), axis=0)
        threshold = tl.where(below < count, candidate, threshold)
    tied = key == threshold
    going = count - tl.sum((key < threshold).to(tl.int32), axis=0)
    # The largest place with fewer than `going` ties before it is that of the last tie to go.
    last = 0
    for step in tl.static_range(16):
        candidate = last + (1 << (15 - step))
        before = tl.sum((tied & (at < candidate)).to(tl.int32), axis=0)
        last = tl.where(before < going, candidate, last)
    stays = (key > threshold) | (tied & (at > last))
    tl.store(keep + row * size + at, stays, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _best_of_groups(  # type: ignore[no-untyped-def]
    scores, keep, groups, inner,
    GROUP: tl.constexpr, PADDED: tl.constexpr, KEPT: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    which = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    first = which // inner * inner * GROUP + which % inner
    there = which < groups
    member = tl.arange(0, PADDED)
    at = first[:, None] + member[None, :] * inner
    inside = there[:, None] & (member < GROUP)[None, :]
    score = tl.load(scores + at, mask=inside, other=0.0)
    rank = tl.zeros((TILE, PADDED), dtype=tl.int32)
    for other in tl.static_range(0, GROUP):
        theirs = tl.load(scores + first + other * inner, mask=there, other=0.0)[:, None]
        goes_first = (theirs < score) | ((theirs == score) & (other < member)[None, :])
        rank += goes_first.to(tl.int32)
    tl.store(keep + at, rank >= GROUP - KEPT, mask=inside)
