"""How products with many tokens are dealt to a GPU's multiprocessors, and what takes the kernel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dass.packed import linear, many
from dass.packed.bitmap import pack_bitmap
from dass.packed.formats import Groups, Layout, pack, unpack
from dass.packed.linear import PackedGLU, numbers_of, packed_gates, packed_linear
from dass.packed.many import BLOCK_ROWS, MOST_TOKENS, plan_of, stages_of
from dass.packed.product import tensors_of
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import NofM

HOPPER = 132, 232_448
"""Multiprocessors of a H100 or H200, and bytes of shared memory that a block may take."""

SHAPES = [(8, 8), (256, 128), (300, 1000), (4096, 11008), (11008, 4096), (28672, 8192)]


@pytest.mark.parametrize("multiprocessors", [1, 78, 132])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", [4, 8])
@pytest.mark.parametrize("matrices", [1, 2])
def test_a_plan_deals_all_and_leaves_no_worker_without_a_part(
    matrices: int, group: int, shape: tuple[int, int], multiprocessors: int
) -> None:
    layout = Layout(*shape, group, "output")
    for tokens in (17, 32, 33, 64, 65, 96, 97, 128, 129, 192, 193, 1000, 4096):
        plan = plan_of(layout, matrices, tokens, multiprocessors)
        assert 0 <= plan.token_blocks * plan.tokens - tokens < plan.tokens
        assert 0 <= plan.row_blocks * BLOCK_ROWS - layout.rows < BLOCK_ROWS
        tiles = plan.token_blocks * plan.row_blocks * matrices
        assert 1 <= plan.workers <= multiprocessors
        left = tiles - plan.whole
        assert left == 0 or left * layout.chunks >= plan.workers
        assert left <= plan.workers  # a worker has room for the parts of two tiles


def test_a_product_of_few_tiles_is_cut_and_one_of_as_many_as_multiprocessors_is_not() -> None:
    few = plan_of(Layout(4096, 11008, 4, "input"), 1, 64, 132)
    assert (few.whole, few.workers) == (0, 128)  # 16 tiles, each in 8 parts
    fitting = plan_of(Layout(132 * BLOCK_ROWS, 4096, 4, "input"), 1, 64, 132)
    assert (fitting.whole, fitting.workers) == (132, 132)


@pytest.mark.parametrize("group", [4, 8])
@pytest.mark.parametrize("axis", ["input", "output"])
@pytest.mark.parametrize("tokens", [32, 64, 96, 128])
def test_chunks_are_copied_ahead_within_shared_memory(tokens: int, axis, group: int) -> None:
    layout = Layout(11008, 4096, group, axis)
    stages, memory = stages_of(layout, tokens, HOPPER[1])
    packed = BLOCK_ROWS * layout.chunk_columns * 9 // 8
    assert memory >= stages * (packed + 2 * tokens * layout.chunk_columns) + many.TURNING_BYTES
    assert memory + 256 <= HOPPER[1]
    assert stages >= 3


def packed_weight(seed: int, group: int = 4) -> Groups:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(seed)).half()
    mask = keep_mask(weight.float().abs(), NofM(group // 2, group), "row", "output")
    return pack(weight.masked_fill(~mask, 0), mask, group, "output")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Weights, tokens and activation of each product that the kernel took, on a seeming Hopper."""
    found: list[tuple[int, int, int]] = []

    def multiply(weights: list[Groups], x: Tensor, activation: int = 0) -> Tensor:
        found.append((len(weights), len(x), activation))
        return x.new_zeros((len(x), weights[0].layout.rows))

    monkeypatch.setattr(many, "runs_on", lambda device: True)
    monkeypatch.setattr(many, "sound", lambda *kind: True)
    monkeypatch.setattr(many, "multiply", multiply)
    return found


@pytest.mark.parametrize("group", [4, 8])
def test_many_tokens_of_groups_take_the_kernel(
    group: int, taken: list[tuple[int, int, int]]
) -> None:
    gate, up = packed_weight(1, group), packed_weight(2, group)
    most = MOST_TOKENS[group]
    for tokens in (16, 17, most, most + 1):
        x = torch.ones(tokens, 128, dtype=torch.float16)
        packed_linear(tensors_of(gate), numbers_of(gate), x)
        packed_gates(tensors_of(gate), tensors_of(up), numbers_of(gate), 0, x, "gelu")
    assert taken == [(1, 17, 0), (2, 17, 2), (1, most, 0), (2, most, 2)]


@pytest.mark.parametrize(("group", "most"), [(4, 128), (8, 64)])
def test_dense_weights_that_were_kept_are_for_more_tokens_than_pay(
    group: int, most: int, taken: list[tuple[int, int, int]]
) -> None:
    gate, up = packed_weight(1, group), packed_weight(2, group)
    down = pack(torch.zeros(128, 64).half(), torch.zeros(128, 64).bool(), group, "input")
    dense = [torch.zeros(64, 128).half(), torch.zeros(64, 128).half(), torch.zeros(128, 64).half()]
    glu = PackedGLU(gate, up, down, "silu", dense)
    for tokens in (most, most + 1):
        glu(torch.ones(tokens, 128, dtype=torch.float16))
    assert taken == [(2, most, 0), (1, most, 0)]


def test_bitmaps_and_other_devices_do_not(
    taken: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.ones(64, 128, dtype=torch.float16)
    weight = torch.ones(32, 128, dtype=torch.float16)
    bitmap = pack_bitmap(weight, weight != 0)
    assert torch.equal(packed_linear(tensors_of(bitmap), numbers_of(bitmap), x), x @ weight.T)
    monkeypatch.undo()
    groups = packed_weight(1)
    got = packed_linear(tensors_of(groups), numbers_of(groups), x)
    assert torch.equal(got, torch.nn.functional.linear(x, linear.dense_of(groups, torch.float16)))
    assert not taken


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("group", "axis"), [(4, "input"), (4, "output"), (8, "output")])
def test_a_kernel_that_is_compiled_wrongly_is_not_used(
    group: int, axis, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def right(weights: list[Groups], x: Tensor, activation: int = 0) -> Tensor:
        return torch.nn.functional.linear(x, unpack(weights[0], x.dtype))

    def one_wrong(weights: list[Groups], x: Tensor, activation: int = 0) -> Tensor:
        y = right(weights, x)
        y[5, 7] += y.abs().max()
        return y

    monkeypatch.setattr(many, "runs_on", lambda device: True)
    monkeypatch.setattr(many, "multiply", right)
    many.sound.cache_clear()
    assert many.sound(group, axis, dtype, 32, torch.device("cpu"))
    assert not caplog.text
    monkeypatch.setattr(many, "multiply", one_wrong)
    many.sound.cache_clear()
    weight = packed_weight(1, group)
    x = torch.randn(20, 128, generator=torch.Generator().manual_seed(0)).half()
    got = packed_linear(tensors_of(weight), numbers_of(weight), x)
    assert torch.equal(got, torch.nn.functional.linear(x, unpack(weight, torch.float16)))
    assert "is not right as this machine's NVRTC compiles it" in caplog.text
    many.sound.cache_clear()
