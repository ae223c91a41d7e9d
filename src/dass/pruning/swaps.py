"""The swaps of SparseSwaps, for many rows at once.

Source: Zimmer et al. (arXiv 2512.10922); the notation is that of
:class:`dass.pruning.methods.sparseswaps.SparseSwaps`.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from dass.errors import NumericError
from dass.models.numerics import all_finite
from dass.pruning.patterns import Axis, NofM, Pattern

PAIRS = {"cpu": 1 << 22, "cuda": 1 << 28}
"""Pairs of weights that are compared at once, at four bytes each."""

SETTLED = 1e-6
"""A swap that lowers the error by less than this share of what it was at first is rounding."""

CHECK_EVERY = 8
"""Swaps between two questions whether any is left: each waits for the device."""


def swap(
    weight: Tensor, gram: Tensor, mask: Tensor, pattern: Pattern, axis: Axis, swaps: int, name: str
) -> Tensor:
    """A mask with a lower error than ``mask``, by at most so many swaps per row.

    Args:
        weight: [out, in].
        gram: float32 [in, in], of the layer's inputs.
        mask: bool [out, in] of kept entries; unchanged.
        pattern: within whose groups entries move.
        axis: along which N:M groups lie.
        swaps: per row at most; in a band of M rows whose groups lie across them, M / 2 times as
            many, since each is of two rows.
        name: what to call the matrix in an error.

    Raises:
        NumericError: a weight or the Gram matrix is not finite.
    """
    if not (all_finite(weight) and all_finite(gram)):
        raise NumericError(
            f"{name}: the weights or the Gram matrix of their inputs are not finite; fetch the "
            "model again, or calibrate in float32"
        )
    rows, columns = weight.shape
    group = pattern.group if isinstance(pattern, NofM) else 0
    across = bool(group) and axis == "output"
    band = group if across else 1
    limit = swaps * group // 2 if across else swaps
    pairs = band * columns * (group or columns)
    chunk = max(PAIRS.get(weight.device.type, PAIRS["cpu"]) // pairs, 1) * band
    found = mask.clone()
    for start in range(0, rows, chunk):
        part = slice(start, start + chunk)
        w, kept = weight[part].float(), found[part]
        moves: _Moves
        if across:
            moves = _AcrossRows(w, gram, kept, group)
        elif group:
            moves = _InGroups(w, gram, kept, group)
        else:
            moves = _InRows(w, gram, kept)
        _make(moves, limit)
    return found


class _Moves(Protocol):
    """Rows, or bands of rows, that move independently of one another."""

    left: Tensor
    """bool [units]: where a swap may still be found."""

    def step(self) -> None:
        """Make the best swap of each unit, where it lowers the error."""


def _make(moves: _Moves, limit: int) -> None:
    for step in range(limit):
        if step % CHECK_EVERY == 0 and step and not moves.left.any():
            return
        moves.step()


class _Rows:
    """Rows with e = Gv of each; ``kept`` is a view of the mask, which moves write to."""

    def __init__(self, w: Tensor, gram: Tensor, kept: Tensor, band: int = 1) -> None:
        self.w, self.gram, self.kept = w, gram, kept
        pruned = w.masked_fill(kept, 0.0)
        self.e = pruned @ gram
        errors = (pruned * self.e).sum(1).view(-1, band).sum(1)
        self.least = -SETTLED * errors.clamp_min(0)
        self.left = torch.ones_like(errors, dtype=torch.bool)
        self.square = w.square() * gram.diagonal()

    def costs(self) -> tuple[Tensor, Tensor]:
        """Of pruning and of restoring each weight alone, [rows, in]; inf where it cannot be."""
        linear = 2 * self.w * self.e
        prune = (self.square + linear).masked_fill(~self.kept, math.inf)
        restore = (self.square - linear).masked_fill(self.kept, math.inf)
        return prune, restore

    def better(self, change: Tensor) -> Tensor:
        """bool [units]: where a change lowers the error; elsewhere nothing will any more."""
        self.left &= change < self.least
        return self.left

    def exchange(self, p: Tensor, u: Tensor, rows_p: Tensor, rows_u: Tensor, go: Tensor) -> None:
        """Prune (rows_p, p) and restore (rows_u, u), where ``go``; all [units]."""
        for rows, place, sign in ((rows_p, p, 1.0), (rows_u, u, -1.0)):
            value = self.w[rows, place] * go * sign
            self.e.index_add_(0, rows, self.gram[place] * value.unsqueeze(1))
            self.kept[rows, place] = self.kept[rows, place] ^ go


class _InRows(_Rows):
    """Swaps between any two weights of a row.

    The places of kept and of pruned weights stand in two lists per row, filled up to the longest:
    a quarter of the pairs at half of the weights.
    """

    def __init__(self, w: Tensor, gram: Tensor, kept: Tensor) -> None:
        super().__init__(w, gram, kept)
        self.rows = torch.arange(len(w), device=w.device)
        counts = kept.sum(1)
        fewest, most = counts.aminmax()
        order = kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        self.of_kept = order[:, : int(most)].contiguous()
        self.of_pruned = order[:, int(fewest) :].contiguous()

    def step(self) -> None:
        prune, restore = self.costs()
        if not (self.of_kept.shape[1] and self.of_pruned.shape[1]):
            self.left.zero_()
            return
        w_p = self.w.gather(1, self.of_kept).unsqueeze(2)
        w_u = self.w.gather(1, self.of_pruned).unsqueeze(1)
        # In place: this is the largest tensor there is.
        pairs = self.gram[self.of_kept.unsqueeze(2), self.of_pruned.unsqueeze(1)].mul_(w_u)
        torch.addcmul(
            restore.gather(1, self.of_pruned).unsqueeze(1), pairs, w_p, value=-2, out=pairs
        )
        lowest, best = pairs.min(2)  # [rows, kept]: which pruned weight is best for each kept one
        change, i = (lowest + prune.gather(1, self.of_kept)).min(1, keepdim=True)
        j, change = best.gather(1, i), change.squeeze(1)
        p, u = self.of_kept.gather(1, i), self.of_pruned.gather(1, j)
        go = self.better(change)
        self.of_kept.scatter_(1, i, torch.where(go.unsqueeze(1), u, p))
        self.of_pruned.scatter_(1, j, torch.where(go.unsqueeze(1), p, u))
        self.exchange(p.squeeze(1), u.squeeze(1), self.rows, self.rows, go)


class _InGroups(_Rows):
    """Swaps within a group of M consecutive weights of a row."""

    def __init__(self, w: Tensor, gram: Tensor, kept: Tensor, group: int) -> None:
        super().__init__(w, gram, kept)
        self.rows = torch.arange(len(w), device=w.device)
        self.group = group
        grouped = w.unflatten(1, (-1, group))
        number = torch.arange(w.shape[1] // group, device=w.device)
        own = gram.unflatten(0, (-1, group)).unflatten(2, (-1, group))[number, :, number]
        # What the pairs of each group share, [rows, groups, M, M]: it never changes.
        self.product = grouped.unsqueeze(3) * grouped.unsqueeze(2) * own * -2

    def step(self) -> None:
        prune, restore = (cost.unflatten(1, (-1, self.group)) for cost in self.costs())
        pairs = self.product + prune.unsqueeze(3) + restore.unsqueeze(2)
        change, at = pairs.flatten(1).min(1)
        size = self.group
        first, p, u = at // size**2 * size, at // size % size, at % size
        self.exchange(first + p, first + u, self.rows, self.rows, self.better(change))


class _AcrossRows(_Rows):
    """Swaps between two of the M rows that a group of one column lies across.

    A band of M rows is a unit: its rows share their groups with no other.
    """

    def __init__(self, w: Tensor, gram: Tensor, kept: Tensor, group: int) -> None:
        super().__init__(w, gram, kept, group)
        self.group = group
        self.first = torch.arange(0, len(w), group, device=w.device)

    def step(self) -> None:
        (prune, p), (restore, u) = (
            cost.unflatten(0, (-1, self.group)).min(1) for cost in self.costs()
        )  # [bands, in]: the best of each group, and in which of its rows
        change, column = (prune + restore).min(1)
        at = column.unsqueeze(1)
        rows_p, rows_u = (self.first + one.gather(1, at).squeeze(1) for one in (p, u))
        self.exchange(column, column, rows_p, rows_u, self.better(change))
