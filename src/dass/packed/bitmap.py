"""Packed weights of any mask: a bit for each weight, and the kept values in order.

Tiles, chunks, lanes and codes are those of :mod:`dass.packed.formats`, groups along the input. A
lane's values of a chunk lie one after another in a column of words, two a word; a zero fills up the
last one. Of all columns ``depth`` words lie in rows, as the kernel copies them; the words beyond
them, the *spill*, lie one lane's after another's. At half the weights all takes 58.3 % of the dense
bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dass.packed.formats import (
    LANES,
    WORDS,
    Layout,
    check_packs,
    codes_of,
    from_lanes,
    mask_of,
    nibbles_of,
    nibbles_of_mask,
    settle,
    to_lanes,
)

MOST_WORDS = 64
"""Words that a lane keeps of a chunk, at most."""

DEPTHS = range(0, MOST_WORDS + 1, 4)
"""A warp copies four rows at once."""


@dataclass(frozen=True)
class Bitmap:
    """A packed matrix [rows, columns] of any mask."""

    rows: int
    columns: int
    most: int
    """Words that a lane keeps of a chunk, at most."""
    data: Tensor
    """int32 [tiles, chunks, 4 + depth, 32]: codes, a nibble for each quad and four words a lane;
    then rows of values, a word a lane."""
    spill: Tensor
    """int32 [words]: what a lane keeps beyond ``depth`` words."""
    begins: Tensor
    """int32 [tiles, chunks]: a chunk's first word of the spill."""

    @property
    def layout(self) -> Layout:
        """How the matrix is cut."""
        return Layout(self.rows, self.columns, 8, "input")

    @property
    def depth(self) -> int:
        """Rows of values of each chunk."""
        return self.data.shape[2] - WORDS

    @property
    def codes(self) -> Tensor:
        """int32 [tiles, chunks, 32, 4]."""
        return self.data[:, :, :WORDS].reshape(*self.data.shape[:2], LANES, WORDS)


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
    counts = kept.sum(-1)
    words = (counts + 1) // 2
    depth = depth_of(words)
    columns = weight.new_zeros(kept.shape)
    columns.masked_scatter_(_first(counts, 2 * MOST_WORDS), to_lanes(weight, layout)[kept])
    values = columns.view(torch.int32)
    data = values.new_empty((layout.tiles, layout.chunks, WORDS + depth, LANES))
    data[:, :, :WORDS] = codes_of(nibbles_of_mask(kept)).view_as(data[:, :, :WORDS])
    data[:, :, WORDS:] = values[..., :depth].transpose(2, 3)
    beyond = _first(words - depth, MOST_WORDS - depth)
    through = beyond.sum((2, 3)).flatten().cumsum(0, dtype=torch.int32)
    begins = torch.nn.functional.pad(through, (1, 0))[:-1].view(data.shape[:2])
    spill = values[..., depth:][beyond]
    settle(weight.device)
    return Bitmap(layout.rows, layout.columns, int(words.max()), data, spill, begins)


def unpack_bitmap(packed: Bitmap, dtype: torch.dtype) -> Tensor:
    """The dense weight [out, in] that was packed, on its device."""
    kept, depth = mask_of(nibbles_of(packed.codes)), packed.depth
    counts = kept.sum(-1)
    values = packed.data.new_zeros((*counts.shape, MOST_WORDS))
    values[..., :depth] = packed.data[:, :, WORDS:].transpose(2, 3)
    values[..., depth:][_first((counts + 1) // 2 - depth, MOST_WORDS - depth)] = packed.spill
    lanes = torch.zeros(kept.shape, dtype=dtype, device=kept.device)
    lanes.masked_scatter_(kept, values.view(dtype)[_first(counts, 2 * MOST_WORDS)])
    return from_lanes(lanes, packed.layout)


def _first(counts: Tensor, of: int) -> Tensor:
    """bool [..., of] of [...]: true at so many first places."""
    first: Tensor = torch.arange(of, device=counts.device) < counts.unsqueeze(-1)
    return first


def depth_of(words: Tensor) -> int:
    """How many rows cost least, where a word of the spill costs as much as two in rows.

    Args:
        words: int [tiles, chunks, lanes]: what each keeps.
    """
    lanes = torch.bincount(words.flatten(), minlength=MOST_WORDS + 1).tolist()

    def cost(depth: int) -> int:
        return sum(n * (depth + 2 * max(own - depth, 0)) for own, n in enumerate(lanes))

    return min(DEPTHS, key=cost)
