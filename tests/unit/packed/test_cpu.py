"""Packed products on a CPU, in every instruction set that it has: against float64, and without."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dass.errors import DeviceError
from dass.packed import cpu
from dass.packed.best import pack_pruned
from dass.packed.formats import Groups, pack, unpack
from dass.packed.linear import (
    PackedGLU,
    dense_of,
    for_device,
    numbers_of,
    packed_linear,
    packed_of,
)
from dass.packed.product import tensors_of
from dass.packed.strips import Strips, strips_of, unpack_strips
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import NofM

AXES = ["input", "output"]
SHAPES = [(64, 256), (8, 8), (40, 24), (72, 136), (104, 1000)]


def weight_of(rows: int, columns: int, axis, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator).bfloat16()
    mask = keep_mask(weight.float().abs(), NofM(2, 4), "row", axis)
    return weight.masked_fill(~mask, 0)


def groups_of(weight: Tensor, axis) -> Groups:
    return pack(weight, weight != 0, 4, axis)


def tokens_of(count: int, columns: int) -> Tensor:
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(7)).bfloat16()


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int16), other.view(torch.int16))


def assert_rounded_once(got: Tensor, x: Tensor, weight: Tensor) -> None:
    """Half a unit of bfloat16, and what float32 sums in any order are off."""
    x, weight = x.double(), weight.double()
    wanted = x @ weight.T
    sums = x.shape[1] * 2.0**-23 * (x.abs() @ weight.abs().T)
    assert got.dtype == torch.bfloat16
    assert ((got.double() - wanted).abs() <= 2.0**-8 * wanted.abs() + sums).all()


@pytest.fixture(scope="module", params=list(cpu.FLAGS))
def kernel(request: pytest.FixtureRequest) -> cpu.Kernel:
    """Of each instruction set."""
    try:
        if not cpu._cpu_flags().issuperset(cpu.FLAGS[request.param]):
            pytest.skip(f"a processor without {request.param}")
        return cpu.Kernel(request.param)
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture
def best() -> cpu.Kernel:
    """What the library uses here."""
    found = cpu.kernel()
    if found is None:
        pytest.skip("no kernel for this CPU")
    return found


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that nobody has written holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], cpu.Kernel | None]]:
    """Asks for the kernel as a new process does."""
    cpu._kernel.cache_clear()
    yield cpu.kernel
    monkeypatch.undo()
    cpu._kernel.cache_clear()


@pytest.mark.parametrize("lanes", [8, 32])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("shape", SHAPES)
def test_strips_come_back_as_they_were(shape, axis, lanes: int) -> None:
    weight = weight_of(*shape, axis)
    assert same_bits(unpack_strips(strips_of(groups_of(weight, axis), lanes)), weight)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31), axis=st.sampled_from(AXES), lanes=st.sampled_from([8, 32]),
    share=st.floats(0, 1), rows=st.integers(1, 12), columns=st.integers(1, 30),
)  # fmt: skip
def test_groups_that_keep_fewer_come_back(seed, axis, lanes, share, rows, columns) -> None:
    """Some of them nothing; and a kept -0 stays one."""
    weight = weight_of(4 * rows, 4 * columns, axis, seed)
    generator = torch.Generator().manual_seed(seed)
    kept = (weight != 0) & (torch.rand(weight.shape, generator=generator) < share)
    weight = torch.where(torch.rand(weight.shape, generator=generator) < 0.1, -0.0, weight)
    groups = pack(weight, kept, 4, axis)
    again = unpack_strips(strips_of(groups, lanes))
    assert same_bits(again, unpack(groups, torch.bfloat16))


def test_records_by_hand() -> None:
    """A row of 8 columns keeps places 1 and 3 of the first four, nothing of the second."""
    weight = torch.zeros(4, 8, dtype=torch.bfloat16)
    weight[0, 1], weight[0, 3] = 2.0, 4.0
    (record,) = strips_of(pack(weight, weight != 0, 4, "input"), 32).data[0]
    assert record[:4].view(torch.uint8)[0] == 0b0011_1010  # zeros fill groups up
    assert record[4:].view(torch.bfloat16)[:4].tolist() == [2.0, 4.0, 0.0, 0.0]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tokens", range(1, 10))
def test_products_are_rounded_once(kernel, poisoned, tokens: int, shape, axis) -> None:
    weight, x = weight_of(*shape, axis), tokens_of(tokens, shape[1])
    weight[: shape[0] // 8] = 0  # groups that keep nothing
    got = kernel.product(strips_of(groups_of(weight, axis), kernel.lanes), x)
    assert got.shape == (tokens, shape[0])
    assert_rounded_once(got, x, weight)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_sums_alike(kernel, threads: int) -> None:
    weight, x = weight_of(104, 1000, "output"), tokens_of(5, 1000)
    strips, before = strips_of(groups_of(weight, "output"), kernel.lanes), torch.get_num_threads()
    wanted = kernel.product(strips, x)
    torch.set_num_threads(threads)
    try:
        assert same_bits(kernel.product(strips, x), wanted)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("axis", AXES)
def test_a_cpu_gets_strips_and_the_operator_takes_them(best, axis) -> None:
    weight = weight_of(40, 72, axis)
    strips = for_device(pack_pruned(weight), torch.bfloat16)
    assert isinstance(strips, Strips)
    again = packed_of(tensors_of(strips), numbers_of(strips))
    assert isinstance(again, Strips) and (again.lanes, again.layout) == (best.lanes, strips.layout)
    assert same_bits(dense_of(again, torch.bfloat16), weight)
    for tokens in (1, 3, 256, 257):
        x = tokens_of(tokens, 72)
        got = packed_linear(tensors_of(strips), numbers_of(strips), x)
        assert_rounded_once(got, x, weight)
    arguments = (tensors_of(strips), numbers_of(strips), tokens_of(3, 72))
    torch.library.opcheck(packed_linear, arguments, test_utils=("test_schema", "test_faketensor"))


def test_strips_for_another_processor_are_unpacked() -> None:
    weight, x = weight_of(40, 72, "output"), tokens_of(3, 72)
    found = cpu.kernel()
    strips = strips_of(groups_of(weight, "output"), 8 if found and found.lanes == 32 else 32)
    got = packed_linear(tensors_of(strips), numbers_of(strips), x)
    assert same_bits(got, nn.functional.linear(x, weight))


def test_other_weights_stay_as_they_are() -> None:
    weight = weight_of(64, 128, "input")
    half, eight = pack_pruned(weight.half()), pack(weight, weight != 0, 8, "input")
    assert for_device(half, torch.float16) is half
    assert for_device(eight, torch.bfloat16) is eight


def glu_of(convert: Callable[[Groups], object]) -> PackedGLU:
    weights = (
        weight_of(136, 48, "output"),
        weight_of(136, 48, "output", 1),
        weight_of(48, 136, "input"),
    )
    packed = [convert(pack_pruned(weight)) for weight in weights]
    return PackedGLU(*packed, "silu")


def test_torch_compiles_an_mlp_of_strips(best) -> None:
    mlp, x = glu_of(lambda weight: for_device(weight, torch.bfloat16)), tokens_of(2, 48)
    assert mlp.numbers["gate"][4] == best.lanes
    compiled = torch.compile(mlp, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        wanted = glu_of(lambda weight: weight)(x)
        torch.testing.assert_close(mlp(x), wanted, rtol=0.02, atol=0.02 * float(wanted.abs().max()))
        assert same_bits(compiled(x), mlp(x))


def break_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "broken").write_text("#!/bin/sh\necho 'error: no such\n flag' >&2; exit 1\n")
    (folder / "broken").chmod(0o755)
    monkeypatch.setenv("CC", str(folder / "broken"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda _, patch: patch.setenv("PATH", ""), "no C compiler 'cc'; install one, or set CC"),
        (lambda _, patch: patch.setenv("CC", "nocc -O1"), "no C compiler 'nocc'"),
        (break_compiler, "does not compile the kernel: error: no such flag"),
        (lambda _, patch: patch.setattr(cpu, "_cpu_flags", lambda: {"sse2"}), "no AVX2"),
        (lambda _, patch: patch.setattr(cpu.sys, "platform", "darwin"), "darwin on"),
    ],
)
def test_without_a_kernel_weights_are_unpacked_and_the_reason_is_logged_once(
    spoil, reason: str, fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(cpu, "_cpu_flags", lambda: set(cpu.FLAGS["AVX2"]))
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    spoil(tmp_path, monkeypatch)
    weight, x = weight_of(40, 72, "input"), tokens_of(3, 72)
    with caplog.at_level(logging.INFO, "dass"):
        for _ in range(2):
            groups = for_device(pack_pruned(weight), torch.bfloat16)
            got = packed_linear(tensors_of(groups), numbers_of(groups), x)
    assert isinstance(groups, Groups)
    assert same_bits(got, nn.functional.linear(x, weight))
    (line,) = caplog.messages
    assert reason in line and "\n" not in line


def test_the_compilers_folder_is_gone(fresh, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fresh()
    assert list(tmp_path.iterdir()) == []
