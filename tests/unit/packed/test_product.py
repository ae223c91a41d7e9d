"""How a packed product is cut for a GPU."""

from __future__ import annotations

import pytest
import torch

from dass.packed.bitmap import Bitmap
from dass.packed.formats import Groups, Layout
from dass.packed.product import TABLE_BYTES, Ring, aligned, chunk_bytes, ring_of

SHARED = {"8.0": 166_912, "8.6, 8.9, 12.0": 101_376, "9.0, 10.0": 232_448}
"""Bytes of shared memory that a block may take, by compute capability."""


@pytest.mark.parametrize("shared", SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("tokens", [0, 1, 8, 9, 16])
@pytest.mark.parametrize("matrices", [1, 2])
@pytest.mark.parametrize("group", [4, 8])
@pytest.mark.parametrize("axis", ["input", "output"])
def test_the_ring_fits_every_gpu(axis, group: int, matrices: int, tokens: int, shared: int) -> None:
    weights = [groups(group, axis)] * matrices
    check(ring_of(weights, tokens, shared), weights, tokens, shared)


@pytest.mark.parametrize("shared", SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("tokens", [0, 1, 8, 9, 16])
@pytest.mark.parametrize("matrices", [1, 2])
@pytest.mark.parametrize(("depth", "most"), [(32, 46), (0, 3), (64, 64), (8, 64)])
def test_the_ring_of_bitmaps_fits_every_gpu(
    depth: int, most: int, matrices: int, tokens: int, shared: int
) -> None:
    weights = [bitmap(32, 46), bitmap(depth, most)][-matrices:]
    check(ring_of(weights, tokens, shared), weights, tokens, shared)


def groups(group: int, axis) -> Groups:
    return Groups(Layout(11008, 4096, group, axis), torch.empty(0))


def bitmap(depth: int, most: int) -> Bitmap:
    data = torch.empty(0, 32, 4 + depth, 32)
    return Bitmap(11008, 4096, most, data, torch.empty(0), torch.empty(0))


def check(ring: Ring, weights: list, tokens: int, shared: int) -> None:
    chunk = max(chunk_bytes(weight) for weight in weights)
    sums = weights[0].layout.tile_rows * (8 if tokens <= 8 else 16) * 4
    assert ring.memory == ring.warps * (ring.stages * chunk + sums)
    assert ring.memory + TABLE_BYTES <= shared
    assert ring.warps >= 4  # one for each of a multiprocessor's schedulers
    assert ring.stages >= 2  # one is copied while the other is used
    assert ring.stages % len(weights) == 0


def test_a_hopper_takes_what_was_measured() -> None:
    hopper, weight = SHARED["9.0, 10.0"], groups(4, "output")
    assert ring_of([weight], 1, hopper).warps == 16
    assert ring_of([weight] * 2, 1, hopper).warps == 8
    for matrices in (1, 2):  # 47: of some million random columns the longest
        assert ring_of([bitmap(32, 47)] * matrices, 1, hopper).warps == 16
        assert ring_of([bitmap(32, 47)] * matrices, 16, hopper).warps == 12


def test_a_chunk_has_room_for_the_longest_column() -> None:
    assert chunk_bytes(bitmap(32, 46)) == (4 + 46) * 128
    assert chunk_bytes(bitmap(64, 60)) == (4 + 64) * 128
    assert chunk_bytes(groups(8, "input")) == 9 * 512


def test_tokens_of_a_view_are_brought_to_where_vectors_can_be_read() -> None:
    held = torch.arange(200.0).half()
    odd = held[1:129].view(2, 64)
    assert aligned(odd).data_ptr() % 16 == 0
    assert torch.equal(aligned(odd), odd)
    assert aligned(held[8:136].view(2, 64)).data_ptr() == held[8:].data_ptr()
    assert torch.equal(aligned(odd.T), odd.T)
    assert aligned(odd.T).is_contiguous()
