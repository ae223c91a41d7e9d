"""A gated MLP, or a whole decoder block, as an ONNX file that every CPU engine reads.

Written node by node rather than exported, with an opset and IR version that older engines know. The
weights lie in one file beside the graph, since a protobuf ends at 2 GB. Shapes are static: some
engines compile for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dass.errors import ConfigError
from dass.models.shape import Shape

OPSET, IR_VERSION = 13, 8
WEIGHTS_FILE = "weights.bin"
INPUT, OUTPUT = "x", "y"
ALIGNMENT = 64
EPSILON = 1e-6
"""Of the RMS norms: the default of transformers' LLaMA."""
THETA = 10000.0
"""Base of the rotary embeddings."""

Floats = NDArray[np.float32]
Matrices = Mapping[str, Floats]
"""Name -> [out, in], or a norm's weight [hidden]; as a Hugging Face block calls them, without
``.weight``: ``mlp.gate_proj``, ``self_attn.q_proj``, ``input_layernorm``."""


def import_onnx() -> Any:
    """The onnx package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise ConfigError("the package onnx is not installed; pip install onnx") from None
    return onnx


@dataclass(frozen=True)
class StoredWeights:
    """Where each matrix lies in the file of weights, [in, out] as ONNX's MatMul wants it."""

    folder: Path
    places: dict[str, tuple[int, tuple[int, ...]]]
    """Name -> (offset in bytes, shape)."""


def store_weights(folder: Path, matrices: Matrices) -> StoredWeights:
    """Write matrices, transposed, into one file."""
    places: dict[str, tuple[int, tuple[int, ...]]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / WEIGHTS_FILE).open("wb") as file:
        for name, matrix in matrices.items():
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            stored = np.ascontiguousarray(matrix.T, dtype=np.float32)
            places[name] = file.tell(), stored.shape
            stored.tofile(file)
    return StoredWeights(folder, places)


@dataclass
class _Graph:
    """Nodes and constants, in the order in which they are made."""

    weights: StoredWeights
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; the name of its output, or their names."""
        names = [f"{kind}{len(self.nodes)}_{number}" for number in range(outputs)]
        node = import_onnx().helper.make_node(kind, list(inputs), names, **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add a small constant."""
        onnx = import_onnx()
        name = f"constant{len(self.constants)}"
        array = np.asarray(value, dtype=dtype)
        self.constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str) -> str:
        """Refer to a stored matrix."""
        onnx = import_onnx()
        offset, shape = self.weights.places[name]
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        about = {"location": WEIGHTS_FILE, "offset": offset, "length": 4 * int(np.prod(shape))}
        for key, value in about.items():
            tensor.external_data.add(key=key, value=str(value))
        self.constants.append(tensor)
        return name

    def linear(self, x: str, name: str) -> str:
        """x·Wᵀ."""
        return str(self.op("MatMul", x, self.weight(name)))

    def rms_norm(self, x: str, name: str) -> str:
        """x / sqrt(mean(x²) + ε) · w."""
        squares = self.op("ReduceMean", self.op("Mul", x, x), axes=[-1], keepdims=1)
        root = self.op("Sqrt", self.op("Add", squares, self.constant([EPSILON])))
        return str(self.op("Mul", self.op("Div", x, root), self.weight(name)))

    def reshape(self, x: str, *shape: int) -> str:
        """A tensor of another shape."""
        return str(self.op("Reshape", x, self.constant(shape, np.int64)))


def write_graph(weights: StoredWeights, part: str, shape: Shape, tokens: int) -> Path:
    """Write the graph of ``mlp`` or ``block`` for so many tokens beside its weights.

    Input ``x`` and output ``y`` are float32, [tokens, hidden] of an MLP and [1, tokens, hidden] of
    a block, which attends causally to its own tokens, with rotary embeddings: nothing is cached.
    """
    onnx = import_onnx()
    graph = _Graph(weights)
    last = _mlp(graph, INPUT, shape) if part == "mlp" else _block(graph, shape, tokens)
    graph.nodes.append(onnx.helper.make_node("Identity", [last], [OUTPUT]))
    kind = onnx.TensorProto.FLOAT
    size = [tokens, shape.hidden] if part == "mlp" else [1, tokens, shape.hidden]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            part,
            [onnx.helper.make_tensor_value_info(INPUT, kind, size)],
            [onnx.helper.make_tensor_value_info(OUTPUT, kind, size)],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    path = weights.folder / f"{part}-{tokens}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _mlp(graph: _Graph, x: str, shape: Shape) -> str:
    """down(act(gate(x)) · up(x))."""
    gate = graph.linear(x, "mlp.gate_proj")
    active = _silu(graph, gate) if shape.activation == "silu" else _gelu_tanh(graph, gate)
    inner = graph.op("Mul", active, graph.linear(x, "mlp.up_proj"))
    return graph.linear(inner, "mlp.down_proj")


