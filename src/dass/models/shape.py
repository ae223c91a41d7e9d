"""The sizes of a decoder: what its speed, memory and disk depend on. Needs no other library."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Activation = Literal["silu", "gelu_pytorch_tanh"]


def _size(description: str, **default: Any) -> Any:
    """A whole number above 0; pydantic reads the metadata where a config or a result is checked."""
    return field(metadata={"description": description, "gt": 0, "strict": True}, **default)


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder of LLaMA's form. Where only sizes are given, weights are random."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    hidden: int = _size("Width of the hidden states.")
    intermediate: int = _size("Neurons of the gated MLP.")
    heads: int = _size("Attention heads.")
    key_value_heads: int = _size("Key-value heads; as many as heads, or a divisor.")
    blocks: int = _size("Decoder blocks of the whole model.")
    head_dim: int | None = _size("Width of a head; without it, hidden / heads.", default=None)
    activation: Activation = field(
        default="silu", metadata={"description": "Activation function of the MLP."}
    )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden // self.heads

    @property
    def attention(self) -> int:
        """Weights of one block's attention."""
        return 2 * self.hidden * self.head_size * (self.heads + self.key_value_heads)

    @property
    def mlp(self) -> int:
        """Weights of one block's gated MLP."""
        return 3 * self.hidden * self.intermediate

    def matrix(self, part: str) -> tuple[int, int]:
        """[out, in] of a projection of the MLP: gate, up or down."""
        wide = (self.intermediate, self.hidden)
        return wide[::-1] if part == "down" else wide
