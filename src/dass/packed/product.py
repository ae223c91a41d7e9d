"""Packed weights on the GPU: products with a few tokens, and the dense weight."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dass.packed.bitmap import Bitmap
from dass.packed.formats import LANES, VECTORS, WORDS, Groups
from dass.packed.nvrtc import Argument, Launch, kernel
from dass.packed.strips import Strips

MOST_TOKENS = 16
"""Tokens that one launch takes."""

ACTIVATIONS = ("silu", "gelu_tanh", "gelu")
"""The activation functions of gated products, by the kernel's number for each."""

RINGS = {(1, 1): (16, 2), (2, 1): (8, 2), (1, 2): (12, 2), (2, 2): (8, 2)}
"""Matrices, tiles of 8 tokens -> warps of a block, chunks that each copies ahead; measured."""

BITMAP_RINGS = {1: (16, 2), 2: (12, 2)}
"""The same of bitmaps, by tiles of 8 tokens alone."""

TABLE_BYTES = 256
"""What the kernels declare of shared memory themselves, at most."""

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
        return [weight.data, weight.spill, weight.begins]
    return [weight.data]


def _multiply(weights: Sequence[Packed], x: Tensor, activation: int) -> Tensor:
    """Products of one weight, or of gate and up, with tokens [tokens, in]."""
    layout = weights[0].layout
    if x.shape[1] != layout.padded[1]:
        x = torch.nn.functional.pad(x, (0, layout.padded[1] - x.shape[1]))
    out = x.new_empty((len(x), layout.rows))
    _launch(weights, aligned(x), out, activation)
    return out


def aligned(x: Tensor) -> Tensor:
    """The same, contiguous and where vectors of 16 bytes can be read; a view may begin anywhere."""
    x = x.contiguous()
    return x if x.data_ptr() % 16 == 0 else x.clone()


@dataclass(frozen=True)
class Ring:
    """How the warps of a block copy weights ahead through shared memory."""

    warps: int
    stages: int
    """Chunks of each warp, those of gate and up counted apart."""
    memory: int
    """Bytes of shared memory; behind the chunks lie the sums of all warps, of one matrix."""


def ring_of(weights: Sequence[Packed], tokens: int, shared: int) -> Ring:
    """The ring for so many tokens of a GPU with ``shared`` bytes for a block."""
    matrices, tiles, tile_rows = len(weights), token_tiles(tokens), weights[0].layout.tile_rows
    warps, most = BITMAP_RINGS[tiles] if isinstance(weights[0], Bitmap) else RINGS[matrices, tiles]
    while True:
        chunk, sums = warps * max(map(chunk_bytes, weights)), warps * tile_rows * tiles * 8 * 4
        stages = min(most, (shared - TABLE_BYTES - sums) // chunk) // matrices * matrices
        if stages > 1:  # one is copied while the other is used
            return Ring(warps, stages, stages * chunk + sums)
        warps -= 4


def chunk_bytes(weight: Packed) -> int:
    """What a chunk takes of shared memory, at most."""
    if isinstance(weight, Bitmap):
        return (WORDS + max(weight.depth, weight.most)) * LANES * 4
    return VECTORS * LANES * 16


def token_tiles(tokens: int) -> int:
    """How many tiles of 8 tokens tensor cores multiply."""
    return 1 + (tokens > 8)


def _launch(weights: Sequence[Packed], x: Tensor | None, out: Tensor, activation: int) -> None:
    """Let the kernel write ``out``: products with tokens; or, without them, the weight."""
    matrices, tokens = len(weights), 0 if x is None else len(x)
    layout, both = weights[0].layout, (weights[0], weights[-1])
    bitmaps = [weight for weight in both if isinstance(weight, Bitmap)]
    device = out.device.index
    multiprocessors, shared = limits(device)
    ring = ring_of(weights, tokens, shared)
    definitions = {
        "GROUP": 0 if bitmaps else layout.group, "OUTPUT": int(layout.axis == "output"),
        "TILES": token_tiles(tokens), "WARPS": ring.warps, "STAGES": ring.stages,
        "MATRICES": matrices, "ACTIVATION": activation,
        "BF16": int(out.dtype == torch.bfloat16), "UNPACK": int(x is None),
    }  # fmt: skip
    arguments: list[Argument] = [tensor for weight in both for tensor in tensors_of(weight)]
    arguments += [out if x is None else x, out]
    arguments += [layout.rows, layout.columns if x is None else layout.padded[1], tokens]
    arguments += [layout.tiles, layout.chunks]
    if bitmaps:
        height = max(map(chunk_bytes, bitmaps)) // (LANES * 4)
        arguments += [*(weight.depth for weight in bitmaps), height]
    source, blocks = "bitmap.cu" if bitmaps else "groups.cu", min(layout.tiles, multiprocessors)
    launch: Launch = kernel(source, "product", tuple(definitions.items()), ring.memory, device)
    launch(blocks, 32 * ring.warps, ring.memory, *arguments)


@functools.cache
def limits(index: int) -> tuple[int, int]:
    """A GPU's multiprocessors, and the bytes of shared memory that a block may take."""
    properties = torch.cuda.get_device_properties(index)
    shared: int = getattr(properties, "shared_memory_per_block_optin")  # noqa: B009 (no stub)
    return properties.multi_processor_count, shared
