"""Packed weights of any mask: a bit for each weight, and the kept values in order.

Tiles, chunks, lanes and codes are those of :mod:`dass.packed.formats`, groups along the input. A
lane's values lie one after another in a column of its own, two a row, through a *segment* of
several chunks. An *octet*, two quads, takes whole words: where it keeps an odd number, a zero
stands between the two quads' values. A segment's columns are sorted, the longest first, and its
rows have only those *vectors*, of four columns each, that reach so far: at half the weights all
takes 63 % of the dense bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    settle,
    to_lanes,
)

RING, AGAIN = 128, 4
"""Rows that a warp holds (``bitmap.cu``), where the slowest lane keeps the fastest from going on;
and rows that it holds twice."""

LONGEST_SEGMENT, MANY_CHUNKS = 8, 1 << 15
"""Chunks of a segment, at most; half of them in matrices of so many chunks or more: measured."""

AT_ONCE = 1 << 23
"""Weights whose places are found at once; they take some 40 bytes each."""


@dataclass(frozen=True)
class Bitmap:
    """A packed matrix [rows, columns] of any mask."""

    rows: int
    columns: int
    segment: int
    """Chunks of a segment; the last one of a tile may have fewer."""
    codes: Tensor
    """int32 [tiles, chunks, 32, 4]: a nibble for each quad."""
    plan: Tensor
    """int32 [tiles × segments, 16]: where a segment's columns and vectors lie."""
    values: Tensor
    """int32 [vectors, 4]: two half-precision values a word."""

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
    words = _words(kept).sum(-1, dtype=torch.int32)
    segment = segment_of(words)
    plan, vectors = _plan(words, segment)
    values = weight.new_zeros((vectors, 8))
    halves = to_lanes(weight, layout)
    for some, index in _places(kept, plan, segment):
        values.view(-1)[index[kept[some]]] = halves[some][kept[some]]
    codes = codes_of(nibbles_of_mask(kept))
    settle(weight.device)
    return Bitmap(layout.rows, layout.columns, segment, codes, plan, values.view(torch.int32))


def unpack_bitmap(packed: Bitmap, dtype: torch.dtype) -> Tensor:
    """The dense weight [out, in] that was packed, on its device."""
    kept = mask_of(nibbles_of(packed.codes))
    values = packed.values.view(dtype).reshape(-1)
    lanes = torch.zeros(kept.shape, dtype=dtype, device=values.device)
    for some, index in _places(kept, packed.plan, packed.segment):
        lanes[some][kept[some]] = values[index[kept[some]]]
    return from_lanes(lanes, packed.layout)


def segment_of(words: Tensor) -> int:
    """The longest segments in which no lane runs ahead too far.

    Args:
        words: int32 [tiles, chunks, lanes]: of each chunk.
    """
    tiles, chunks = words.shape[:2]
    longest = LONGEST_SEGMENT // 2 if tiles * chunks >= MANY_CHUNKS else LONGEST_SEGMENT
    segment = -(-chunks // -(-chunks // longest))
    while segment > 1 and not _keeps_pace(words, segment):
        segment //= 2
    return segment


def _keeps_pace(words: Tensor, segment: int) -> bool:
    ends = _by_segment(words, segment).cumsum(2, dtype=torch.int32)
    begins = torch.nn.functional.pad(ends, (0, 0, 1, 0))[:, :, :-1]
    return bool((ends.amax(3) <= begins.amin(3) + RING - 3).all())


def _by_segment(chunks: Tensor, segment: int) -> Tensor:
    """[tiles, segments, chunks of a segment, ...] of [tiles, chunks, ...]; zeros beyond them."""
    padding = (0, 0) * (chunks.dim() - 2) + (0, -chunks.shape[1] % segment)
    split: Tensor = torch.nn.functional.pad(chunks, padding).unflatten(1, (-1, segment))
    return split


def _plan(words: Tensor, segment: int) -> tuple[Tensor, int]:
    """What the kernel must know of each segment, and how many vectors all of them take.

    A segment's 64 bytes: where each of its eight columns of vectors ends (int16), its first vector
    (int32), from byte 32 on each lane's column in bytes (uint8).
    """
    lengths = _by_segment(words, segment).sum(2, dtype=torch.int32).flatten(0, 1)
    lengths, order = lengths.sort(dim=1, descending=True, stable=True)
    ends = lengths[:, :: LANES // 8]
    through = ends.sum(1).cumsum(0)
    plan = ends.new_zeros((len(ends), 16))
    plan[:, :4] = ends.to(torch.int16).contiguous().view(torch.int32)
    plan[1:, 4] = through[:-1]
    plan[:, 8:] = (4 * order.argsort(1)).to(torch.uint8).view(torch.int32)
    return plan, int(through[-1])


def _words(kept: Tensor) -> Tensor:
    """uint8 [..., 16] of bool [..., 128]: the words of each octet."""
    words: Tensor = (kept.unflatten(-1, (-1, 8)).sum(-1, dtype=torch.uint8) + 1) // 2
    return words


def _places(kept: Tensor, plan: Tensor, segment: int) -> Iterator[tuple[slice, Tensor]]:
    """Where each kept weight's value lies among all halves of ``values``, of some tiles at a time.

    Args:
        kept: bool [tiles, chunks, lanes, 128].

    Yields:
        The tiles, and int64 [tiles, chunks, lanes, 128].
    """
    tiles, chunks = kept.shape[:2]
    step = max(1, AT_ONCE // kept[0].numel())
    plans = plan.view(tiles, -1, 16)
    for first in range(0, tiles, step):
        some = slice(first, min(first + step, tiles))
        words = _by_segment(_words(kept[some]), segment)  # [tiles, segments, chunks, lanes, 16]
        through = words.transpose(2, 3).flatten(3).cumsum(3, dtype=torch.int32)
        before = through.unflatten(3, words.shape[2::2]).transpose(2, 3) - words
        octets = kept[some].unflatten(-1, (-1, 8))
        rank = octets.cumsum(-1, dtype=torch.int32)
        rank[..., 4:] += rank[..., -1:] % 2
        rank -= 1
        row = (before.flatten(1, 2)[:, :chunks, ..., None] + rank // 2).clamp_(min=0)
        vectors, column = _by_chunk(plans[some], segment, chunks)
        vector = vectors.gather(2, row.flatten(2).long()).view_as(row) + column // 4
        yield some, (vector.long() * 8 + column % 4 * 2 + rank % 2).flatten(-2)


def _by_chunk(plans: Tensor, segment: int, chunks: int) -> tuple[Tensor, Tensor]:
    """For each chunk, what its segment's plan says.

    Args:
        plans: int32 [tiles, segments, 16].

    Returns:
        int32 [tiles, chunks, rows]: vectors of all segments before each row; and
        int32 [tiles, chunks, lanes, 1, 1]: each lane's column, in words.
    """
    ends = plans[..., :4].contiguous().view(torch.int16)
    rows = torch.arange(int(ends.max()) + 1, device=plans.device)[:, None]
    widths = (ends[:, :, None] > rows).sum(-1, dtype=torch.int32)
    before = widths.cumsum(-1, dtype=torch.int32) - widths + plans[..., 4:5]
    columns = plans[..., 8:].contiguous().view(torch.uint8).int() // 4
    by_chunk = [one.repeat_interleave(segment, 1)[:, :chunks] for one in (before, columns)]
    return by_chunk[0], by_chunk[1][..., None, None]
