"""Find the gated MLP of a decoder block, whatever the model calls its projections."""

from dataclasses import dataclass

from torch import Tensor, nn

from dass.errors import ModelError
from dass.terms import Role


@dataclass(frozen=True)
class Projection:
    """One of a GLU's three matrices: a linear layer, or some rows of a fused one."""

    role: Role
    linear: nn.Linear
    parameter: str
    """The weight's name within the block, e.g. ``mlp.gate_proj.weight``."""
    rows: slice
    """Which output rows of the linear layer belong to this projection."""

    @property
    def weight(self) -> Tensor:
        """A view [out, in] of the projection's rows: writing to it changes the layer."""
        return self.linear.weight.data[self.rows]

    @property
    def name(self) -> str:
        """What to call it in an error: the parameter, and the role where it is fused."""
        return self.parameter if self.rows == slice(None) else f"{self.parameter} ({self.role})"


@dataclass(frozen=True)
class GLU:
    """The gated MLP of one decoder block: down(act(gate(x)) · up(x))."""

    gate: Projection
    up: Projection
    down: Projection

    @property
    def projections(self) -> tuple[Projection, Projection, Projection]:
        """gate, up, down."""
        return self.gate, self.up, self.down

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its weights within the block, each once."""
        return tuple(dict.fromkeys(p.parameter for p in self.projections))

    @property
    def intermediate_size(self) -> int:
        """The number of intermediate neurons: rows of gate and up, columns of down."""
        return self.down.linear.in_features


def find_glu(block: nn.Module, where: str) -> GLU:
    """The one GLU of a decoder block; weights may be on any device, also ``meta``.

    Args:
        block: a decoder block.
        where: what to call it in an error, e.g. ``llama2-7b, block 0``.

    Raises:
        ModelError: the block has no GLU, or several (mixture of experts).
    """
    if any("experts" in name.split(".") for name, _ in block.named_modules()):
        raise ModelError(
            f"{where}: its MLP is a mixture of experts, which is not supported; "
            "choose a dense model"
        )
    found = [
        glu for name, module in block.named_modules() if (glu := _as_glu(module, name)) is not None
    ]
    if not found:
        raise ModelError(
            f"{where} ({type(block).__name__}): no gated MLP (gate, up and down projections); "
            "DaSS prunes GLU models only, such as Llama, Mistral, Gemma, Qwen2 or Phi-3"
        )
    if len(found) > 1:
        raise ModelError(f"{where}: {len(found)} gated MLPs in one block, which is not supported")
    return found[0]


def glu_module(block: nn.Module, glu: GLU) -> nn.Module:
    """The module of a block whose children are the GLU's projections."""
    return block.get_submodule(".".join(glu.down.parameter.split(".")[:-2]))


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
        return Projection(role, linear[name], f"{path}.{name}.weight".removeprefix("."), rows)

    for gate, up, down in SEPARATE:
        if {gate, up, down} <= set(linear):
            size = linear[down].in_features
            if linear[gate].out_features == linear[up].out_features == size:
                return GLU(projection("gate", gate), projection("up", up), projection("down", down))
    for both, down in FUSED:
        if {both, down} <= set(linear):
            size = linear[down].in_features
            if linear[both].out_features == 2 * size:
                return GLU(
                    projection("gate", both, slice(0, size)),
                    projection("up", both, slice(size, 2 * size)),
                    projection("down", down),
                )
    return None
