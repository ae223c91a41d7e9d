"""Find the gated MLPs of a decoder block, whatever the model calls their projections.

A block has one, or several side by side (a mixture of experts), or none. The experts of a mixture
are modules of their own, or the slices of two parameters that hold all of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dass.errors import ModelError
from dass.terms import Role


@dataclass(frozen=True)
class Projection:
    """A matrix that is pruned: a linear layer, some rows of one, or those of an expert."""

    role: Role
    holder: nn.Module
    """The linear layer, or the module whose parameters hold all experts."""
    parameter: str
    """The weight's name within the block, e.g. ``mlp.gate_proj.weight``."""
    rows: slice
    """Which output rows of the matrix belong to this projection."""
    expert: int | None = None
    """Which slice of a parameter [experts, out, in] it lies in; None: the weight is a matrix."""

    @property
    def linear(self) -> nn.Linear:
        """The linear layer that it is (part of); only of projections that are no expert's slice."""
        assert isinstance(self.holder, nn.Linear)
        return self.holder

    @property
    def matrix(self) -> str:
        """What a pruned file calls the matrix: the parameter, an expert's with its number.

        ``mlp.experts.down_proj.3`` is slice 3 of ``mlp.experts.down_proj``.
        """
        return self.parameter if self.expert is None else f"{self.parameter}.{self.expert}"

    @property
    def whole(self) -> Tensor:
        """A view [all out, in] of the matrix that the projection's rows are part of."""
        weight: Tensor = getattr(self.holder, self.parameter.rpartition(".")[2]).data
        return weight if self.expert is None else weight[self.expert]

    @property
    def weight(self) -> Tensor:
        """A view [out, in] of the projection's rows: writing to it changes the layer."""
        return self.whole[self.rows]

    @property
    def name(self) -> str:
        """What to call it in an error: the matrix, and the role or rows where it is fused."""
        if self.rows == slice(None):
            return self.matrix
        if self.role == "linear":
            return f"{self.matrix} (rows {self.rows.start} to {self.rows.stop - 1})"
        return f"{self.matrix} ({self.role})"


