"""The engines that a CPU benchmark compares: each prepares a network and says how to run it.

torch (dense float32 and bfloat16, and CSR), onnxruntime (dense) and packed 2:4 weights are always
measured; OpenVINO is an option.
"""

import copy
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dass.errors import ConfigError
from dass.packed.cpu import check_kernel
from dass.packed.model import packed_mlp
from dass.terms import DENSE, ROLES

# The exporter says for each model that torchvision is not installed.
logging.getLogger("torch.onnx").setLevel(logging.ERROR)


class Block(nn.Module):
    """A decoder block on one sequence, causal; nothing is cached."""

    def __init__(self, layer: nn.Module, rotary: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.layer, self.rotary = layer, rotary

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, hidden] -> [tokens, hidden]."""
        output: Tensor = self.layer(
            x.unsqueeze(0), position_embeddings=self.rotary, attention_mask=None
        )
        return output[0]


@dataclass(frozen=True)
class Network:
    """One MLP or decoder block, dense or masked, for all engines."""

    part: str
    """``mlp`` or ``block``."""
    variant: str
    """``dense`` or a pattern."""
    layer: Any
    """A decoder block whose ``mlp`` holds this variant's weights, float32."""
    rotary: nn.Module
    folder: Path
    """For files that an engine reads; the caller removes it."""

    def module(self, layer: Any, x: Tensor) -> nn.Module:
        """What is measured of a layer, on an input like x [tokens, hidden]."""
        if self.part == "mlp":
            return layer.mlp  # type: ignore[no-any-return]
        positions = torch.arange(len(x)).unsqueeze(0)
        return Block(layer, self.rotary(x.unsqueeze(0), positions)).eval()

    def onnx(self, x: Tensor) -> Path:
        """The network as an ONNX file for inputs like x: some engines compile for a shape."""
        path = self.folder / f"{len(x)}.onnx"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what the exporter itself uses
                torch.onnx.export(self.module(self.layer, x), (x,), path, external_data=True,
                                  verbose=False)  # fmt: skip
        return path

    @cached_property
    def csr(self) -> Any:
        """The layer with its MLP's matrices in CSR; converted once, which takes a while."""
        layer = shallow(self.layer)
        layer.mlp = shallow(self.layer.mlp)
        for role in ROLES:
            name = f"{role}_proj"
            setattr(layer.mlp, name, SparseLinear(getattr(layer.mlp, name).weight.data))
        return layer

    @cached_property
    def packed(self) -> Any:
        """The layer in bfloat16 with its MLP on packed weights."""
        layer = copy.deepcopy(self.layer).to(torch.bfloat16)
        layer.mlp = packed_mlp(layer, self.part, bitmap=False)[1]
        return layer


Call = Callable[[], Any]
"""Runs a network once: a tensor or array [tokens, hidden]."""


class Engine(Protocol):
    """What the benchmark asks of an engine."""

    name: str
    dtype: str
    runs: str
    """``dense``: gains nothing from zeros; ``sparse``: made for them; ``both``; or a pattern."""

    def prepare(self, network: Network, x: Tensor, threads: int) -> Call:
        """Make a network ready for an input [tokens, hidden]; an exception skips the engine."""


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


class TorchDense:
    """torch's own matrix products."""

    name = "torch"
    runs = "dense"

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = str(dtype).removeprefix("torch.")
        self._dtype = dtype

    def prepare(self, network: Network, x: Tensor, threads: int) -> Call:
        """The block in this dtype."""
        x, module = x.to(self._dtype), network.module(network.layer, x.to(self._dtype))
        if self._dtype != torch.float32:
            module = copy.deepcopy(module).to(self._dtype)
        return lambda: module(x)


class TorchCSR:
    """torch's sparse matrices, which MKL multiplies on Intel and AMD processors."""

    name = "torch CSR"
    dtype = "float32"
    runs = "sparse"

    def prepare(self, network: Network, x: Tensor, threads: int) -> Call:
        """The block with its MLP's matrices in CSR."""
        module = network.module(network.csr, x)
        return lambda: module(x)


class Packed:
    """:mod:`dass.packed`; all but the MLP as in torch's bfloat16."""

    name = "packed"
    dtype = "bfloat16"
    runs = "2of4"

    def prepare(self, network: Network, x: Tensor, threads: int) -> Call:
        """The block with its MLP packed."""
        check_kernel()
        x = x.to(torch.bfloat16)
        module = network.module(network.packed, x)
        return lambda: module(x)


def shallow(module: Any) -> Any:
    """A module of its own with the same children, which may then be exchanged."""
    own = copy.copy(module)
    own._modules = dict(module._modules)
    return own


# --- Engines that read ONNX ---------------------------------------------------------------------


class OnnxRuntime:
    """onnxruntime: a good dense baseline; it has no sparse kernels."""

    name = "onnxruntime"
    dtype = "float32"
    runs = "dense"

    def prepare(self, network: Network, x: Tensor, threads: int) -> Call:
        """A session whose threads sleep between calls, as the others' do."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            network.onnx(x), options, providers=["CPUExecutionProvider"]
        )
        inputs = {session.get_inputs()[0].name: x.numpy()}
        return lambda: session.run(None, inputs)[0]


class OpenVINO:
    """OpenVINO in float32; for masked weights with its property for sparse weights."""

    name = "openvino"
    dtype = "float32"
    runs = "both"

    def prepare(self, network: Network, x: Tensor, threads: int) -> Call:
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
        compiled = core.compile_model(core.read_model(network.onnx(x)), "CPU", settings)
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(x.numpy()))

        return lambda: request.infer()[0]


def make_engines(options: Sequence[str]) -> list[Engine]:
    """The engines that are always measured, then the options (``openvino``).

    Raises:
        ConfigError: an engine is unknown.
    """
    engines: list[Engine] = [
        TorchDense(torch.float32), TorchDense(torch.bfloat16), OnnxRuntime(), TorchCSR(), Packed(),
    ]  # fmt: skip
    for name in options:
        if name != "openvino":
            raise ConfigError(f"no engine {name!r}; the one option is openvino")
        engines.append(OpenVINO())
    return engines
