"""Linear layers and gated MLPs on packed weights, for any number of tokens, on any device.

A few tokens take the kernels, those of GPUs, or of CPUs for 2:4 in bfloat16, many tokens on Hopper
GPUs a kernel of their own for N:M; all others take the weight unpacked for the moment, or the dense
weight where it was kept. The products are custom operators, so that ``torch.compile`` does not see
through them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dass.packed import cpu, many
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
from dass.packed.strips import Strips, strips_of, unpack_strips
from dass.terms import ROLES

UNPACKED_FROM = 49
"""From so many tokens on a weight is unpacked; fewer take several launches, which is faster."""

MOST_ON_CPU, UNPACKED_ON_CPU_FROM = 8, 257
"""On a CPU: so many tokens are faster than on dense weights; from so many on it is unpacked."""


def for_device(weight: Packed, dtype: torch.dtype) -> Packed:
    """A packed weight as the kernels of its device take it, if there are any."""
    if isinstance(weight, Groups) and weight.data.device.type == "cpu":
        kernel = cpu.kernel() if dtype == torch.bfloat16 and weight.layout.group == 4 else None
        return weight if kernel is None else strips_of(weight, kernel.lanes)
    return weight


def numbers_of(weight: Packed) -> list[int]:
    """The rest: rows, columns, M or 0, whether along the output, a bitmap's most words or lanes."""
    layout = weight.layout
    if isinstance(weight, Bitmap):
        return [layout.rows, layout.columns, 0, 0, weight.most]
    lanes = weight.lanes if isinstance(weight, Strips) else 0
    return [layout.rows, layout.columns, layout.group, int(layout.axis == "output"), lanes]


def count_of(numbers: Sequence[int]) -> int:
    """How many tensors a packed weight has."""
    return 1 if numbers[2] else 3


def packed_of(tensors: Sequence[Tensor], numbers: Sequence[int]) -> Packed:
    """The packed weight of :func:`tensors_of` and :func:`numbers_of`."""
    rows, columns, group, output, last = numbers
    if group == 0:
        return Bitmap(rows, columns, last, *tensors)
    layout = Layout(rows, columns, group, "output" if output else "input")
    return Strips(layout, last, tensors[0]) if last else Groups(layout, tensors[0])


def dense_of(weight: Packed, dtype: torch.dtype) -> Tensor:
    """The weight [out, in], unpacked on its device."""
    if isinstance(weight, Strips):
        return unpack_strips(weight).to(dtype)
    if kernels_run_on(tensors_of(weight)[0].device):
        return unpacked(weight, dtype)
    return unpack_bitmap(weight, dtype) if isinstance(weight, Bitmap) else unpack(weight, dtype)


def _launches(weight: Packed, x: Tensor) -> bool:
    """Whether the GPU's kernels multiply."""
    return len(x) < UNPACKED_FROM and not isinstance(weight, Strips) and kernels_run_on(x.device)


def _at_once(weights: Sequence[Packed], x: Tensor) -> list[Groups]:
    """The weights, where the kernel for many tokens multiplies them; else none."""
    groups, tokens = [weight for weight in weights if isinstance(weight, Groups)], len(x)
    if not groups or tokens <= MOST_TOKENS:
        return []
    layout = groups[0].layout
    if tokens > many.MOST_TOKENS[layout.group] or not many.runs_on(x.device):
        return []
    width = many.width_of(tokens)
    return groups if many.sound(layout.group, layout.axis, x.dtype, width, x.device) else []


def _pays_to(weight: Packed) -> int:
    """How many tokens are at least as fast as on dense weights."""
    if isinstance(weight, Strips):
        return MOST_ON_CPU
    if isinstance(weight, Groups) and many.runs_on(weight.data.device):
        return many.PAYS_TO[weight.layout.group]
    return MOST_TOKENS


def _by_launches(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A kernel's output for as many tokens as it takes at once, one after the other."""
    if len(x) <= MOST_TOKENS:
        return call(x)
    return torch.cat([call(some) for some in x.split(MOST_TOKENS)])


def _times(x: Tensor, weight: Packed) -> Tensor:
    """x Wᵀ by the CPU's kernel, or by the weight unpacked."""
    if isinstance(weight, Strips) and len(x) < UNPACKED_ON_CPU_FROM and x.device.type == "cpu":
        kernel = cpu.kernel()
        if kernel is not None and (kernel.lanes, x.dtype) == (weight.lanes, torch.bfloat16):
            return kernel.product(weight, x)
    return functional.linear(x, dense_of(weight, x.dtype))


@torch.library.custom_op("dass::packed_linear", mutates_args=())
def packed_linear(weight: Sequence[Tensor], numbers: Sequence[int], x: Tensor) -> Tensor:
    """x Wᵀ: [tokens, in] -> [tokens, out]."""
    packed = packed_of(weight, numbers)
    if at_once := _at_once([packed], x):
        return many.multiply(at_once, x)
    if _launches(packed, x):
        return _by_launches(lambda some: product(packed, some), x)
    return _times(x, packed)


@packed_linear.register_fake
def _(weight: Sequence[Tensor], numbers: Sequence[int], x: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], numbers[0]))


@torch.library.custom_op("dass::packed_gates", mutates_args=())
def packed_gates(
    gate: Sequence[Tensor], up: Sequence[Tensor], numbers: Sequence[int], most: int,
    x: Tensor, activation: str,
) -> Tensor:  # fmt: skip
    """act(x Gᵀ) · (x Uᵀ): [tokens, in] -> [tokens, intermediate]; ``most``: up's last number."""
    first, second = packed_of(gate, numbers), packed_of(up, [*numbers[:4], most])
    if at_once := _at_once([first, second], x):
        return many.multiply(at_once, x, ACTIVATIONS.index(activation))
    if _launches(first, x):
        return _by_launches(lambda some: gated_product(first, second, some, activation), x)
    return activate(_times(x, first), activation) * _times(x, second)


@packed_gates.register_fake
def _(
    gate: Sequence[Tensor], up: Sequence[Tensor], numbers: Sequence[int], most: int,
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
        dense: gate, up and down for more tokens than pay; without them packed weights are used, or
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
        self.most = _pays_to(gate)
        self.dense = None if dense is None else Dense(dense, activation)

    def _tensors(self, role: str) -> list[Tensor]:
        count = count_of(self.numbers[role])
        return [getattr(self, f"{role}_{place}") for place in range(count)]

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> [..., hidden]."""
        if self.dense is not None and x.shape[:-1].numel() > self.most:
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
