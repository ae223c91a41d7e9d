"""Packed weights on the GPU: products with a few tokens, and the dense weight."""

from __future__ import annotations

import ctypes
import functools
import itertools
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from dass.packed.bitmap import AGAIN, RING, Bitmap
from dass.packed.formats import LANES, VECTORS, Groups
from dass.packed.nvrtc import Launch, kernel
from dass.packed.strips import Strips

MOST_TOKENS = 16
"""Tokens that one launch takes."""

ACTIVATIONS = ("silu", "gelu_tanh", "gelu")
"""The activation functions of gated products, by the kernel's number for each."""

WARPS, MOST_STAGES = 8, 4
"""Warps of a block, and chunks that each copies ahead where the GPU's memory holds them; measured.
"""

TICKETS = itertools.count(random.SystemRandom().getrandbits(63))
"""A number for each launch, that stands nowhere in memory by chance."""

MOST_RINGS = 12
"""Warps of a block of bitmaps, where the GPU's memory holds their rings; measured."""

SHARED_TABLES = 256
"""Bytes of shared memory that the kernels declare themselves."""

Packed = Groups | Bitmap | Strips
"""The first two are what the GPU's kernels take, the last is for a CPU."""


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
    return _multiply((weight,), x, 0)


def gated_product(gate: Packed, up: Packed, x: Tensor, activation: str) -> Tensor:
    """act(x Gᵀ) · (x Uᵀ), rounded after each product and each step, in one launch.

    Args:
        gate, up: packed alike.
        x: [tokens, in], at most :data:`MOST_TOKENS`.
        activation: one of :data:`ACTIVATIONS`.
    """
    return _multiply((gate, up), x, ACTIVATIONS.index(activation))


def unpacked(weight: Packed, dtype: torch.dtype) -> Tensor:
    """The dense weight [out, in] that was packed, on its device.

    Args:
        weight: on a GPU that the kernels run on.
        dtype: float16 or bfloat16, as it was packed.
    """
    layout = weight.layout
    device = tensors_of(weight)[0].device
    out = torch.empty((layout.rows, layout.columns), dtype=dtype, device=device)
    _launch((weight,), None, out, 0)
    return out


def tensors_of(weight: Packed) -> list[Tensor]:
    """What a packed weight holds, to be kept as buffers and in files."""
    if isinstance(weight, Bitmap):
        return [weight.codes, weight.plan, weight.values]
    return [weight.data]


def _multiply(weights: Sequence[Packed], x: Tensor, activation: int) -> Tensor:
    """Products of one weight, or of gate and up, with tokens [tokens, in]."""
    layout = weights[0].layout
    if x.shape[1] != layout.padded[1]:
        x = torch.nn.functional.pad(x, (0, layout.padded[1] - x.shape[1]))
    out = x.new_empty((len(x), layout.rows))
    _launch(weights, x.contiguous(), out, activation)
    return out


def _launch(weights: Sequence[Packed], x: Tensor | None, out: Tensor, activation: int) -> None:
    """Let the kernel write ``out``: products with tokens; or, without them, the weight."""
    matrices, tokens = len(weights), 0 if x is None else len(x)
    layout, bitmap = weights[0].layout, isinstance(weights[0], Bitmap)
    device = out.device.index
    definitions = {
        "GROUP": 0 if bitmap else layout.group, "OUTPUT": int(layout.axis == "output"),
        "TILES": 1 + (tokens > 8), "WARPS": WARPS, "MATRICES": matrices, "ACTIVATION": activation,
        "BF16": int(out.dtype == torch.bfloat16), "UNPACK": int(x is None),
    }  # fmt: skip
    sums = matrices * layout.tile_rows * definitions["TILES"] * 8 * 4  # bytes of one warp's
    multiprocessors, shared = _device(device)
    shared -= SHARED_TABLES
    tensors = [tensor for weight in (weights[0], weights[-1]) for tensor in tensors_of(weight)]
    if bitmap:
        source, ring = "bitmap.cu", (RING + AGAIN) * LANES * 4
        definitions["WARPS"] = warps = min(MOST_RINGS, shared // ring)
        memory = warps * ring
        segments = [
            weight.segment for weight in (weights[0], weights[-1]) if isinstance(weight, Bitmap)
        ]
        counts = [-(-layout.chunks // segment) for segment in segments]
        blocks = min(multiprocessors, layout.tiles * sum(counts[:matrices]))
        slots = blocks * warps
    else:
        source, chunk, warps, segments = "groups.cu", WARPS * VECTORS * LANES * 16, WARPS, []
        stages = min(MOST_STAGES, (shared - WARPS * sums) // chunk)
        definitions["STAGES"] = stages // matrices * matrices
        memory = definitions["STAGES"] * chunk + WARPS * sums
        slots = blocks = min(multiprocessors, -(-layout.tiles * layout.chunks // WARPS))
    workspace = out.new_empty(slots * (sums + 8), dtype=torch.uint8)
    ticket = ctypes.c_uint64(next(TICKETS))
    columns = layout.columns if x is None else layout.padded[1]
    arguments = [
        *tensors, out if x is None else x, out, workspace, ticket,
        layout.rows, columns, tokens, layout.tiles, layout.chunks, *segments,
    ]  # fmt: skip
    launch: Launch = kernel(source, "product", tuple(definitions.items()), memory, device)
    launch(blocks, 32 * warps, memory, *arguments)


@functools.cache
def _device(index: int) -> tuple[int, int]:
    """A GPU's multiprocessors, and the bytes of shared memory that a block may take."""
    properties = torch.cuda.get_device_properties(index)
    shared: int = getattr(properties, "shared_memory_per_block_optin")  # noqa: B009 (no stub)
    return properties.multi_processor_count, shared
