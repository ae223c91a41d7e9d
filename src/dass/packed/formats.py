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
    kept = to_lanes(mask, layout).unflatten(-1, (-1, layout.group))
    values = to_lanes(weight, layout).unflatten(-1, (-1, layout.group))
    half = layout.group // 2
    if int(kept.sum(-1).max()) > half:
        raise PatternError(
            f"{name}: its mask keeps more than {half} of {layout.group} along the {layout.axis}; "
            "pack it along its own groups, or as a bitmap"
        )
    # Exactly half: where fewer are kept, zeros are kept as well.
    order = (~kept).to(torch.uint8).argsort(dim=-1, stable=True)[..., :half].sort(-1).values
    chosen = values.gather(-1, order).masked_fill(~kept.gather(-1, order), 0)
    full = torch.zeros_like(kept).scatter_(-1, order, True)
    packed = torch.empty(layout.packed_shape, dtype=torch.int32, device=weight.device)
    packed[:, :, 1:] = chosen.contiguous().view(torch.int32).reshape(
        layout.tiles, layout.chunks, LANES, VECTORS - 1, WORDS
    ).transpose(2, 3)  # fmt: skip
    nibbles = nibbles_of_mask(full.flatten(-2))
    packed[:, :, 0] = codes_of(_numbers(weight.device)[nibbles.long()] if group == 4 else nibbles)
    return Groups(layout, packed)


def unpack(weight: Groups, dtype: torch.dtype) -> Tensor:
    """The dense weight [out, in] that was packed, on its device."""
    packed, layout = weight.data, weight.layout
    half = layout.group // 2
    nibbles = nibbles_of(packed[:, :, 0])
    if layout.group == 4:
        nibbles = torch.tensor(TWO_OF_FOUR, dtype=torch.uint8, device=packed.device)[nibbles.long()]
    kept = mask_of(nibbles).unflatten(-1, (-1, layout.group))
    values = packed[:, :, 1:].transpose(2, 3).contiguous().view(dtype)
    values = values.reshape(*kept.shape[:-1], half)
    rank = (kept.cumsum(-1) - 1).clamp_(min=0, max=half - 1)
    return from_lanes(values.gather(-1, rank).masked_fill(~kept, 0).flatten(-2), layout)


def _numbers(device: torch.device) -> Tensor:
    """uint8 [16]: the code of each mask of 2:4."""
    numbers = torch.zeros(16, dtype=torch.uint8)
    numbers[list(TWO_OF_FOUR)] = torch.arange(6, dtype=torch.uint8)
    return numbers.to(device)


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
    quads: Tensor = kept.unflatten(-1, (-1, 4))
    return (quads * _bits(kept.device)).sum(-1, dtype=torch.uint8)


def mask_of(nibbles: Tensor) -> Tensor:
    """bool [..., 4 n] of uint8 [..., n]; :func:`nibbles_of_mask` undoes it."""
    return (nibbles.unsqueeze(-1) & _bits(nibbles.device) != 0).flatten(-2)


def _bits(device: torch.device) -> Tensor:
    return torch.tensor((1, 2, 4, 8), dtype=torch.uint8, device=device)


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
