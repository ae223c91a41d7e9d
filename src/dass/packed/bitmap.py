"""Packed weights of any mask: a bit for each weight, and the kept values in order.

Tiles, chunks, lanes and codes are those of :mod:`dass.packed.formats`, groups along the input. A
lane's values lie one after another in a column of its own of ``values``, two a row, through a
*segment* of several chunks; each segment begins at a row of its own, where all lanes are level
again. The longest column decides how many rows a segment takes: at half the weights about 6 % more
than the values need, together some 60 % of the dense bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dass.packed.formats import (
    LANES,
    Layout,
    check_packs,
    codes_of,
    from_lanes,
    mask_of,
    nibbles_of,
    nibbles_of_mask,
    to_lanes,
)

RING = 64
"""Rows that a warp holds (``bitmap.cu``): the slowest lane keeps the fastest from going on."""

LONGEST_SEGMENT, WARPS = 12, 8


@dataclass(frozen=True)
class Bitmap:
    """A packed matrix [rows, columns] of any mask."""

    rows: int
    columns: int
    segment: int
    """Chunks of a segment; the last one of a tile may have fewer."""
    codes: Tensor
    """int32 [tiles, chunks, 32, 4]: a nibble for each quad."""
    starts: Tensor
    """int32 [tiles × segments + 1]: the first row of each segment in ``values``."""
    values: Tensor
    """int32 [value rows, 32]: two half-precision values a word."""

    @property
    def layout(self) -> Layout:
        """How the matrix is cut."""
        return Layout(self.rows, self.columns, 8, "input")


def pack_bitmap(weight: Tensor, mask: Tensor, name: str = "matrix") -> Bitmap:
    """Pack a weight; any device.

    Args:
        weight: float16 or bfloat16 [out, in].
        mask: bool [out, in], true where a weight is kept.
        name: what to call it in an error.

    Raises:
        PatternError: the weight is of another dtype, or the mask of another shape.
    """
    check_packs(weight, mask, name)
    layout = Layout(weight.shape[0], weight.shape[1], 8, "input")
    kept = to_lanes(mask, layout)
    codes = codes_of(nibbles_of_mask(kept))
    counts = kept.unflatten(-1, (4, 32)).sum(-1, dtype=torch.int32)
    segment = _segment(counts)
    starts = _starts(counts, segment)
    values = weight.new_zeros((int(starts[-1]), LANES, 2))
    halves = to_lanes(weight, layout)
    for tile in range(layout.tiles):  # at once, indices would take many times the matrix
        index = _indices(kept[tile], starts, segment, tile)
        values.view(-1)[index[kept[tile]]] = halves[tile][kept[tile]]
    packed = values.view(torch.int32).reshape(-1, LANES)
    return Bitmap(layout.rows, layout.columns, segment, codes, starts, packed)


def unpack_bitmap(packed: Bitmap, dtype: torch.dtype) -> Tensor:
    """The dense weight [out, in] that was packed, on its device."""
    layout = packed.layout
    kept = mask_of(nibbles_of(packed.codes))
    values = packed.values.view(dtype).reshape(-1)
    lanes = torch.zeros(kept.shape, dtype=dtype, device=values.device)
    for tile in range(layout.tiles):
        index = _indices(kept[tile], packed.starts, packed.segment, tile)
        lanes[tile][kept[tile]] = values[index[kept[tile]]]
    return from_lanes(lanes, layout)


def _segment(counts: Tensor) -> int:
    """The longest segments, a multiple of the warps of them, in which no lane runs ahead too far.

    Args:
        counts: int32 [tiles, chunks, lanes, blocks]: values of each block of 32 columns.
    """
    chunks = counts.shape[1]
    rounds = -(-chunks // (WARPS * LONGEST_SEGMENT))
    segment = -(-chunks // (WARPS * rounds))
    while segment > 1 and not _keeps_pace(counts, segment):
        segment //= 2
    return segment


def _keeps_pace(counts: Tensor, segment: int) -> bool:
    ends = _by_segment(counts, segment).flatten(3, 4).cumsum(3, dtype=torch.int32)
    begins = torch.nn.functional.pad(ends, (1, 0))[..., :-1]
    highest, lowest = (ends.amax(2) + 1) // 2, begins.amin(2) // 2
    return bool((highest <= (lowest + RING) // 4 * 4).all())


def _by_segment(counts: Tensor, segment: int) -> Tensor:
    """[tiles, segments, lanes, chunks of a segment, blocks]."""
    missing = -counts.shape[1] % segment
    padded = torch.nn.functional.pad(counts, (0, 0, 0, 0, 0, missing))
    split: Tensor = padded.unflatten(1, (-1, segment))
    return split.transpose(2, 3)


def _starts(counts: Tensor, segment: int) -> Tensor:
    longest = _by_segment(counts, segment).sum((3, 4)).amax(2).flatten()
    rows = (longest + 7) // 8 * 4  # whole fours: a copy takes four rows
    return torch.nn.functional.pad(rows.cumsum(0), (1, 0)).to(torch.int32)


def _indices(kept: Tensor, starts: Tensor, segment: int, tile: int) -> Tensor:
    """Where each kept weight's value lies among all halves of ``values``.

    Args:
        kept: bool [chunks, lanes, 128] of one tile.
    """
    chunks = len(kept)
    segments = -(-chunks // segment)
    padded = torch.nn.functional.pad(kept, (0, 0, 0, 0, 0, segments * segment - chunks))
    lanes = padded.unflatten(0, (segments, segment)).transpose(1, 2)
    place = lanes.flatten(2).cumsum(2).sub_(1).view(lanes.shape).transpose(1, 2).flatten(0, 1)
    first = starts[tile * segments : (tile + 1) * segments].long().repeat_interleave(segment)
    lane = torch.arange(LANES, device=kept.device)[:, None]
    index = (first[:, None, None] + place // 2) * (2 * LANES) + 2 * lane + place % 2
    found: Tensor = index[:chunks]
    return found
