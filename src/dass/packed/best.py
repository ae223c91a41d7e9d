"""Which packed format a pruned weight fits."""

from __future__ import annotations

import torch
from torch import Tensor

from dass.errors import PatternError
from dass.packed.bitmap import pack_bitmap
from dass.packed.formats import Groups, check_packs, pack
from dass.packed.product import Packed
from dass.pruning.patterns import Axis

GROUPINGS: tuple[tuple[int, Axis], ...] = ((4, "output"), (4, "input"), (8, "output"), (8, "input"))


def pack_pruned(weight: Tensor, name: str = "matrix", bitmap: bool = False) -> Packed:
    """Pack a pruned weight by its zeros: as 2:4 or 4:8 along either axis.

    Args:
        weight: float16 or bfloat16 [out, in], zero where it is pruned.
        name: what to call it in an error.
        bitmap: pack it as a bitmap if it fits no groups; faster for a few tokens only.

    Raises:
        PatternError: it fits no groups; or the dtype is another.
    """
    mask = weight != 0
    check_packs(weight, mask, name)
    for group, axis in GROUPINGS:
        if _fits(mask, group, axis):
            return pack(weight, mask, group, axis, name)
    if bitmap:
        return pack_bitmap(weight, mask, name)
    zeros = 1 - int(mask.count_nonzero()) / mask.numel()
    raise PatternError(
        f"{name}: its zeros ({zeros:.1%}) are neither 2:4 nor 4:8, along neither axis; "
        "pack it as a bitmap, which saves memory"
    )


def pack_gates(gate: Tensor, up: Tensor, name: str, bitmap: bool) -> tuple[Packed, Packed]:
    """Pack gate and up alike, as one launch needs them.

    Raises:
        PatternError: as :func:`pack_pruned`.
    """
    first = pack_pruned(gate, f"{name}, gate", bitmap)
    if isinstance(first, Groups):
        group, axis = first.layout.group, first.layout.axis
        return first, pack(up, up != 0, group, axis, f"{name}, up")
    return first, pack_bitmap(up, up != 0, f"{name}, up")


def _fits(mask: Tensor, group: int, axis: Axis) -> bool:
    size = mask.shape[1 if axis == "input" else 0]
    if size % group:
        return False
    if axis == "input":
        counts = mask.unflatten(1, (-1, group)).sum(2, dtype=torch.uint8)
    else:
        counts = mask.unflatten(0, (-1, group)).sum(1, dtype=torch.uint8)
    return int(counts.max()) <= group // 2
