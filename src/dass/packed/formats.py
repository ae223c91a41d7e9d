"""Packed N:M weights: the kept values and a bit per weight, laid out as the kernels read them.

A matrix is cut into tiles of 32 rows (64 for groups of 8 along the output), a tile into chunks of
4096 weights. Of a chunk each of a warp's 32 lanes owns 128 weights: nine vectors of 16 bytes, one
of codes and eight of kept values, so that a warp reads memory in order. Four weights that follow
one another along the groups are a *quad*; its code is a nibble, the first weight in the lowest bit.
A lane (g = lane // 4, t = lane % 4) owns, in each block of 32 columns, the columns 8t to 8t + 7,
of the rows that :func:`_axes` names. 2:4 takes 9/16 of the dense bytes, 4:8
the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dass.errors import PatternError
from dass.pruning.patterns import Axis

HALF = (torch.float16, torch.bfloat16)

LANES, VECTORS, WORDS = 32, 9, 4

TWO_OF_FOUR = (0b0011, 0b0101, 0b1001, 0b0110, 0b1010, 0b1100)
"""The masks of a quad of 2:4, by the number that is its code."""


@dataclass(frozen=True)
class Layout:
    """How a matrix is packed."""

    rows: int
    columns: int
    group: int
    """M: 4 or 8."""
    axis: Axis
    """Along which dimension the groups lie."""

    @property
    def tile_rows(self) -> int:
        """Rows of a tile."""
        return 64 if (self.axis, self.group) == ("output", 8) else 32

    @property
    def chunk_columns(self) -> int:
        """Columns of a chunk."""
        return 4096 // self.tile_rows

    @property
    def tiles(self) -> int:
        """Tiles of the matrix; rows beyond it are zero."""
        return -(-self.rows // self.tile_rows)

    @property
    def chunks(self) -> int:
        """Chunks of a tile; columns beyond the matrix are zero."""
        return -(-self.columns // self.chunk_columns)

    @property
    def padded(self) -> tuple[int, int]:
        """The shape of all tiles together."""
        return self.tiles * self.tile_rows, self.chunks * self.chunk_columns

    @property
    def packed_shape(self) -> tuple[int, int, int, int, int]:
        """[tiles, chunks, vectors, lanes, words]."""
        return self.tiles, self.chunks, VECTORS, LANES, WORDS


@dataclass(frozen=True)
class Groups:
    """A packed matrix of an N:M mask."""

    layout: Layout
    data: Tensor
    """int32 [tiles, chunks, 9, 32, 4]."""


def pack(weight: Tensor, mask: Tensor, group: int, axis: Axis, name: str = "matrix") -> Groups:
    """Pack a weight; any device.

    Args:
        weight: float16 or bfloat16 [out, in].
        mask: bool [out, in], true where a weight is kept.
        group: M of the mask, 4 or 8; half of it is kept.
        axis: along which dimension the groups lie.
        name: what to call it in an error.

    Raises:
        PatternError: the mask keeps more than half of a group, the groups do not fit the shape, or
            the weight is of another dtype.
    """
    check_packs(weight, mask, name)
    layout = Layout(weight.shape[0], weight.shape[1], group, axis)
    if weight.shape[1 if axis == "input" else 0] % group:
        raise PatternError(
            f"{name}: {list(weight.shape)} does not fit groups of {group} along the {axis}; "
            "pack it as a bitmap"
        )
    numbers = filled(to_lanes(mask, layout), group)
    if numbers is None:
        raise PatternError(
            f"{name}: its mask keeps more than {group // 2} of {group} along the {axis}; "
            "pack it along its own groups, or as a bitmap"
        )
    values = to_lanes(weight.masked_fill(~mask, 0), layout).unflatten(-1, (-1, group))
    chosen = values.gather(-1, _halves(group).to(weight.device)[numbers])
    packed = torch.empty(layout.packed_shape, dtype=torch.int32, device=weight.device)
    packed[:, :, 1:] = chosen.view(torch.int32).view(
        layout.tiles, layout.chunks, LANES, VECTORS - 1, WORDS
    ).transpose(2, 3)  # fmt: skip
    quads = torch.stack([numbers >> shift & 15 for shift in range(0, group, 4)], -1).flatten(-2)
    packed[:, :, 0] = codes_of(_codes(group).to(weight.device)[quads])
    settle(weight.device)
    return Groups(layout, packed)


def settle(device: torch.device) -> None:
    """Wait for what writes weights: the kernels read them before the kernel before them ended."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def filled(kept: Tensor, group: int) -> Tensor | None:
    """Masks that keep half of each group, of one that keeps at most half; None if it keeps more.

    Args:
        kept: bool [..., n], groups one after the other; the first that it does not keep are added.
        group: 4 or 8.

    Returns:
        int64 [..., n / group], a bit for each weight of a group, the first in the lowest.
    """
    numbers = _numbers_of(kept, group)
    counts = torch.tensor([number.bit_count() for number in range(1 << group)])
    if bool((counts > group // 2).to(kept.device)[numbers].any()):
        return None
    full = (1 << _halves(group)).sum(-1)
    return full.to(kept.device)[numbers]


def _halves(group: int) -> Tensor:
    """int64 [masks of a group, group / 2]: the places that are kept, then the first others."""
    places = []
    for number in range(1 << group):
        own = [place for place in range(group) if number >> place & 1]
        others = [place for place in range(group) if place not in own]
        places.append(sorted((own + others)[: group // 2]))
    return torch.tensor(places)


def unpack(weight: Groups, dtype: torch.dtype) -> Tensor:
    """The dense weight [out, in] that was packed, on its device."""
    packed = weight.data
    nibbles = nibbles_of(packed[:, :, 0])
    if weight.layout.group == 4:
        nibbles = torch.tensor(TWO_OF_FOUR, dtype=torch.uint8, device=packed.device)[nibbles.long()]
    kept = mask_of(nibbles)
    lanes = torch.zeros(kept.shape, dtype=dtype, device=packed.device)
    lanes.masked_scatter_(kept, packed[:, :, 1:].transpose(2, 3).contiguous().view(dtype))
    return from_lanes(lanes, weight.layout)


def _codes(group: int) -> Tensor:
    """uint8 [16]: the code of a quad's mask; of 2:4 the number of the mask."""
    codes = torch.arange(16, dtype=torch.uint8)
    if group == 4:
        codes[list(TWO_OF_FOUR)] = torch.arange(6, dtype=torch.uint8)
    return codes


def check_packs(weight: Tensor, mask: Tensor, name: str) -> None:
    """Raise PatternError unless this is a half-precision matrix with a mask of its shape."""
    if weight.dim() != 2 or weight.shape != mask.shape or weight.dtype not in HALF:
        dtype = str(weight.dtype).removeprefix("torch.")
        raise PatternError(
            f"{name}: {dtype} {list(weight.shape)} with a mask {list(mask.shape)} cannot be "
            "packed; a float16 or bfloat16 matrix with a mask of its shape can"
        )


def nibbles_of(codes: Tensor) -> Tensor:
    """uint8 [tiles, chunks, lanes, 32]: the code of each quad, of [tiles, chunks, lanes, 4]."""
    octets = codes.contiguous().view(torch.uint8)
    return torch.stack((octets & 15, octets >> 4), -1).flatten(-2)


def codes_of(nibbles: Tensor) -> Tensor:
    """int32 [..., 4] of uint8 [..., 32], a code for each quad; :func:`nibbles_of` undoes it."""
    return (nibbles[..., ::2] | nibbles[..., 1::2] << 4).contiguous().view(torch.int32)


def nibbles_of_mask(kept: Tensor) -> Tensor:
    """uint8 [..., n / 4] of bool [..., n]: a quad's first weight in the lowest bit."""
    return _numbers_of(kept, 4).to(torch.uint8)


def _numbers_of(kept: Tensor, group: int) -> Tensor:
    """int64 [..., n / group] of bool [..., n]: a bit for each, the first in the lowest."""
    bits = kept.contiguous().view(torch.int32 if group == 4 else torch.int64)  # a byte each
    for shift in (7, 14, 28)[: 2 if group == 4 else 3]:
        bits = bits | bits >> shift
    return (bits & ((1 << group) - 1)).long()


def mask_of(nibbles: Tensor) -> Tensor:
    """bool [..., 4 n] of uint8 [..., n]; :func:`nibbles_of_mask` undoes it."""
    octets = torch.tensor([[number >> place & 1 for place in range(4)] for number in range(16)])
    words = octets.to(torch.uint8).view(torch.int32).squeeze(-1).to(nibbles.device)
    return words[nibbles.long()].view(torch.bool)


def to_lanes(matrix: Tensor, layout: Layout) -> Tensor:
    """[tiles, chunks, lanes, 128] of a matrix, in the order of a lane's memory; zeros beyond it."""
    rows, columns = layout.padded
    padding = (0, columns - layout.columns, 0, rows - layout.rows)
    split, order = _axes(layout)
    padded = torch.nn.functional.pad(matrix, padding)
    return padded.reshape(split).permute(order).flatten(4).flatten(2, 3)


def from_lanes(lanes: Tensor, layout: Layout) -> Tensor:
    """The matrix [out, in] of which :func:`to_lanes` made ``lanes``."""
    split, order = _axes(layout)
    back: list[int] = torch.tensor(order).argsort().tolist()
    full = lanes.reshape([split[axis] for axis in order]).permute(back).reshape(layout.padded)
    return full[: layout.rows, : layout.columns].contiguous()


def _axes(layout: Layout) -> tuple[list[int], list[int]]:
    """How to cut [rows, columns] into axes, and the order in which a lane's memory has them."""
    chunk_blocks = layout.chunk_columns // 32
    if layout.axis == "input":
        # rows: tile, pair, lower, g;  columns: chunk, block, t, place in two quads
        split = [layout.tiles, 2, 2, 8, layout.chunks, chunk_blocks, 4, 8]
        # tile, chunk, g, t, block, pair, lower, place
        return split, [0, 4, 3, 6, 5, 1, 2, 7]
    # rows: tile, g, place in the group;  columns: chunk, block, t, step, column of four
    split = [layout.tiles, 8, layout.group, layout.chunks, chunk_blocks, 4, 2, 4]
    # tile, chunk, g, t, block, step, column of four, place
    return split, [0, 3, 1, 5, 4, 6, 7, 2]