def _silu(graph: _Graph, x: str) -> str:
    return str(graph.op("Mul", x, graph.op("Sigmoid", x)))


def _gelu_tanh(graph: _Graph, x: str) -> str:
    """x/2 · (1 + tanh(sqrt(2/π)·(x + 0.044715·x³)))."""
    cube = graph.op("Mul", graph.op("Mul", x, x), x)
    inner = graph.op("Add", x, graph.op("Mul", cube, graph.constant([0.044715])))
    tanh = graph.op("Tanh", graph.op("Mul", inner, graph.constant([(2 / np.pi) ** 0.5])))
    half = graph.op("Mul", x, graph.constant([0.5]))
    return str(graph.op("Mul", half, graph.op("Add", tanh, graph.constant([1.0]))))


def _block(graph: _Graph, shape: Shape, tokens: int) -> str:
    """x + attention(norm(x)), then that + mlp(norm(that))."""
    seen = graph.rms_norm(INPUT, "input_layernorm")
    hidden = graph.op("Add", INPUT, _attention(graph, seen, shape, tokens))
    seen = graph.rms_norm(hidden, "post_attention_layernorm")
    return str(graph.op("Add", hidden, _mlp(graph, seen, shape)))


def _attention(graph: _Graph, x: str, shape: Shape, tokens: int) -> str:
    """Causal attention of the tokens to one another, key-value heads shared by groups."""
    heads, shared, width = shape.heads, shape.key_value_heads, shape.head_size

    def split(name: str, count: int) -> str:
        flat = graph.reshape(graph.linear(x, f"self_attn.{name}"), 1, tokens, count, width)
        return str(graph.op("Transpose", flat, perm=[0, 2, 1, 3]))

    def spread(states: str) -> str:
        if shared == heads:
            return states
        size = graph.constant([shared, heads // shared, tokens, width], np.int64)
        wide = graph.op("Expand", graph.reshape(states, shared, 1, tokens, width), size)
        return graph.reshape(wide, 1, heads, tokens, width)

    cosine, sine = _rotation(width, tokens)
    turned = graph.constant(cosine), graph.constant(sine)
    query = _rotate(graph, split("q_proj", heads), turned, width)
    key = spread(_rotate(graph, split("k_proj", shared), turned, width))
    value = spread(split("v_proj", shared))
    scores = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 1, 3, 2]))
    scores = graph.op("Mul", scores, graph.constant([width**-0.5]))
    if tokens > 1:
        scores = graph.op(
            "Add", scores, graph.constant(np.triu(np.full((tokens, tokens), -1e9), 1))
        )
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
    flat = graph.reshape(graph.op("Transpose", mixed, perm=[0, 2, 1, 3]), 1, tokens, heads * width)
    return graph.linear(flat, "self_attn.o_proj")


def _rotation(width: int, tokens: int) -> tuple[Floats, Floats]:
    """Cosine and sine [tokens, width] of rotary embeddings."""
    frequencies = THETA ** (-np.arange(0, width, 2) / width)
    angles = np.outer(np.arange(tokens), frequencies)
    both = np.concatenate([angles, angles], axis=1)
    return np.cos(both).astype(np.float32), np.sin(both).astype(np.float32)


def _rotate(graph: _Graph, x: str, turned: tuple[str, str], width: int) -> str:
    """x·cos + (−x₂, x₁)·sin, x₁ and x₂ the halves of each head."""
    halves = graph.constant([width // 2, width // 2], np.int64)
    first, second = graph.op("Split", x, halves, outputs=2, axis=-1)
    crossed = graph.op("Concat", graph.op("Neg", second), first, axis=-1)
    cosine, sine = turned
    turned_part = graph.op("Mul", crossed, sine)
    return str(graph.op("Add", graph.op("Mul", x, cosine), turned_part))
