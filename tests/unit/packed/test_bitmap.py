"""Bitmaps: exact round trips, sizes, and what the kernel's rings hold when it reads them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dass.packed import bitmap
from dass.packed.bitmap import LONGEST_SEGMENT, RING, Bitmap, pack_bitmap, segment_of, unpack_bitmap
from dass.packed.formats import LANES, from_lanes

from .test_formats import same_bits, weight_of

GARBAGE = 0x7E00  # a NaN


def pruned(rows: int, columns: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, columns, generator=generator) < share
    return weight_of(rows, columns, seed).masked_fill(~mask, 0), mask


def lopsided() -> tuple[Tensor, Tensor]:
    """Rows that keep everything beside rows that keep nothing: lanes that run far apart."""
    mask = torch.ones(64, 4096, dtype=torch.bool)
    mask[::2] = False
    return weight_of(64, 4096).masked_fill(~mask, 0), mask


def read_by_rings(packed: Bitmap, warps: int, short: int) -> Tensor:
    """The weight as ``bitmap.cu`` reads it: by rings that are overwritten as lanes go on.

    Args:
        short: rows, up to 3, that a copy lags behind, as it takes four at once.
    """
    chunks, segment = packed.layout.chunks, packed.segment
    codes = packed.codes.contiguous().view(torch.uint8)
    ends = packed.plan[:, :4].contiguous().view(torch.int16).tolist()
    columns = (packed.plan[:, 8:].contiguous().view(torch.uint8) // 4).tolist()
    values = packed.values.view(torch.int16).view(-1, 4, 2)
    lanes = torch.zeros(*packed.codes.shape[:3], 128, dtype=torch.int16)
    count = -(-chunks // segment)
    for warp in range(warps):
        units = [len(ends) * (warp + i) // warps for i in range(2)]
        rows = [
            (int(packed.plan[unit, 4]) + sum(min(end, row) for end in ends[unit]), row, ends[unit])
            for unit in range(*units) for row in range(ends[unit][0])
        ]  # fmt: skip
        ring = torch.full((RING, LANES, 2), GARBAGE, dtype=torch.int16)
        place, copied = [0] * LANES, 0
        for unit in range(*units):
            first = unit % count * segment
            for chunk in range(first, min(first + segment, chunks)):
                for vector, row, own in rows[copied : min(place) + RING - short]:
                    reach = sum(end > row for end in own)
                    ring[copied % RING, : 4 * reach] = values[vector : vector + reach].flatten(0, 1)
                    ring[copied % RING, 4 * reach :] = GARBAGE
                    copied += 1
                for lane in range(LANES):
                    column = columns[unit][lane]
                    for octet, code in enumerate(codes[unit // count, chunk, lane].tolist()):
                        counts = (code & 15).bit_count(), (code >> 4).bit_count()
                        end = place[lane] + (sum(counts) + 1) // 2
                        assert end <= copied
                        front = [ring[(place[lane] + i) % RING, column] for i in range(2)]
                        back = [ring[(end - i) % RING, column] for i in (2, 1)]
                        halves = torch.cat(front)[: counts[0]], torch.cat(back)[4 - counts[1] :]
                        kept = [place for place in range(8) if code >> place & 1]
                        if kept:
                            into = 8 * octet + torch.tensor(kept)
                            lanes[unit // count, chunk, lane, into] = torch.cat(halves)
                        place[lane] = end
            place = [max(place)] * LANES
    return from_lanes(lanes.view(torch.float16), packed.layout)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 70), columns=st.integers(1, 300), share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)  # fmt: skip
def test_bitmaps_of_any_mask_come_back(rows: int, columns: int, share: float, seed: int) -> None:
    dense, mask = pruned(rows, columns, share, seed)
    assert same_bits(unpack_bitmap(pack_bitmap(dense, mask), torch.float16), dense)


@settings(max_examples=15, deadline=None)
@given(
    columns=st.integers(1, 1500), share=st.floats(0, 1), uneven=st.booleans(),
    warps=st.integers(1, 3), short=st.sampled_from([0, 3]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_rings_hold_what_is_read(
    columns: int, share: float, uneven: bool, warps: int, short: int, seed: int
) -> None:
    """Rows are there before they are read, and are not overwritten before all lanes read them."""
    dense, mask = pruned(32, columns, share, seed)
    if uneven:
        mask[::3] = False
        mask[1::3] = True
        dense = weight_of(32, columns, seed).masked_fill(~mask, 0)
    packed = pack_bitmap(dense, mask)
    assert same_bits(read_by_rings(packed, warps, short), dense)
    assert same_bits(unpack_bitmap(packed, torch.float16), dense)


def test_a_lopsided_bitmap_comes_back_in_short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, mask = lopsided()
    monkeypatch.setattr(bitmap, "AT_ONCE", 1)  # tile by tile
    packed = pack_bitmap(dense, mask)
    assert packed.segment == 1 < LONGEST_SEGMENT
    assert same_bits(unpack_bitmap(packed, torch.float16), dense)
    assert same_bits(read_by_rings(pack_bitmap(dense[:32], mask[:32]), 2, 3), dense[:32])


def test_an_octet_by_hand() -> None:
    """Three values, then two: a zero between the quads, and the second quad's at the end."""
    weight = torch.tensor([[0.0, 2.0, 3.0, 4.0, 0.0, 6.0, 0.0, 8.0]], dtype=torch.float16)
    packed = pack_bitmap(weight, weight != 0)
    assert packed.codes.view(torch.uint8)[0, 0, 0, 0] == 0b1010_1110
    assert packed.plan[0, :4].contiguous().view(torch.int16).tolist() == [3] + [0] * 7
    column = packed.values.view(torch.float16).view(-1, 4, 2)[:, 0]
    assert column.flatten().tolist() == [2.0, 3.0, 4.0, 0.0, 6.0, 8.0]


def test_a_mask_that_keeps_nothing_takes_no_values() -> None:
    dense, mask = pruned(40, 200, 0.0, 1)
    packed = pack_bitmap(dense, mask)
    assert packed.values.shape == (0, 4)
    assert same_bits(unpack_bitmap(packed, torch.float16), dense)


@pytest.mark.parametrize(("columns", "most"), [(8192, 0.64), (1024, 0.64)])
def test_half_of_the_weights_take_some_63_percent(columns: int, most: float) -> None:
    mask = torch.rand(64, columns, generator=torch.Generator().manual_seed(1)) < 0.5
    packed = pack_bitmap(weight_of(64, columns), mask)
    size = packed.codes.nbytes + packed.plan.nbytes + packed.values.nbytes
    assert 0.625 < size / (2 * mask.numel()) < most


@pytest.mark.parametrize(
    ("tiles", "chunks", "longest", "shorter"), [(2, 64, 8, 2), (2, 6, 6, 3), (512, 64, 4, 2)]
)
def test_segments_are_long_where_lanes_keep_pace(
    tiles: int, chunks: int, longest: int, shorter: int
) -> None:
    words = torch.full((tiles, chunks, LANES), 36, dtype=torch.int32)
    assert segment_of(words) == longest
    words[0, :, 0] = 0  # three chunks on, the others would need 144 rows at once
    assert segment_of(words) == shorter
