"""Bitmaps: exact round trips, sizes, and that the kernel's way of reading finds every value."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dass.packed.bitmap import MOST_WORDS, Bitmap, depth_of, pack_bitmap, unpack_bitmap
from dass.packed.formats import LANES, WORDS, from_lanes

from .test_formats import same_bits, weight_of

GARBAGE = 0x7E00  # a NaN


def pruned(rows: int, columns: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, columns, generator=generator) < share
    return weight_of(rows, columns, seed).masked_fill(~mask, 0), mask


def lopsided(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Rows that keep everything beside rows that keep nothing: lanes of all lengths."""
    mask = torch.ones(rows, columns, dtype=torch.bool)
    mask[::3] = False
    mask[1::3, ::3] = False
    return weight_of(rows, columns).masked_fill(~mask, 0), mask


def read_in_order(packed: Bitmap) -> Tensor:
    """The weight as ``bitmap.cu`` reads it: octets by what lies at their ends."""
    tiles, chunks = packed.data.shape[:2]
    codes = packed.codes.contiguous().view(torch.uint8)
    rows = packed.data[:, :, WORDS:].contiguous().view(torch.int16).unflatten(-1, (LANES, 2))
    spill, begins = packed.spill.view(torch.int16).tolist(), packed.begins.flatten().tolist()
    lanes = torch.zeros(tiles, chunks, LANES, 128, dtype=torch.int16)
    for tile in range(tiles):
        for chunk in range(chunks):
            begin = 2 * begins[tile * chunks + chunk]
            for lane in range(LANES):
                own = codes[tile, chunk, lane].tolist()
                words = (sum(code.bit_count() for code in own) + 1) // 2
                beyond = max(0, words - packed.depth)
                column = rows[tile, chunk, :, lane].flatten().tolist()
                column += spill[begin : begin + 2 * beyond]
                begin += 2 * beyond
                assert words <= packed.most
                lanes[tile, chunk, lane] = torch.tensor(octets_of(column, own), dtype=torch.int16)
    return from_lanes(lanes.view(torch.float16), packed.layout)


def octets_of(column: list[int], codes: list[int]) -> list[int]:
    """The 128 weights of a lane: of each octet quads from its two ends."""
    margin, weights, place = [GARBAGE] * 4, [], 4
    column = margin + column + margin
    for code in codes:
        end = place + code.bit_count()
        front, back = column[place : place + 4], column[end - 4 : end]
        first = [bit for bit in range(4) if code >> bit & 1]
        second = [bit for bit in range(4) if code >> (4 + bit) & 1]
        weights += [front[first.index(bit)] if bit in first else 0 for bit in range(4)]
        late = 4 - len(second)
        weights += [back[late + second.index(bit)] if bit in second else 0 for bit in range(4)]
        place = end
    return weights


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 70), columns=st.integers(1, 300), share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)  # fmt: skip
def test_bitmaps_of_any_mask_come_back(rows: int, columns: int, share: float, seed: int) -> None:
    dense, mask = pruned(rows, columns, share, seed)
    assert same_bits(unpack_bitmap(pack_bitmap(dense, mask), torch.float16), dense)


@settings(max_examples=15, deadline=None)
@given(columns=st.integers(1, 500), share=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_the_kernels_way_of_reading_finds_every_value(
    columns: int, share: float, seed: int
) -> None:
    dense, mask = pruned(40, columns, share, seed)
    assert same_bits(read_in_order(pack_bitmap(dense, mask)), dense)


def test_a_lopsided_bitmap_is_mostly_spill() -> None:
    dense, mask = lopsided(64, 400)
    packed = pack_bitmap(dense, mask)
    assert packed.most > packed.depth
    assert same_bits(read_in_order(packed), dense)
    assert same_bits(unpack_bitmap(packed, torch.float16), dense)


def test_an_octet_by_hand() -> None:
    """Three values, then two, and a zero that fills up the last word; in one of 32 lanes."""
    weight = torch.tensor([[0.0, 2.0, 3.0, 4.0, 0.0, 6.0, 0.0, 8.0]], dtype=torch.float16)
    packed = pack_bitmap(weight, weight != 0)
    assert packed.codes.view(torch.uint8)[0, 0, 0, 0] == 0b1010_1110
    assert (packed.depth, packed.most) == (0, 3)
    assert packed.spill.view(torch.float16).tolist() == [2.0, 3.0, 4.0, 6.0, 8.0, 0.0]


def test_a_mask_that_keeps_nothing_takes_no_values() -> None:
    dense, mask = pruned(40, 200, 0.0, 1)
    packed = pack_bitmap(dense, mask)
    assert (packed.depth, packed.most, packed.spill.numel()) == (0, 0, 0)
    assert same_bits(unpack_bitmap(packed, torch.float16), dense)


def test_a_mask_that_keeps_all_has_no_spill() -> None:
    dense, mask = pruned(64, 256, 1.0, 1)
    packed = pack_bitmap(dense, mask)
    assert (packed.depth, packed.most, packed.spill.numel()) == (MOST_WORDS, MOST_WORDS, 0)
    assert same_bits(unpack_bitmap(packed, torch.float16), dense)


@pytest.mark.parametrize("columns", [8192, 1024])
def test_half_of_the_weights_take_some_58_percent(columns: int) -> None:
    mask = torch.rand(64, columns, generator=torch.Generator().manual_seed(1)) < 0.5
    packed = pack_bitmap(weight_of(64, columns), mask)
    size = packed.data.nbytes + packed.spill.nbytes + packed.begins.nbytes
    assert 0.5625 < size / (2 * mask.numel()) < 0.585


def test_rows_are_as_many_as_half_of_the_lanes_fill() -> None:
    words = torch.tensor([[[31] * 15 + [32] * 6 + [45] * 11]])
    assert depth_of(words) == 32
    words[..., 8:] = 9  # 32 rows would stand empty in most lanes
    assert depth_of(words) == 8
