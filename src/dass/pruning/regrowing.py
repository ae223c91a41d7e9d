"""The exchanges of DSnoT, for all rows at once.

Source: Zhang et al., "Dynamic sparse no training" (ICLR 2024), section 3; the notation is that of
:class:`dass.pruning.methods.dsnot.DSnoT`.
"""

import math

import torch
from torch import Tensor

from dass.pruning.patterns import NofM, Pattern

TOKENS = 2048
"""Over so many tokens DSnoT's code sums the error that it compares with its threshold."""


def regrow(
    score: Tensor,
    shift: Tensor,
    variance: Tensor,
    mask: Tensor,
    pattern: Pattern,
    cycles: int,
    threshold: float,
) -> Tensor:
    """A mask whose rows' mean errors are nearer to zero; see :class:`DSnoT`.

    Args:
        score: float32 [out, in], |W_j| · ‖X_j‖₂: of kept weights the lowest go.
        shift: float32 [out, in], W_j μ_j: what a weight adds to the mean output.
        variance: float32 [in].
        mask: bool [out, in] of kept entries; unchanged.
        pattern: N:M groups lie along the input.
        cycles: exchanges per row at most.
        threshold: of |ε|, summed over :data:`TOKENS` tokens.

    Returns:
        bool [out, in], true where a weight is kept.
    """
    found = mask.clone()
    error = shift.masked_fill(mask, 0.0).sum(1, keepdim=True)
    first_sign = error.sign()
    returning = _Returning(shift, variance, mask)
    going = (
        _OfGroup(score, shift, mask, pattern.group)
        if isinstance(pattern, NofM)
        else _OfOtherSign(score, shift, mask)
    )
    left = torch.ones_like(error, dtype=torch.bool)
    for _ in range(cycles):
        up = error > 0
        u, there = returning.next(up)
        p, possible = going.next(up, u)
        after = error + shift.gather(1, p) - shift.gather(1, u)
        left &= there & (error.abs() * TOKENS > threshold)
        if isinstance(pattern, NofM):
            left &= ~possible | (after.sign() == first_sign)
        else:
            left &= possible
        go = left & possible
        found.scatter_(1, p, found.gather(1, p) & ~go)
        found.scatter_(1, u, found.gather(1, u) | go)
        error = torch.where(go, after, error)
    return found


class _Returning:
    """The pruned weights of each row in the order in which they return, from both ends."""

    def __init__(self, shift: Tensor, variance: Tensor, mask: Tensor) -> None:
        # A channel that never varies returns first; one that is never active, not at all.
        gain = shift / variance.clamp_min(torch.finfo(torch.float32).tiny)
        self._gain, self._order = gain.masked_fill_(mask, 0.0).sort(dim=1, stable=True)
        self._place = torch.zeros_like(self._order[:, :2])
        self._place[:, 1] = shift.shape[1] - 1

    def next(self, up: Tensor) -> tuple[Tensor, Tensor]:
        """The next column of each row, int64 [out, 1]: of the largest gain where ``up``, else of
        the lowest; and whether there is one."""
        end = up.long()
        place = self._place.gather(1, end)
        self._place.scatter_(1, end, (place + 1 - 2 * end).clamp_(0, self._order.shape[1] - 1))
        gain = self._gain.gather(1, place)
        return self._order.gather(1, place), torch.where(up, gain > 0, gain < 0)


class _OfOtherSign:
    """The kept weights of each row by their score, those with a negative and a positive shift."""

    def __init__(self, score: Tensor, shift: Tensor, mask: Tensor) -> None:
        self._lists = [
            score.masked_fill(~(mask & sign), math.inf).sort(dim=1, stable=True)
            for sign in (shift > 0, shift < 0)
        ]
        self._place = torch.zeros_like(self._lists[0].indices[:, :2])

    def next(self, up: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        """The next column of each row, int64 [out, 1], and whether there is one."""
        which = up.long()
        place = self._place.gather(1, which)
        last = self._lists[0].indices.shape[1] - 1
        self._place.scatter_(1, which, (place + 1).clamp_(max=last))
        positive, negative = (
            (one.indices.gather(1, place), one.values.gather(1, place)) for one in self._lists
        )
        column = torch.where(up, negative[0], positive[0])
        return column, torch.where(up, negative[1], positive[1]).isfinite()


class _OfGroup:
    """The kept weights of each group of M."""

    def __init__(self, score: Tensor, shift: Tensor, mask: Tensor, group: int) -> None:
        self._score = score.masked_fill(~mask, math.inf)
        self._group = group
        self._within = torch.arange(group, device=score.device)

    def next(self, _: Tensor, returning: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest of the group that a weight returns to, [out, 1], and whether one is left."""
        columns = returning // self._group * self._group + self._within
        lowest, at = self._score.gather(1, columns).min(1, keepdim=True)
        column = columns.gather(1, at)
        self._score.scatter_(1, column, math.inf)
        return column, lowest.isfinite()
