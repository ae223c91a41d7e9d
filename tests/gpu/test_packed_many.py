"""The kernel for many tokens against float64, whole tiles and cut ones; what takes it."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import silu

from dass.packed import many
from dass.packed.linear import numbers_of as numbers
from dass.packed.linear import packed_gates, packed_linear
from dass.packed.many import MOST_TOKENS, Plan, multiply, planned
from dass.packed.product import tensors_of
from tests.gpu.test_packed import HALF, KINDS, check, packed_weight, poison, tokens_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (torch.cuda.is_available() and many.runs_on(torch.device("cuda"))),
        reason="no GPU of compute capability 9.0 on this machine",
    ),
]

ODD = [(8, 8), (72, 136), (104, 1000), (344, 2056), (40, 24), (688, 4096)]
GROUPS = [kind for kind in KINDS if kind is not None]


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("shape", ODD)
def test_products_at_odd_shapes(shape: tuple[int, int], dtype: torch.dtype, kind) -> None:
    dense, packed = packed_weight(*shape, kind, dtype)
    for count in (17, 33, 64, 96, 100, 257, 1000):
        x = tokens_of(count, shape[1], dtype)
        poison(count, shape[0], dtype)
        got = multiply([packed], x)
        check(got, x.double() @ dense.double().T)
        assert torch.equal(multiply([packed], x), got)


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("workers", [1, 3, 7, 132])
def test_tiles_whole_and_cut(workers: int, dtype: torch.dtype, kind) -> None:
    """Gate and up, whose tiles lie side by side, each cut otherwise than the other."""
    (gate, packed_gate), (up, packed_up) = (
        packed_weight(1000, 4096, kind, dtype, seed) for seed in (1, 2)
    )
    for width in (32, 64, 96, 128):
        count = 2 * width - 3
        x = tokens_of(count, 4096, dtype)
        wide = x.double() @ gate.double().T
        both = silu(wide) * (x.double() @ up.double().T)
        for weights, wanted in (([packed_gate], wide), ([packed_gate, packed_up], both)):
            tiles = 2 * 4 * len(weights)
            fewest = max(0, tiles - workers)  # a worker has room for the parts of two tiles
            for whole in {fewest, max(tiles // 2 - 1, fewest), tiles}:
                poison(count, 1000, dtype)
                plan = Plan(width, 2, 4, whole, workers)
                check(planned(weights, x, 0, plan), wanted)


@pytest.mark.parametrize("kind", GROUPS)
def test_columns_and_rows_that_no_vector_ends_at(kind) -> None:
    group, axis = kind
    shape = (group * 11, 77) if axis == "output" else (77, group * 11)
    dense, packed = packed_weight(*shape, kind, torch.float16)
    x = tokens_of(50, shape[1], torch.float16)
    poison(50, shape[0], torch.float16)
    check(multiply([packed], x), x.double() @ dense.double().T)


@pytest.mark.parametrize("kind", GROUPS)
def test_the_same_bits_in_a_graph(kind) -> None:
    _, packed = packed_weight(688, 4096, kind, torch.float16)
    x = tokens_of(40, 4096, torch.float16)
    first = multiply([packed, packed], x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = [multiply([packed, packed], x) for _ in range(5)]
    for _ in range(3):
        graph.replay()
        assert all(torch.equal(one, first) for one in captured)


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("most", [False, True])
def test_the_operators_take_it(most: bool, kind) -> None:
    count = MOST_TOKENS[kind[0]] if most else 17
    (_, gate), (_, up) = (packed_weight(344, 1000, kind, torch.float16, seed) for seed in (1, 2))
    x = tokens_of(count, 1000, torch.float16)
    both = [tensors_of(gate), tensors_of(up)]
    assert torch.equal(packed_linear(both[0], numbers(gate), x), multiply([gate], x))
    got = packed_gates(*both, numbers(gate), 0, x, "silu")
    assert torch.equal(got, multiply([gate, up], x))


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("width", [32, 64, 96, 128])
def test_it_is_right_as_it_is_compiled_here(width: int, dtype: torch.dtype, kind) -> None:
    assert many.sound(*kind, dtype, width, torch.device("cuda", 0))
