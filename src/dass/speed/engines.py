"""The engines that a CPU benchmark compares: each prepares a network and says how to run it.

torch (dense float32 and bfloat16, and CSR) and onnxruntime (dense) are always measured; OpenVINO
is an option.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dass.errors import ConfigError
from dass.models.shape import Shape
from dass.speed.onnx_graph import INPUT, OUTPUT, StoredWeights, store_weights, write_graph
from dass.terms import DENSE, ROLES


@dataclass
class Network:
    """One MLP or decoder block, dense or masked, for all engines."""

    part: str
    """``mlp`` or ``block``."""
    shape: Shape
    variant: str
    """``dense`` or a pattern."""
    layer: nn.Module
    """A decoder block whose ``mlp`` holds this variant's weights, float32."""
    rotary: nn.Module
    folder: Path
    """For files that an engine reads; the caller removes it."""
    _stored: StoredWeights | None = field(default=None, repr=False)
    _csr: nn.Module | None = field(default=None, repr=False)

    def onnx(self, tokens: int) -> Path:
        """The network as an ONNX file for so many tokens; its weights are written once."""
        if self._stored is None:
            names = {name.removesuffix(".weight"): p for name, p in self.layer.named_parameters()}
            used = {n: p.numpy() for n, p in names.items() if self.part in ("block", n[:3])}
            self._stored = store_weights(self.folder, used)
        return write_graph(self._stored, self.part, self.shape, tokens)

    def csr(self) -> nn.Module:
        """The layer with its MLP's matrices in CSR; converted once, which takes a while."""
        if self._csr is None:
            mlp: Any = shallow(self.layer.mlp)
            for role in ROLES:
                weight = getattr(mlp, f"{role}_proj").weight.data
                setattr(mlp, f"{role}_proj", SparseLinear(weight))
            layer: Any = shallow(self.layer)
            layer.mlp = mlp
            self._csr = layer
        return self._csr


@dataclass(frozen=True)
class Prepared:
    """A network that an engine is ready to run."""

    output: Callable[[], np.ndarray[Any, Any]]
    """[tokens, hidden], float32: to be checked once."""
    seconds: Callable[[], float]
    """Runs it once."""


class Engine(Protocol):
    """What the benchmark asks of an engine."""

    name: str
    dtype: str
    runs: str
    """``dense``: gains nothing from zeros; ``sparse``: made for them; ``both``."""

    def prepare(self, network: Network, x: Tensor, threads: int) -> Prepared:
        """Make a network ready for an input [tokens, hidden]; an exception skips the engine."""


def timed(call: Callable[[], Any]) -> Callable[[], float]:
    """The call, returning its seconds."""

    def run() -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    return run


# --- torch --------------------------------------------------------------------------------------


class SparseLinear(nn.Module):
    """A linear layer whose weight is stored in CSR with 32-bit indices, as MKL takes it."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls CSR a beta, once
            csr = weight.to_sparse_csr()
            rows, columns = csr.crow_indices().int(), csr.col_indices().int()
            self.weight = torch.sparse_csr_tensor(
                rows, columns, csr.values(), weight.shape, check_invariants=False
            )

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        flat = x.flatten(0, -2)
        if len(flat) == 1:
            return torch.mv(self.weight, flat[0]).view(*x.shape[:-1], -1)
        output: Tensor = (self.weight @ flat.t()).t().unflatten(0, x.shape[:-1])
        return output


def _torch_call(
    network: Network, layer: nn.Module, x: Tensor, dtype: torch.dtype
) -> Callable[[], Tensor]:
    """One run of a layer, or of its MLP alone."""
    x = x.to(dtype)
    if network.part == "mlp":
        mlp: Any = layer.mlp
        return lambda: mlp(x)
    positions = torch.arange(len(x)).unsqueeze(0)
    rotary = network.rotary(x.unsqueeze(0), positions)
    return lambda: layer(x.unsqueeze(0), position_embeddings=rotary, attention_mask=None)[0]


def _prepared(call: Callable[[], Tensor]) -> Prepared:
    return Prepared(lambda: call().float().contiguous().numpy(), timed(call))


class TorchDense:
    """torch's own matrix products."""

    name = "torch"
    runs = "dense"

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = str(dtype).removeprefix("torch.")
        self._dtype = dtype

    def prepare(self, network: Network, x: Tensor, threads: int) -> Prepared:
        """The block in this dtype."""
        layer: Any = network.layer
        if self._dtype != torch.float32 and network.part == "mlp":
            layer = shallow(layer)
            layer.mlp = copy.deepcopy(layer.mlp).to(self._dtype)
        elif self._dtype != torch.float32:
            layer = copy.deepcopy(layer).to(self._dtype)
        return _prepared(_torch_call(network, layer, x, self._dtype))


