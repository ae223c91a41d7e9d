"""Products of packed weights with a few tokens, on the GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from dass.packed.bitmap import RING, Bitmap
from dass.packed.formats import LANES, VECTORS, Groups
from dass.packed.nvrtc import Launch, kernel

MOST_TOKENS = 16
"""Tokens that one launch takes."""

ACTIVATIONS = ("silu", "gelu_tanh", "gelu")
"""The activation functions of gated products, by the kernel's number for each."""

WARPS = {1: (8, 2), 2: (4, 4)}
"""Matrices -> warps of a block, and how many blocks a multiprocessor shall hold; measured."""

Packed = Groups | Bitmap


def kernels_run_on(device: torch.device) -> bool:
    """Whether the kernels run on a device: NVIDIA GPUs from compute capability 8.0 on."""
    if device.type != "cuda" or torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def product(weight: Packed, x: Tensor) -> Tensor:
    """x Wᵀ of a packed W [out, in].

    Args:
        weight: on the device of ``x``, packed of its dtype.
        x: [tokens, in], at most :data:`MOST_TOKENS`.

    Returns:
        [tokens, out] in the dtype of ``x``; sums are float32.
    """
    return _launch(weight, weight, x, 1, 0)


def gated_product(gate: Packed, up: Packed, x: Tensor, activation: str) -> Tensor:
    """act(x Gᵀ) · (x Uᵀ), rounded after each product and each step, in one launch.

    Args:
        gate, up: packed alike.
        x: [tokens, in], at most :data:`MOST_TOKENS`.
        activation: one of :data:`ACTIVATIONS`.
    """
    return _launch(gate, up, x, 2, ACTIVATIONS.index(activation))


def _launch(first: Packed, second: Packed, x: Tensor, matrices: int, activation: int) -> Tensor:
    layout, tokens = first.layout, len(x)
    columns = layout.padded[1]
    if x.shape[1] != columns:
        x = torch.nn.functional.pad(x, (0, columns - x.shape[1]))
    x = x.contiguous()
    out = x.new_empty((tokens, layout.rows))
    bitmap = isinstance(first, Bitmap)
    warps, resident = (8, 3) if bitmap else WARPS[matrices]
    definitions = {
        "GROUP": 0 if bitmap else layout.group, "OUTPUT": int(layout.axis == "output"),
        "TILES": 1 + (tokens > 8), "WARPS": warps, "MATRICES": matrices,
        "ACTIVATION": activation, "BF16": int(x.dtype == torch.bfloat16), "RESIDENT": resident,
    }  # fmt: skip
    sums = matrices * layout.tile_rows * definitions["TILES"] * 8 * 4
    held = (RING + 4) * LANES * 4 if bitmap else 2 * VECTORS * LANES * 16 * (matrices - 1)
    memory = max(warps * held, warps // 2 * sums)
    source = "bitmap.cu" if bitmap else "groups.cu"
    launch: Launch = kernel(source, "product", tuple(definitions.items()), memory, x.device.index)
    weights: list[Tensor] = []
    for one in (first, second):
        weights += [one.codes, one.starts, one.values] if isinstance(one, Bitmap) else [one.data]
    extra = [one.segment for one in (first, second) if isinstance(one, Bitmap)]
    launch(
        layout.tiles, 32 * warps, memory, *weights, x, out, layout.rows, columns, tokens,
        layout.chunks, *extra,
    )  # fmt: skip
    return out
