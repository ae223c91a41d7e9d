"""How a packed product is cut for a GPU."""

from __future__ import annotations

import pytest
import torch

from dass.packed.bitmap import AGAIN, RING
from dass.packed.formats import Layout
from dass.packed.product import CHUNK_BYTES, TABLE_BYTES, aligned, bitmap_ring, ring_of

SHARED = {"8.0": 166_912, "8.6, 8.9, 12.0": 101_376, "9.0, 10.0": 232_448}
"""Bytes of shared memory that a block may take, by compute capability."""


@pytest.mark.parametrize("shared", SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("tokens", [0, 1, 8, 9, 16])
@pytest.mark.parametrize("matrices", [1, 2])
@pytest.mark.parametrize("group", [4, 8])
@pytest.mark.parametrize("axis", ["input", "output"])
def test_the_ring_fits_every_gpu(axis, group: int, matrices: int, tokens: int, shared: int) -> None:
    layout = Layout(11008, 4096, group, axis)
    ring = ring_of(layout, matrices, tokens, shared)
    sums = layout.tile_rows * (8 if tokens <= 8 else 16) * matrices * 4
    assert ring.memory == ring.warps * (ring.stages * CHUNK_BYTES + sums)
    assert ring.memory + TABLE_BYTES <= shared
    assert ring.warps >= 4  # one for each of a multiprocessor's schedulers
    assert ring.stages >= matrices
    assert ring.stages % matrices == 0


def test_a_hopper_takes_what_was_measured() -> None:
    layout = Layout(11008, 4096, 4, "output")
    assert ring_of(layout, 1, 1, SHARED["9.0, 10.0"]).warps == 16
    assert ring_of(layout, 2, 1, SHARED["9.0, 10.0"]).stages == 4


@pytest.mark.parametrize("shared", SHARED.values(), ids=SHARED)
def test_the_rings_of_bitmaps_fit_every_gpu(shared: int) -> None:
    ring = bitmap_ring(shared)
    assert ring.memory == ring.warps * (RING + AGAIN) * 128
    assert ring.memory + TABLE_BYTES <= shared
    assert ring.warps >= 4


def test_tokens_of_a_view_are_brought_to_where_vectors_can_be_read() -> None:
    held = torch.arange(200.0).half()
    odd = held[1:129].view(2, 64)
    assert aligned(odd).data_ptr() % 16 == 0
    assert torch.equal(aligned(odd), odd)
    assert aligned(held[8:136].view(2, 64)).data_ptr() == held[8:].data_ptr()
    assert torch.equal(aligned(odd.T), odd.T)
    assert aligned(odd.T).is_contiguous()
