"""Packed weights: exact round trips, sizes, refusals, and products against float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dass.errors import PatternError
from dass.packed.best import pack_gates, pack_pruned
from dass.packed.bitmap import Bitmap, pack_bitmap
from dass.packed.formats import Groups, pack, unpack
from dass.packed.linear import PackedGLU, dense_of, numbers_of, packed_linear, packed_of
from dass.packed.product import tensors_of
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import NofM

AXES = ["input", "output"]


def weight_of(rows: int, columns: int, seed: int = 0, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)


def masked(weight: Tensor, group: int, axis) -> tuple[Tensor, Tensor]:
    mask = keep_mask(weight.float().abs(), NofM(group // 2, group), "row", axis)
    return weight.masked_fill(~mask, 0), mask


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int16), other.view(torch.int16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("group", [4, 8])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("shape", [(64, 256), (8, 8), (40, 24), (72, 136), (104, 1000)])
def test_groups_come_back_as_they_were(shape, axis, group: int, dtype: torch.dtype) -> None:
    dense, mask = masked(weight_of(*shape, dtype=dtype), group, axis)
    assert same_bits(unpack(pack(dense, mask, group, axis), dtype), dense)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), group=st.sampled_from([4, 8]), axis=st.sampled_from(AXES))
def test_groups_may_keep_fewer_than_half(seed: int, group: int, axis) -> None:
    dense, mask = masked(weight_of(32, 64, seed), group, axis)
    mask &= torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.7
    dense = dense.masked_fill(~mask, 0)
    assert same_bits(unpack(pack(dense, mask, group, axis), torch.float16), dense)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("group", [4, 8])
def test_half_of_each_group_takes_nine_sixteenths(group: int, axis) -> None:
    dense, mask = masked(weight_of(128, 512), group, axis)
    assert pack(dense, mask, group, axis).data.nbytes * 16 == dense.nbytes * 9


def test_codes_by_hand() -> None:
    """One row: 2:4 keeps places 1 and 3 of the first quad, 0 and 1 of the second."""
    weight = torch.tensor([[0.0, 2.0, 0.0, 4.0, 5.0, 6.0, 0.0, 0.0]], dtype=torch.float16)
    packed = pack(weight, weight != 0, 4, "input").data
    codes = packed[0, 0, 0, 0].view(torch.uint8)
    assert codes[0] == 4 + 16 * 0  # the masks' numbers in lexicographic order
    values = packed[0, 0, 1, 0].view(torch.float16)
    assert values[:4].tolist() == [2.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize(
    ("weight", "mask", "group", "axis", "message"),
    [
        (weight_of(8, 8), torch.ones(8, 8, dtype=torch.bool), 4, "input", "keeps more than 2 of 4"),
        (weight_of(8, 8).float(), torch.ones(8, 8) > 0, 4, "input", "float32"),
        (weight_of(8, 6), torch.zeros(8, 6) > 0, 4, "input", "does not fit groups of 4"),
        (weight_of(6, 8), torch.zeros(6, 8) > 0, 4, "output", "does not fit groups of 4"),
        (weight_of(8, 8), torch.zeros(8, 4) > 0, 4, "input", "mask"),
    ],
)
def test_what_does_not_fit_is_refused(weight, mask, group, axis, message: str) -> None:
    with pytest.raises(PatternError, match=message) as caught:
        pack(weight, mask, group, axis, "block 3, down")
    assert str(caught.value).startswith("block 3, down")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("group", [4, 8])
@pytest.mark.parametrize("axis", AXES)
def test_the_groups_of_a_pruned_weight_are_found(axis, group: int) -> None:
    dense, _ = masked(weight_of(64, 128), group, axis)
    packed = pack_pruned(dense)
    assert isinstance(packed, Groups)
    assert (packed.layout.group, packed.layout.axis) == (group, axis)


def test_groups_along_both_dimensions_are_packed_along_either() -> None:
    """Of 2:4 in every row and column of 4 by 4 tiles; Wᵀ, too, as a backward pass reads it."""
    weight = weight_of(64, 128)
    mask = keep_mask(weight.float().abs(), NofM(2, 4, both=True), "row", "input")
    dense = weight.masked_fill(~mask, 0)
    for matrix in (dense, dense.t().contiguous()):
        assert isinstance(pack_pruned(matrix), Groups)
        for axis in AXES:
            assert same_bits(unpack(pack(matrix, matrix != 0, 4, axis), torch.float16), matrix)


def test_any_other_mask_is_a_bitmap_only_if_asked_for() -> None:
    weight = weight_of(64, 128).masked_fill(weight_of(64, 128, seed=3) > 0, 0)
    with pytest.raises(PatternError, match=r"its zeros \(5\d\.\d%\) are neither 2:4 nor 4:8"):
        pack_pruned(weight)
    assert isinstance(pack_pruned(weight, bitmap=True), Bitmap)


@pytest.mark.parametrize("kind", ["2of4 input", "2of4 output", "4of8 input", "bitmap"])
def test_a_packed_mlp_is_the_dense_one(kind: str) -> None:
    generator = torch.Generator().manual_seed(5)
    hidden, inner = 48, 136
    shapes = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
    dense: dict[str, Tensor] = {}
    for number, (role, shape) in enumerate(shapes.items()):
        weight = weight_of(*shape, seed=number)
        if kind == "bitmap":
            mask = torch.rand(shape, generator=generator) < 0.5
            dense[role] = weight.masked_fill(~mask, 0)
        else:
            axis = "input" if role == "down" else kind.split()[1]
            dense[role], _ = masked(weight, int(kind[3]), axis)
    bitmap = kind == "bitmap"
    gate, up = pack_gates(dense["gate"], dense["up"], "mlp", bitmap)
    mlp = PackedGLU(gate, up, pack_pruned(dense["down"], bitmap=bitmap), "silu")
    x = weight_of(1, 3 * hidden, seed=9).view(1, 3, hidden)
    wide = {role: weight.double() for role, weight in dense.items()}
    inner_states = torch.nn.functional.silu(x.double() @ wide["gate"].T) * (
        x.double() @ wide["up"].T
    )
    wanted = inner_states @ wide["down"].T
    got = mlp(x)
    assert got.shape == x.shape
    assert (got.double() - wanted).abs().max() < 4e-3 * wanted.abs().max()


@pytest.mark.parametrize("bitmap", [False, True])
def test_tensors_and_numbers_are_all_of_a_packed_weight(bitmap: bool) -> None:
    dense, mask = masked(weight_of(40, 72), 4, "output")
    packed = pack_bitmap(dense, mask) if bitmap else pack(dense, mask, 4, "output")
    again = packed_of(tensors_of(packed), numbers_of(packed))
    assert same_bits(dense_of(again, torch.float16), dense)


def test_the_operators_pass_torchs_own_checks() -> None:
    dense, mask = masked(weight_of(32, 64), 4, "output")
    packed = pack(dense, mask, 4, "output")
    arguments = (tensors_of(packed), numbers_of(packed), weight_of(3, 64, seed=2))
    torch.library.opcheck(packed_linear, arguments, test_utils=("test_schema", "test_faketensor"))
