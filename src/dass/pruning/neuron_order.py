"""An order of a gated MLP's neurons in which N:M groups keep more of the scores.

Where groups lie along the neurons, their order decides which weights compete. Any order gives the
same function (:mod:`dass.models.neurons`), so that the best one is free. It is sought by exchanges
of two neurons of two groups. With the entries of a group of one column, t its N-th largest and s
the next, replacing entry a by x changes the sum of what is kept by

    max(u, x) - max(a, t), where u = s if a >= t, else t,

exactly. As 2 max(u, x) = u + x + |u - x|, the sum over columns is an L1 distance of two rows, and
all exchanges of some neurons are one ``torch.cdist``.

Permutations for N:M sparsity: Pool and Yu, "Channel permutations for N:M sparsity" (NeurIPS 2021),
who exchange input channels of one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dass.errors import NumericError
from dass.pruning.masks import keep_mask
from dass.pruning.method import Comparison
from dass.pruning.method_checks import regroups
from dass.pruning.patterns import NofM
from dass.terms import NEURON_DIM, Role

ROUNDS = 40
"""How often neurons are dealt into cells. Twice as many keep less than a thousandth more."""
CELL = 64
"""Neurons among which all exchanges are compared."""
CHUNK = 1 << 25
"""Entries that stand in memory together of each of about eight tensors: 128 MB in float32."""
SMALLEST = 1e-5
"""Gains below this share of a mean row are rounding."""


@dataclass(frozen=True)
class Regrouped:
    """Masks of a GLU whose groups were laid over its neurons in another order."""

    order: Tensor
    """int32 [neurons], on the host: at place i stands the model's neuron ``order[i]``."""
    masks: dict[Role, Tensor]
    """bool [out, in], true where a weight is kept, in the model's own order."""
    kept: dict[Role, tuple[float, float]]
    """The share of the scores' sum that is kept, in the model's own order and in the new one."""


def regroup(
    scores: Mapping[Role, Tensor],
    comparisons: Mapping[Role, Comparison],
    pattern: NofM,
    names: Mapping[Role, str],
) -> Regrouped:
    """Masks of a GLU in the best order of its neurons that is found, never a worse one.

    Args:
        scores: of gate, up and down, each [out, in].
        comparisons: along what each one's groups lie.
        pattern: N of M, also along both dimensions.
        names: what to call each matrix in errors.

    Raises:
        NumericError: a score is not finite, or is below zero.
        PatternError: groups do not fit a matrix.
    """
    masks = {r: keep_mask(one, pattern, *comparisons[r], names[r]) for r, one in scores.items()}
    for role, one in scores.items():
        if bool((one < 0).any()):
            raise NumericError(
                f"{names[role]}: has scores below zero, of which no share can be kept; give scores "
                "of zero and above, or remove `permute`"
            )
    natural = {role: _kept_share(scores[role], mask) for role, mask in masks.items()}
    moving = [role for role in scores if regroups(role, comparisons[role], pattern)]
    along = [scores[role] if NEURON_DIM[role] == 0 else scores[role].t() for role in moving]
    order = find_order([one.contiguous() for one in along], pattern)
    back = order.argsort()
    permuted = dict(masks)
    for role in moving:
        dim = NEURON_DIM[role]
        laid = scores[role].index_select(dim, order)
        mask = keep_mask(laid, pattern, *comparisons[role], names[role])
        permuted[role] = mask.index_select(dim, back)
    found = {role: _kept_share(scores[role], mask) for role, mask in permuted.items()}
    if sum(found.values()) <= sum(natural.values()):  # e.g. tiles, of which the search knows rows
        order, permuted, found = torch.arange(len(order)), masks, natural
    kept = {role: (natural[role], found[role]) for role in scores}
    return Regrouped(order.to("cpu", torch.int32), permuted, kept)


def workspace(neurons: int, hidden: int) -> int:
    """Bytes that :func:`regroup` takes at most for a GLU of this size, about."""
    matrix = neurons * hidden
    return 4 * (7 * matrix + 8 * min(CHUNK, matrix))


def _kept_share(scores: Tensor, mask: Tensor) -> float:
    total = float(scores.sum(dtype=torch.float64))
    kept = float(scores.masked_fill(~mask, 0).sum(dtype=torch.float64))
    return kept / total if total else 1.0


