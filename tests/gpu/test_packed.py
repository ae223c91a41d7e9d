"""The packed kernels against float64, at the six models' shapes and odd ones; the drop-in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from dass.models.glu import find_glu
from dass.packed import many
from dass.packed.bitmap import pack_bitmap
from dass.packed.formats import pack
from dass.packed.linear import UNPACKED_FROM, packed_gates, packed_linear
from dass.packed.linear import numbers_of as numbers
from dass.packed.model import load_packed, pack_folder, pack_model
from dass.packed.product import ACTIVATIONS, Packed, gated_product, product, tensors_of, unpacked
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import NofM

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

MODELS = [(11008, 4096), (13824, 5120), (28672, 8192), (14336, 4096), (24576, 3072)]
"""Intermediate and hidden size of the six models."""
ODD = [(8, 8), (72, 136), (104, 1000), (344, 2056), (40, 24), (64, 16384)]
"""The last one has a tile or two."""
KINDS = [(4, "input"), (4, "output"), (8, "input"), (8, "output"), None]
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
HALF = list(TOLERANCE)


def packed_weight(rows: int, columns: int, kind, dtype: torch.dtype, seed: int = 0):
    """A pruned weight on the GPU, dense and packed."""
    generator = torch.Generator("cuda").manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, device="cuda").mul_(0.05).to(dtype)
    if kind is None:
        mask = torch.rand(weight.shape, generator=generator, device="cuda") < 0.5
        dense = weight.masked_fill(~mask, 0)
        return dense, pack_bitmap(dense, mask)
    group, axis = kind
    mask = keep_mask(weight.float().abs(), NofM(group // 2, group), "row", axis)
    dense = weight.masked_fill(~mask, 0)
    return dense, pack(dense, mask, group, axis)


def tokens_of(count: int, width: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(count)
    return torch.randn(count, width, generator=generator, device="cuda").to(dtype)


def poison(rows: int, columns: int, dtype: torch.dtype) -> None:
    """Leave NaN where the next output of this size will most likely lie."""
    torch.full((rows, columns), torch.nan, dtype=dtype, device="cuda")


def check(got: Tensor, wanted: Tensor) -> None:
    assert not got.isnan().any()
    error = (got.double() - wanted).abs().max() / wanted.abs().max()
    assert error < TOLERANCE[got.dtype], error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("shape", ODD)
def test_products_at_odd_shapes(shape: tuple[int, int], dtype: torch.dtype, kind) -> None:
    if kind is not None and shape[kind[1] == "input"] % kind[0]:
        pytest.skip("groups do not fit the shape")
    dense, packed = packed_weight(*shape, kind, dtype)
    for count in (1, 2, 4, 5, 8, 9, 15, 16):
        x = tokens_of(count, shape[1], dtype)
        poison(count, shape[0], dtype)
        check(product(packed, x), x.double() @ dense.double().T)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("intermediate", "hidden"), MODELS)
def test_products_at_the_models_shapes(intermediate: int, hidden: int, kind) -> None:
    for rows, columns in ((intermediate, hidden), (hidden, intermediate)):
        dense, packed = packed_weight(rows, columns, kind, torch.float16)
        for count in (1, 16):
            x = tokens_of(count, columns, torch.float16)
            poison(count, rows, torch.float16)
            check(product(packed, x), x.double() @ dense.double().T)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALF)
def test_gated_products(dtype: torch.dtype, kind, activation: str) -> None:
    functions = {
        "silu": torch.nn.functional.silu,
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    }
    (gate, packed_gate), (up, packed_up) = (
        packed_weight(344, 1000, kind, dtype, seed) for seed in (1, 2)
    )
    for count in (1, 5, 16):
        x = tokens_of(count, 1000, dtype)
        poison(count, 344, dtype)
        wanted = functions[activation](x.double() @ gate.double().T) * (x.double() @ up.double().T)
        check(gated_product(packed_gate, packed_up, x, activation), wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 40])
def test_tokens_that_begin_anywhere_in_memory(count: int, kind) -> None:
    dense, packed = packed_weight(344, 1024, kind, torch.float16)
    x = tokens_of(1, count * 1024 + 1, torch.float16).flatten()[1:].view(count, 1024)
    check(packed_linear(tensors_of(packed), numbers(packed), x), x.double() @ dense.double().T)


def test_a_lopsided_bitmap() -> None:
    """Lanes that run far apart: whole rows beside empty ones."""
    mask = torch.ones(64, 4096, dtype=torch.bool, device="cuda")
    mask[::2] = False
    mask[::4, ::3] = True
    weight = torch.randn(64, 4096, device="cuda").half().masked_fill(~mask, 0)
    x = tokens_of(3, 4096, torch.float16)
    check(product(pack_bitmap(weight, mask), x), x.double() @ weight.double().T)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
def test_bitmaps_of_any_share(share: float) -> None:
    generator = torch.Generator("cuda").manual_seed(1)
    mask = torch.rand(344, 2056, generator=generator, device="cuda") < share
    weight = torch.randn(344, 2056, generator=generator, device="cuda").half()
    weight.masked_fill_(~mask, 0)
    packed, x = pack_bitmap(weight, mask), tokens_of(3, 2056, torch.float16)
    assert torch.equal(unpacked(packed, torch.float16), weight)
    wanted = x.double() @ weight.double().T
    assert (product(packed, x).double() - wanted).abs().max() <= 2e-3 * wanted.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_every_time_and_in_a_graph(kind) -> None:
    _, packed = packed_weight(688, 2048, kind, torch.float16)
    x = tokens_of(4, 2048, torch.float16)
    first = product(packed, x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = product(packed, x)
    for _ in range(3):
        graph.replay()
        assert torch.equal(captured, first)
        assert torch.equal(product(packed, x), first)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_in_two_graphs_at_once(kind) -> None:
    """Warps that share a bitmap's tile hand their sums over in memory of the launch's own."""
    _, packed = packed_weight(4160, 4096, kind, torch.float16)
    x = tokens_of(3, 4096, torch.float16)
    wanted = product(packed, x)
    graphs, outputs = [torch.cuda.CUDAGraph() for _ in range(2)], []
    for graph in graphs:
        with torch.cuda.graph(graph):
            outputs.append([product(packed, x) for _ in range(20)])
    streams = [torch.cuda.Stream() for _ in graphs]
    torch.cuda.synchronize()
    for _ in range(10):
        for graph, stream in zip(graphs, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(output, wanted) for some in outputs for output in some)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("shape", [*ODD, (11008, 4096)])
def test_the_dense_weight_comes_back(shape: tuple[int, int], dtype: torch.dtype, kind) -> None:
    if kind is not None and shape[kind[1] == "input"] % kind[0]:
        pytest.skip("groups do not fit the shape")
    dense, packed = packed_weight(*shape, kind, dtype)
    poison(*shape, dtype)
    assert torch.equal(unpacked(packed, dtype), dense)


@pytest.mark.parametrize("kind", KINDS)
def test_very_many_tokens_take_the_unpacked_weight(kind) -> None:
    dense, packed = packed_weight(344, 1000, kind, torch.float16)
    x = tokens_of(max(many.MOST_TOKENS.values()) + 1, 1000, torch.float16)
    wanted = torch.nn.functional.linear(x, dense)
    assert torch.equal(packed_linear(tensors_of(packed), numbers(packed), x), wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [17, 32, UNPACKED_FROM - 1])
def test_more_tokens_than_one_launch_takes(count: int, kind) -> None:
    (gate, packed_gate), (up, packed_up) = (
        packed_weight(344, 1000, kind, torch.float16, seed) for seed in (1, 2)
    )
    x = tokens_of(count, 1000, torch.float16)
    wide, both = x.double() @ gate.double().T, [tensors_of(packed_gate), tensors_of(packed_up)]
    check(packed_linear(both[0], numbers(packed_gate), x), wide)
    got = packed_gates(*both, numbers(packed_gate), numbers(packed_up)[4], x, "silu")
    check(got, torch.nn.functional.silu(wide) * (x.double() @ up.double().T))


def test_compiled_operators() -> None:
    _, packed = packed_weight(344, 1000, (4, "output"), torch.float16)
    arguments = tensors_of(packed), numbers(packed)

    @torch.compile(fullgraph=True)
    def twice(x: Tensor) -> Tensor:
        return packed_gates(arguments[0], arguments[0], arguments[1], 0, x, "silu") + 1

    x = tokens_of(2, 1000, torch.float16)
    wanted = gated_product(packed, packed, x, "silu") + 1
    assert torch.equal(twice(x), wanted)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float16 model, pruned as DaSS lays its groups."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=256, intermediate_size=688, num_hidden_layers=3, num_attention_heads=4,
        vocab_size=512, initializer_range=0.1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).half()
    for block in model.model.layers:
        for projection in find_glu(block, "").projections:
            axis = "input" if projection.role == "down" else "output"
            weight = projection.weight
            weight.masked_fill_(~keep_mask(weight.float().abs(), NofM(2, 4), "row", axis), 0)
    path = tmp_path_factory.mktemp("packed") / "export"
    model.save_pretrained(path)
    return path


def test_a_packed_model_generates_what_the_dense_one_does(export: Path) -> None:
    dense = LlamaForCausalLM.from_pretrained(export, dtype=torch.float16).cuda().eval()
    pack_folder(export, torch.float16)
    prompt = torch.randint(3, 512, (2, 24), generator=torch.Generator().manual_seed(0)).cuda()
    settings = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    wanted = dense.generate(prompt, **settings)
    loaded = load_packed(export, "cuda")
    assert torch.equal(loaded.generate(prompt, **settings), wanted)
    assert pack_model(dense) == {}
    assert torch.equal(dense.generate(prompt, **settings), wanted)
    static = dense.generate(prompt, cache_implementation="static", **settings)
    assert torch.equal(static, wanted)


def test_packed_weights_take_less_memory(export: Path) -> None:
    dense = LlamaForCausalLM.from_pretrained(export, dtype=torch.float16).cuda()
    mlp = dense.model.layers[0].mlp
    before = sum(p.nbytes for p in mlp.parameters())
    pack_model(dense)
    held: dict[str, Tensor] = dict(dense.model.layers[0].mlp.named_buffers())
    after = sum(tensor.nbytes for tensor in held.values())
    padded = (704 / 688) * 2 / 3 + (768 / 688) / 3  # tiles of 32 rows, chunks of 128 columns
    assert after == pytest.approx(before * 9 / 16 * padded)


def test_every_kind_is_a_packed_weight() -> None:
    assert all(isinstance(packed_weight(64, 128, kind, HALF[0])[1], Packed) for kind in KINDS)
