"""Linear layers and gated MLPs on packed weights, for any number of tokens, on any device.

A few tokens on a GPU take the kernels; many, and every product on a CPU, take the weight unpacked
for the moment, or the dense weight where it was kept. The products are custom operators, so that
``torch.compile`` does not see through them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dass.packed.bitmap import Bitmap, unpack_bitmap
from dass.packed.formats import Groups, Layout, unpack
from dass.packed.product import (
    ACTIVATIONS,
    MOST_TOKENS,
    Packed,
    gated_product,
    kernels_run_on,
    product,
    tensors_of,
    unpacked,
)
from dass.terms import ROLES

UNPACKED_FROM = 49
"""From so many tokens on a weight is unpacked; fewer take several launches, which is faster."""


def numbers_of(weight: Packed) -> list[int]:
    """The rest of a packed weight: rows, columns, M or 0, whether along the output, segment."""
    layout = weight.layout
    if isinstance(weight, Bitmap):
        return [layout.rows, layout.columns, 0, 0, weight.segment]
    return [layout.rows, layout.columns, layout.group, int(layout.axis == "output"), 0]


def count_of(numbers: Sequence[int]) -> int:
    """How many tensors a packed weight has."""
    return 1 if numbers[2] else 3


def packed_of(tensors: Sequence[Tensor], numbers: Sequence[int]) -> Packed:
    """The packed weight of :func:`tensors_of` and :func:`numbers_of`."""
    rows, columns, group, output, segment = numbers
    if group == 0:
        return Bitmap(rows, columns, segment, *tensors)
    return Groups(Layout(rows, columns, group, "output" if output else "input"), tensors[0])


def dense_of(weight: Packed, dtype: torch.dtype) -> Tensor:
    """The weight [out, in], unpacked on its device."""
    if kernels_run_on(tensors_of(weight)[0].device):
        return unpacked(weight, dtype)
    return unpack_bitmap(weight, dtype) if isinstance(weight, Bitmap) else unpack(weight, dtype)


def _by_launches(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A kernel's output for as many tokens as it takes at once, one after the other."""
    if len(x) <= MOST_TOKENS:
        return call(x)
    return torch.cat([call(some) for some in x.split(MOST_TOKENS)])


@torch.library.custom_op("dass::packed_linear", mutates_args=())
def packed_linear(weight: Sequence[Tensor], numbers: Sequence[int], x: Tensor) -> Tensor:
    """x Wᵀ: [tokens, in] -> [tokens, out]."""
    packed = packed_of(weight, numbers)
    if len(x) < UNPACKED_FROM and kernels_run_on(x.device):
        return _by_launches(lambda some: product(packed, some), x)
    return functional.linear(x, dense_of(packed, x.dtype))


@packed_linear.register_fake
def _(weight: Sequence[Tensor], numbers: Sequence[int], x: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], numbers[0]))


@torch.library.custom_op("dass::packed_gates", mutates_args=())
def packed_gates(
    gate: Sequence[Tensor], up: Sequence[Tensor], numbers: Sequence[int], segment: int,
    x: Tensor, activation: str,
) -> Tensor:  # fmt: skip
    """act(x Gᵀ) · (x Uᵀ): [tokens, in] -> [tokens, intermediate]; ``segment`` is that of up."""
    first, second = packed_of(gate, numbers), packed_of(up, [*numbers[:4], segment])
    if len(x) < UNPACKED_FROM and kernels_run_on(x.device):
        return _by_launches(lambda some: gated_product(first, second, some, activation), x)
    active = activate(functional.linear(x, dense_of(first, x.dtype)), activation)
    return active * functional.linear(x, dense_of(second, x.dtype))


@packed_gates.register_fake
def _(
    gate: Sequence[Tensor], up: Sequence[Tensor], numbers: Sequence[int], segment: int,
    x: Tensor, activation: str,
) -> Tensor:  # fmt: skip
    return x.new_empty((x.shape[0], numbers[0]))


def activate(x: Tensor, activation: str) -> Tensor:
    """One of :data:`dass.packed.product.ACTIVATIONS`."""
    if activation == "silu":
        return functional.silu(x)
    return functional.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


class Dense(nn.Module):
    """The same of dense weights gate, up and down [out, in]."""

    gate: Tensor
    up: Tensor
    down: Tensor

    def __init__(self, weights: Sequence[Tensor], activation: str) -> None:
        super().__init__()
        self.activation = activation
        for role, weight in zip(ROLES, weights, strict=True):
            self.register_buffer(role, weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., hidden]."""
        active = activate(functional.linear(x, self.gate), self.activation)
        return functional.linear(active * functional.linear(x, self.up), self.down)


class PackedGLU(nn.Module):
    """A gated MLP on packed weights: down(act(gate(x)) · up(x)).

    Args:
        gate, up: packed alike, [intermediate, hidden].
        down: [hidden, intermediate].
        activation: one of :data:`dass.packed.product.ACTIVATIONS`.
        dense: gate, up and down for more tokens than one launch takes; without them they are
            unpacked each time, which costs a pass over the weights.
    """

    def __init__(
        self, gate: Packed, up: Packed, down: Packed, activation: str,
        dense: Sequence[Tensor] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is none of {ACTIVATIONS}")
        self.activation = activation
        self.numbers: dict[str, list[int]] = {}
        for role, weight in (("gate", gate), ("up", up), ("down", down)):
            self.numbers[role] = numbers_of(weight)
            for place, tensor in enumerate(tensors_of(weight)):
                self.register_buffer(f"{role}_{place}", tensor, persistent=False)
        self.dense = None if dense is None else Dense(dense, activation)

    def _tensors(self, role: str) -> list[Tensor]:
        count = count_of(self.numbers[role])
        return [getattr(self, f"{role}_{place}") for place in range(count)]

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., hidden]."""
        if self.dense is not None and x.shape[:-1].numel() > MOST_TOKENS:
            many: Tensor = self.dense(x)
            return many
        numbers = self.numbers
        inner: Any = packed_gates(
            self._tensors("gate"), self._tensors("up"), numbers["gate"], numbers["up"][4],
            x.flatten(0, -2), self.activation,
        )  # fmt: skip
        output: Tensor = packed_linear(self._tensors("down"), numbers["down"], inner)
        shaped: Tensor = output.unflatten(0, x.shape[:-1])
        return shaped