class TorchCSR:
    """torch's sparse matrices, which MKL multiplies on Intel and AMD processors."""

    name = "torch CSR"
    dtype = "float32"
    runs = "sparse"

    def prepare(self, network: Network, x: Tensor, threads: int) -> Prepared:
        """The block with its MLP's matrices in CSR."""
        return _prepared(_torch_call(network, network.csr(), x, torch.float32))


def shallow(module: Any) -> Any:
    """A module of its own with the same children, which may then be exchanged."""
    own = copy.copy(module)
    own._modules = dict(module._modules)
    return own


# --- Engines that read ONNX ---------------------------------------------------------------------


def _as_input(network: Network, x: Tensor) -> np.ndarray[Any, Any]:
    """What the graph takes: a block wants its tokens as one sequence."""
    return (x if network.part == "mlp" else x.unsqueeze(0)).numpy()


class OnnxRuntime:
    """onnxruntime: a good dense baseline; it has no sparse kernels."""

    name = "onnxruntime"
    dtype = "float32"
    runs = "dense"

    def prepare(self, network: Network, x: Tensor, threads: int) -> Prepared:
        """A session whose threads sleep between calls, as the others' do."""
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError("onnxruntime is not installed; pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = str(network.onnx(len(x)))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = {INPUT: _as_input(network, x)}
        return Prepared(
            lambda: np.asarray(session.run([OUTPUT], inputs)[0]).reshape(x.shape),
            timed(lambda: session.run([OUTPUT], inputs)),
        )


class OpenVINO:
    """OpenVINO in float32; for masked weights with its property for sparse weights."""

    name = "openvino"
    dtype = "float32"
    runs = "both"

    def prepare(self, network: Network, x: Tensor, threads: int) -> Prepared:
        """A compiled model and its request."""
        try:
            import openvino
            from openvino import properties
        except ImportError:
            raise ConfigError("openvino is not installed; pip install openvino") from None
        settings = {
            properties.inference_num_threads(): threads,
            properties.hint.inference_precision(): openvino.Type.f32,
            properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
        }
        if network.variant != DENSE:
            rate = properties.intel_cpu.sparse_weights_decompression_rate()
            settings[rate] = 0.5  # matrices with at least so many zeros are stored compressed
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(str(network.onnx(len(x)))), "CPU", settings)
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(_as_input(network, x)))

        def output() -> np.ndarray[Any, Any]:
            request.infer()
            return np.array(request.get_output_tensor().data).reshape(x.shape)

        return Prepared(output, timed(request.infer))


def make_engines(options: Sequence[str]) -> list[Engine]:
    """The engines that are always measured, then the options (``openvino``).

    Raises:
        ConfigError: an engine is unknown.
    """
    engines: list[Engine] = [
        TorchDense(torch.float32), TorchDense(torch.bfloat16), OnnxRuntime(), TorchCSR(),
    ]  # fmt: skip
    for name in options:
        if name != "openvino":
            raise ConfigError(f"no engine {name!r}; the one option is openvino")
        engines.append(OpenVINO())
    return engines
