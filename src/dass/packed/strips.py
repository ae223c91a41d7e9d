"""Packed 2:4 weights in bfloat16, laid out as a CPU reads them: ``cpu.c``.

A strip is one row, or the four rows whose groups lie along the output. Its weights in order are its
*lanes*: the columns of a row; or of each few columns the first row's, then the second's and so on.
A record holds 32 lanes of four strips, strip after strip: a bit per lane, then the kept half. The
bytes are those of :mod:`dass.packed.formats`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dass.packed.formats import (
    Groups,
    Layout,
    codes_of,
    filled,
    mask_of,
    nibbles_of,
    nibbles_of_mask,
    unpack,
)

STRIPS, LANES, WORDS = 4, 32, 36
"""Of a record: strips, lanes of each, int32 words, the first four of which are bits."""


@dataclass(frozen=True)
class Strips:
    """A packed matrix of a 2:4 mask, bfloat16."""

    layout: Layout
    lanes: int
    """How many the processor takes at a time: 8 or 32."""
    data: Tensor
    """int32 [fours of strips, records, 36]."""

    @property
    def strip_rows(self) -> int:
        """Rows of a strip."""
        return 1 if self.layout.axis == "input" else 4

    @property
    def padded(self) -> tuple[int, int]:
        """The shape of all records together; rows and columns beyond the matrix are zero."""
        fours, records, _ = self.data.shape
        return fours * STRIPS * self.strip_rows, records * LANES // self.strip_rows


def strips_of(weight: Groups, lanes: int) -> Strips:
    """The same weight for CPUs.

    Args:
        weight: 2:4 in bfloat16, any device.
        lanes: that the processor takes at a time.
    """
    layout = weight.layout
    rows = 1 if layout.axis == "input" else 4
    padding = (0, -layout.columns % (LANES // rows), 0, -layout.rows % (STRIPS * rows))
    dense = torch.nn.functional.pad(unpack(weight, torch.bfloat16), padding)
    # Steps of a strip: its rows, then columns.
    split = dense.unflatten(1, (-1, LANES // lanes, lanes // rows)).unflatten(0, (-1, STRIPS, rows))
    values = split.permute(0, 3, 1, 4, 2, 5).contiguous()  # four, record, strip, step, row, column
    kept = values.view(torch.int16) != 0  # by its bits: -0 is kept as well
    groups = kept.transpose(-1, -2) if rows == 4 else kept
    numbers = filled(groups.flatten(-2), 4)
    assert numbers is not None  # it was packed as 2:4
    full = mask_of(numbers).view(groups.shape)
    kept = full.transpose(-1, -2) if rows == 4 else full
    words = values.masked_select(kept).view(torch.int32).view(*kept.shape[:2], -1)
    bits = codes_of(nibbles_of_mask(kept.flatten(2)))
    return Strips(layout, lanes, torch.cat((bits, words), -1))


def unpack_strips(weight: Strips) -> Tensor:
    """The dense weight [out, in], bfloat16, on its device."""
    rows, layout = weight.strip_rows, weight.layout
    kept = mask_of(nibbles_of(weight.data[..., :4]))
    values = weight.data[..., 4:].contiguous().view(torch.bfloat16)
    lanes = torch.zeros(kept.shape, dtype=torch.bfloat16, device=kept.device)
    lanes.masked_scatter_(kept, values)
    steps = lanes.unflatten(2, (STRIPS, LANES // weight.lanes, rows, -1))
    dense: Tensor = steps.permute(0, 2, 4, 1, 3, 5).reshape(weight.padded)
    return dense[: layout.rows, : layout.columns].contiguous()