@dataclass(frozen=True)
class GLU:
    """A gated MLP of a decoder block: down(act(gate(x)) · up(x))."""

    gate: Projection
    up: Projection
    down: Projection
    path: str
    """The module within the block whose children or parameters hold the projections."""

    @property
    def projections(self) -> tuple[Projection, Projection, Projection]:
        """gate, up, down."""
        return self.gate, self.up, self.down

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its weights within the block, each once."""
        return tuple(dict.fromkeys(p.parameter for p in self.projections))

    @property
    def matrices(self) -> tuple[str, ...]:
        """What a pruned file calls its weights within the block, each once."""
        return tuple(dict.fromkeys(p.matrix for p in self.projections))

    @property
    def intermediate_size(self) -> int:
        """The number of intermediate neurons: rows of gate and up, columns of down."""
        return self.down.whole.shape[1]

    @property
    def expert(self) -> int | None:
        """Its number among fused experts; None: its projections are linear layers."""
        return self.down.expert

    @property
    def is_routed(self) -> bool:
        """Whether it is an expert, to which a router sends some of the tokens."""
        return EXPERTS in self.path.split(".")

    @property
    def name(self) -> str:
        """Its place within the block: ``mlp``, or ``mlp.experts.3`` however experts are held."""
        return self.path if self.expert is None else f"{self.path}.{self.expert}"


EXPERTS = "experts"
"""What every model of transformers calls the module that holds its experts."""


def find_glus(block: nn.Module, where: str) -> tuple[GLU, ...]:
    """The GLUs of a decoder block, in its order; weights may be on any device, also ``meta``.

    Args:
        block: a decoder block; it may have none.
        where: what to call it in an error, e.g. ``llama2-7b, block 0``.

    Raises:
        ModelError: some of its experts' parameters belong to no GLU that is understood.
    """
    found: list[GLU] = []
    for path, module in block.named_modules():
        if (glu := _as_glu(module, path)) is not None:
            found.append(glu)
        else:
            found += _as_experts(module, path)
    known = {parameter for glu in found for parameter in glu.parameters}
    for name, _ in block.named_parameters():
        if EXPERTS in name.split(".") and name not in known:
            raise ModelError(
                f"{where}: a mixture of experts whose {name} is not understood (only gate, up and "
                "down without biases, neither transposed nor interleaved, are); choose another "
                "model"
            )
    return tuple(found)


def find_glu(block: nn.Module, where: str) -> GLU:
    """The GLU of a decoder block that has exactly one.

    Raises:
        ModelError: as :func:`find_glus`, and where it has none, or several.
    """
    found = find_glus(block, where)
    if not found:
        raise _no_glu(block, where)
    if len(found) > 1:
        raise ModelError(f"{where}: {len(found)} gated MLPs in one block, which is not supported")
    return found[0]


def glus_of(blocks: Iterable[nn.Module], model: str) -> list[tuple[GLU, ...]]:
    """The GLUs of each block of a model, which may have blocks without one.

    Raises:
        ModelError: as :func:`find_glus`, and where no block has one.
    """
    listed = list(blocks)
    found = [find_glus(block, f"{model}, block {index}") for index, block in enumerate(listed)]
    if not any(found):
        raise _no_glu(listed[0], f"{model}, block 0")
    return found


def _no_glu(block: nn.Module, where: str) -> ModelError:
    return ModelError(
        f"{where} ({type(block).__name__}): no gated MLP (gate, up and down projections); "
        "DaSS prunes GLU models only, such as Llama, Mistral, Gemma, Qwen2 or Phi-3"
    )


def common_module(block: nn.Module, glus: Sequence[GLU]) -> nn.Module:
    """The smallest module of a block that holds these GLUs: of one, that of its projections."""
    first, *others = (glu.path.split(".") for glu in glus)
    for other in others:
        same = [one == its for one, its in zip(first, other, strict=False)]
        first = first[: [*same, False].index(False)]
    while isinstance(block.get_submodule(".".join(first)), nn.ModuleList):  # is never called
        first.pop()
    module: nn.Module = block.get_submodule(".".join(first))
    return module


SEPARATE = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))
"""What gate, up and down are called where each is a layer of its own."""

FUSED = (("gate_up_proj", "down_proj"), ("Wi", "Wo"), ("input_linear", "output_linear"))
"""What the layer that holds gate's rows, then up's, is called, and down."""


def _as_glu(module: nn.Module, path: str) -> GLU | None:
    """The GLU whose projections are children of ``module``, if it is one."""
    linear = {
        name: child for name, child in module.named_children() if isinstance(child, nn.Linear)
    }

    def projection(role: Role, name: str, rows: slice = slice(None)) -> Projection:
        weight = f"{path}.{name}.weight".removeprefix(".")
        return Projection(role, linear[name], weight, rows)

    for gate, up, down in SEPARATE:
        if {gate, up, down} <= set(linear):
            size = linear[down].in_features
            if linear[gate].out_features == linear[up].out_features == size:
                return GLU(
                    projection("gate", gate),
                    projection("up", up),
                    projection("down", down),
                    path,
                )
    for both, down in FUSED:
        if {both, down} <= set(linear):
            size = linear[down].in_features
            if linear[both].out_features == 2 * size:
                return GLU(
                    projection("gate", both, slice(0, size)),
                    projection("up", both, slice(size, 2 * size)),
                    projection("down", down),
                    path,
                )
    return None


LAYOUT = {
    "has_gate": True,
    "is_transposed": False,
    "is_concatenated": True,
    "has_bias": False,
}
"""How transformers' experts say that they hold their weights, of those that are understood."""


def _as_experts(module: nn.Module, path: str) -> Iterator[GLU]:
    """The GLUs whose weights are slices of ``module``'s own parameters, if that is what they are.

    ``gate_up_proj`` is [experts, 2 · intermediate, hidden], the rows of gate before those of up,
    and ``down_proj`` [experts, hidden, intermediate].
    """
    own: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
    if set(own) != {"gate_up_proj", "down_proj"} or any(p.dim() != 3 for p in own.values()):
        return
    count, hidden, size = own["down_proj"].shape
    if own["gate_up_proj"].shape != (count, 2 * size, hidden):
        return
    if any(getattr(module, key, None) is not value for key, value in LAYOUT.items()):
        return
    if getattr(module, "has_post_expert_norm", False):  # which transformers 5.17 does not know
        return
    if not _gates_plainly(module):
        return

    def projection(role: Role, name: str, rows: slice, expert: int) -> Projection:
        return Projection(role, module, f"{path}.{name}".removeprefix("."), rows, expert)

    for expert in range(count):
        yield GLU(
            projection("gate", "gate_up_proj", slice(0, size), expert),
            projection("up", "gate_up_proj", slice(size, 2 * size), expert),
            projection("down", "down_proj", slice(None), expert),
            path,
        )


def _gates_plainly(module: Any) -> bool:
    """Whether experts make act(gate) · up of gate's and up's outputs, also of large ones."""
    with torch.device("cpu"):
        probe = torch.linspace(-30, 30, 32).reshape(4, 8).roll(3, 1)
    gate, up = probe.chunk(2, dim=-1)
    try:
        return torch.equal(module._apply_gate(probe), module.act_fn(gate) * up)
    except Exception:  # an activation or a gate of another form
        return False