def find_order(scores: Sequence[Tensor], pattern: NofM, seed: int = 0) -> Tensor:
    """An order of neurons whose groups of M consecutive ones keep much of the scores.

    In each round groups are dealt at random into cells of about ``CELL`` neurons, and every group
    takes part in at most one exchange with another one of its cell, the best first.

    Args:
        scores: per matrix [neurons, entries], floating, at least 0, neurons a multiple of M; each
            matrix weighs alike.
        pattern: N of M; along both dimensions counts as N of M here.
        seed: of the dealing.

    Returns:
        int64 [neurons], a permutation, on the scores' device.
    """
    device, neurons = scores[0].device, len(scores[0])
    groups = torch.arange(neurons, device=device).reshape(-1, pattern.group)
    per_cell = min(max(CELL // pattern.group, 2), len(groups))
    cells = len(groups) // per_cell
    if per_cell < 2:
        return groups.flatten()
    means = [float(one.mean(dtype=torch.float64)) for one in scores]
    weighed = [(one, 1 / mean) for one, mean in zip(scores, means, strict=True) if mean > 0]
    entries = max(one.shape[1] for one in scores)
    least = SMALLEST * sum(one.shape[1] for one in scores)
    chunk = max(CHUNK // (per_cell * pattern.group * entries), 1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(ROUNDS if weighed else 0):
        dealt = torch.randperm(len(groups), generator=generator)[: cells * per_cell].to(device)
        for some in dealt.reshape(cells, per_cell).split(chunk):
            groups[some] = _exchanged(groups[some], weighed, pattern.kept, least)
    return groups.flatten()


def _exchanged(
    cells: Tensor, scores: Sequence[tuple[Tensor, float]], kept: int, least: float
) -> Tensor:
    """Cells [cells, groups, M] after the best exchanges, each of which gains over ``least``."""
    count, groups, size = cells.shape
    gains = torch.stack([gains_of(cells, one, factor, kept) for one, factor in scores]).sum(0)
    by_groups = gains.view(count, groups, size, groups, size).transpose(2, 3).flatten(3)
    best, place = by_groups.max(3)
    best.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    cells, here = cells.clone(), torch.arange(count, device=cells.device)
    for _ in range(groups // 2):
        gain, pair = best.flatten(1).max(1)
        first, second = pair // groups, pair % groups
        one, other = place[here, first, second] // size, place[here, first, second] % size
        ours, theirs = cells[here, first, one], cells[here, second, other]
        cells[here, first, one] = torch.where(gain > least, theirs, ours)
        cells[here, second, other] = torch.where(gain > least, ours, theirs)
        for taken in (first, second):
            best[here, taken] = -torch.inf
            best[here, :, taken] = -torch.inf
    return cells


def gains_of(cells: Tensor, scores: Tensor, factor: float, kept: int) -> Tensor:
    """What exchanging two neurons adds to what is kept, for any two of different groups of a cell.

    Args:
        cells: int64 [cells, groups, M], neurons.
        scores: [neurons, entries].
        factor: by which to multiply them.
        kept: entries of each group and column that stay.

    Returns:
        float32 [cells, groups · M, groups · M]; of two neurons of one group without meaning.
    """
    count, groups, size = cells.shape
    own = scores[cells.flatten()].float().mul_(factor).view(count * groups, size, -1)
    last, following = (one.unsqueeze(1) for one in _around(own, kept))
    left = torch.where(own >= last, following, last).view(count, groups * size, -1)
    lost = torch.maximum(own, last).sum(2).view(count, -1)
    own = own.view(count, groups * size, -1)
    distances = torch.cdist(left, own, p=1)
    gain = (left.sum(2).unsqueeze(2) + own.sum(2).unsqueeze(1) + distances) / 2 - lost.unsqueeze(2)
    return gain + gain.mT


def _around(members: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The N-th largest and the next of each group and column, of members [groups, M, entries]."""
    rows = list(members.unbind(1))
    for place in range(kept + 1):  # a selection sort, which is elementwise throughout
        for later in range(place + 1, len(rows)):
            high = torch.maximum(rows[place], rows[later])
            rows[later] = torch.minimum(rows[place], rows[later])
            rows[place] = high
    return rows[kept - 1], rows[kept]
