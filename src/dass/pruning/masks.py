"""Masks from scores: vectorised, exact counts, stable ties, any axis, any device.

A mask is boolean and true where a weight is **kept**. Among equal scores the lowest index is
pruned first, so that a mask does not depend on the device or on a sorting algorithm.
"""

import torch
from torch import Tensor

from dass.errors import NumericError
from dass.models.numerics import all_finite, kernels_take
from dass.pruning.patterns import Axis, NofM, Pattern, Scope, Unstructured, check_fit
from dass.pruning.tiles import best_of_tiles

LARGEST_RANKED_GROUP = 32
"""Groups up to this size are ranked by comparing each member with each; larger ones are sorted."""


def keep_mask(
    scores: Tensor, pattern: Pattern, scope: Scope, axis: Axis, name: str = "matrix"
) -> Tensor:
    """The mask that ``pattern`` allows and ``scores`` prefer.

    Args:
        scores: [out, in], floating, finite; a higher score is worth more.
        pattern: how many of which entries go.
        scope: within which entries unstructured scores are compared (not used for N:M).
        axis: along which dimension N:M groups lie (not used for unstructured, nor where they lie
            along both).
        name: what to call the matrix in an error.

    Returns:
        bool [out, in], true where the weight is kept.

    Raises:
        NumericError: a score is not finite, or those of a tile add up beyond the largest number.
        PatternError: M does not divide the dimension that the groups lie along.
    """
    if not all_finite(scores):
        raise NumericError(
            f"{name}: the scores are not finite; check the method and its "
            "arguments, and the weights"
        )
    if isinstance(pattern, NofM):
        return _n_of_m(scores, pattern, axis, name)
    if scope == "matrix":
        return lowest_go(scores.reshape(1, -1), pattern).reshape(scores.shape)
    if scope == "row":
        return lowest_go(scores, pattern)
    return lowest_go(scores.t().contiguous(), pattern).t().contiguous()


def lowest_go(rows: Tensor, pattern: Unstructured) -> Tensor:
    """Keep mask of [groups, size]: exactly floor(size × ratio) lowest entries of each row go.

    On a GPU nothing here waits for the device; entries have to be finite and are not checked.
    """
    size = rows.shape[1]
    count = pattern.pruned(size)
    if count == 0:
        return torch.ones_like(rows, dtype=torch.bool)
    if kernels_take(rows, torch.float32):
        from dass.pruning import masks_triton

        if size <= masks_triton.WIDEST_ROW:
            return masks_triton.lowest_go(rows, count)
    threshold = _kth_lowest(rows, count)
    keep = rows > threshold
    tied = rows == threshold
    n_tied = tied.sum(1, dtype=torch.int32)
    spared = keep.sum(1, dtype=torch.int32) + n_tied - (size - count)
    if len(rows) == 1:
        return keep | (tied & (tied.cumsum(1, dtype=torch.int32) > spared[:, None]))
    undecided = (spared < n_tied).nonzero().squeeze(1)
    # Where some entries at the threshold stay, the first go; few rows have such ties.
    some = tied[undecided]
    keep[undecided] |= some & (some.cumsum(1, dtype=torch.int32) > spared[undecided, None])
    return keep


def _kth_lowest(rows: Tensor, k: int) -> Tensor:
    """The k-th lowest value of each row, [groups, 1]."""
    if rows.is_cuda and len(rows) == 1:
        # One row is one thread block's work for kthvalue there; a sort uses the whole device.
        return rows.sort(dim=1).values[:, k - 1 : k]
    return rows.kthvalue(k, dim=1, keepdim=True).values


def _n_of_m(scores: Tensor, pattern: NofM, axis: Axis, name: str) -> Tensor:
    """Keep mask of [out, in] whose groups lie along ``axis``."""
    rows, columns = scores.shape
    check_fit((rows, columns), pattern, axis, name)
    if pattern.both:
        return best_of_tiles(scores, pattern.kept, name)
    size = pattern.group
    if axis == "input":
        return _best_of_groups(scores.reshape(rows, columns // size, size), pattern, 2).reshape(
            rows, columns
        )
    return _best_of_groups(scores.reshape(rows // size, size, columns), pattern, 1).reshape(
        rows, columns
    )


def _best_of_groups(groups: Tensor, pattern: NofM, dim: int) -> Tensor:
    """Keep mask of groups that lie along ``dim``: the last N of M in a stable ascending order."""
    if pattern.group <= LARGEST_RANKED_GROUP and kernels_take(groups, torch.float32):
        from dass.pruning import masks_triton

        three = groups if dim == 1 else groups.unsqueeze(-1).flatten(0, 1)
        return masks_triton.best_of_groups(three, pattern.group, pattern.kept).view(groups.shape)
    if pattern.group > LARGEST_RANKED_GROUP:
        order = groups.argsort(dim=dim, stable=True)
        kept = order.narrow(dim, pattern.group - pattern.kept, pattern.kept)
        return torch.zeros_like(groups, dtype=torch.bool).scatter_(dim, kept, True)
    members = groups.unbind(dim)
    rank = [torch.zeros_like(member, dtype=torch.uint8) for member in members]
    for later in range(1, pattern.group):
        for earlier in range(later):
            goes_first = members[earlier] <= members[later]
            rank[later] += goes_first
            rank[earlier] += ~goes_first
    return torch.stack([one >= pattern.group - pattern.kept for one in rank], dim)
