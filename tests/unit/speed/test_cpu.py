"""Every CPU engine computes what torch's dense product of the masked weight does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dass.errors import ConfigError, DeviceError
from dass.models.shape import Shape
from dass.packed import cpu
from dass.speed.__main__ import main
from dass.speed.cpu import CpuSettings, benchmark, networks, pairs
from dass.speed.engines import (
    OnnxRuntime,
    OpenVINO,
    SparseLinear,
    TorchCSR,
    TorchDense,
    make_engines,
)
from dass.speed.shapes import SHAPES
from dass.speed.timing import TOLERANCE
from dass.terms import DENSE

TINY = SHAPES["tiny"]
GEMMA = Shape(32, 64, 2, 1, 1, head_dim=24, activation="gelu_pytorch_tanh")
"""Heads that are wider than hidden / heads, one shared key-value head, the other activation."""


@pytest.fixture(autouse=True)
def _small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeping the real one takes longer than the tests."""
    monkeypatch.setattr("dass.speed.machine.cache_bytes", lambda: 1 << 16)


def settings(**changes: Any) -> CpuSettings:
    given = {"threads": 1, "tokens": (1, 5), "patterns": ("u50", "2of4"), "repeats": 2, "warmup": 1}
    return CpuSettings(**given | changes)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [TINY, GEMMA], ids=["llama", "gemma"])
@pytest.mark.parametrize("part", ["mlp", "block"])
def test_engines_agree_with_torch_on_masked_weights(
    shape: Shape, part: str, tmp_path: Path
) -> None:
    """At one token and at several."""
    engines = [OnnxRuntime(), TorchCSR()]
    if _has("openvino"):
        engines.append(OpenVINO())
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for network in networks(shape, part, ["u50", "2of4"], tmp_path):
            for tokens in (1, 7):
                x = torch.randn(tokens, shape.hidden, generator=generator)
                wanted = TorchDense(torch.float32).prepare(network, x, 1)()
                for engine in engines:
                    output = torch.as_tensor(engine.prepare(network, x, 1)())
                    torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-4)


def test_the_mlp_is_the_formula(tmp_path: Path) -> None:
    x = torch.randn(3, TINY.hidden)
    with torch.no_grad():
        dense, masked = networks(TINY, "mlp", ["2of4"], tmp_path)
        for network in (dense, masked):
            mlp: Any = network.layer.mlp
            gate, up, down = (
                getattr(mlp, f"{role}_proj").weight for role in ("gate", "up", "down")
            )
            wanted = (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T
            output = TorchDense(torch.float32).prepare(network, x, 1)()
            torch.testing.assert_close(output, wanted)
    groups = (masked.layer.mlp.gate_proj.weight != 0).reshape(TINY.intermediate, -1, 4).sum(2)
    assert (groups == 2).all()
    assert (dense.layer.mlp.gate_proj.weight != 0).all()  # masking left the dense one alone


def test_a_sparse_layer_keeps_shapes_and_values() -> None:
    weight = torch.tensor([[1.0, 0, 2], [0, 0, 3]])
    layer = SparseLinear(weight)
    for x in (torch.randn(1, 3), torch.randn(4, 3), torch.randn(2, 4, 3)):
        torch.testing.assert_close(layer(x), x @ weight.T)


def test_dense_engines_get_dense_weights_and_sparse_ones_the_masked() -> None:
    variants: list[Any] = [type("N", (), {"variant": v})() for v in (DENSE, "u50", "2of4")]
    found = {
        (engine.name, engine.dtype, network.variant)
        for engine, network in pairs(make_engines(["openvino"]), variants)
    }
    assert found == {
        ("torch", "float32", DENSE), ("torch", "bfloat16", DENSE),
        ("onnxruntime", "float32", DENSE), ("torch CSR", "float32", "u50"),
        ("torch CSR", "float32", "2of4"), ("packed", "bfloat16", "2of4"),
        ("openvino", "float32", DENSE), ("openvino", "float32", "u50"),
        ("openvino", "float32", "2of4"),
    }  # fmt: skip


@pytest.mark.slow
def test_everything_is_measured_and_checked() -> None:
    outcome = benchmark(TINY, settings(parts=("mlp", "block")))
    found = {(m.part, m.engine, m.dtype, m.variant, m.tokens) for m in outcome.measurements}
    dense = [("torch", "float32"), ("torch", "bfloat16"), ("onnxruntime", "float32")]
    wanted = {(p, *e, DENSE, t) for p in ("mlp", "block") for e in dense for t in (1, 5)}
    wanted |= {
        (p, "torch CSR", "float32", v, t)
        for p in ("mlp", "block")
        for v in ("u50", "2of4")
        for t in (1, 5)
    }
    packs = cpu.kernel() is not None
    wanted |= {
        (p, "packed", "bfloat16", "2of4", t) for p in ("mlp", "block") for t in (1, 5) if packs
    }
    assert found == wanted
    assert bool(outcome.skipped) != packs
    for one in outcome.measurements:
        assert one.error is not None and one.error < TOLERANCE[one.dtype]
        assert len(one.seconds) == 2 and min(one.seconds) > 0


def test_an_engine_that_computes_something_else_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = TorchCSR.prepare

    def wrong(self: TorchCSR, network: Any, x: torch.Tensor, threads: int) -> Any:
        return right(self, network, 2 * x, threads)

    monkeypatch.setattr(TorchCSR, "prepare", wrong)
    outcome = benchmark(TINY, settings(parts=("mlp",), tokens=(2,), patterns=("u50",)))
    assert "torch CSR" not in {m.engine for m in outcome.measurements}
    (skipped,) = outcome.skipped
    assert skipped.engine == "torch CSR" and "wrong product" in skipped.reason


def test_packed_weights_are_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_found", lambda: DeviceError("no C compiler 'cc'"))
    outcome = benchmark(TINY, settings(parts=("mlp",), tokens=(1, 2), patterns=("2of4",)))
    assert "packed" not in {m.engine for m in outcome.measurements}
    assert {(one.engine, one.reason) for one in outcome.skipped} == {
        ("packed", "no C compiler 'cc'")
    }


def test_an_unknown_engine_is_an_error() -> None:
    with pytest.raises(ConfigError, match="engine 'fast'"):
        make_engines(["fast"])


def test_the_command_writes_one_file(tmp_path: Path) -> None:
    out = tmp_path / "cpu.json"
    arguments = ["cpu", "--shapes", "tiny", "--tokens", "2", "--patterns", "u50", "--parts", "mlp"]
    arguments += ["--repeats", "2", "--threads", "1", "--out", str(out)]
    assert main(arguments) == 0
    (result,) = json.loads(out.read_text())["results"]
    assert result["kind"] == "cpu" and result["settings"]["threads"] == 1
    assert len(result["measurements"]) == 4


def _has(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None
