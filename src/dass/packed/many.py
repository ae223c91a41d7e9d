"""Packed N:M weights times many tokens, on GPUs of compute capability 9.0 (Hopper)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dass.packed.formats import LANES, VECTORS, Groups, Layout, pack
from dass.packed.nvrtc import Launch, kernel
from dass.packed.product import aligned, kernels_run_on, limits
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import Axis, NofM

log = logging.getLogger(__name__)

MOST_TOKENS = {4: 4096, 8: 1024}
"""By M of N:M, up to how many tokens the kernel is faster than unpacking the weight; measured."""

PAYS_TO = {4: 128, 8: 64}
"""The same for dense weights that are at hand."""

BLOCK_ROWS = 256
"""Rows of a tile of the product, which a block of threads multiplies."""

MOST_STAGES = 8
"""Chunks of columns that a block copies ahead, where shared memory holds them."""

TURNING_BYTES = 8 * 16 * 36 * 4
"""Of shared memory, in which sums are turned before they are written."""

RESERVED_BYTES = 1024 + 256
"""To begin at a multiple of 1024, and what the kernel declares itself."""

THREADS = 256
"""Of a block of the kernels of arrange.cu."""

ADDING = 8
"""What it costs to add parts, in chunks."""

UNUSED = {"TILES": 1, "MATRICES": 1, "ACTIVATION": 0, "UNPACK": 0}
"""What common.cuh wants defined, for other kernels."""


@dataclass(frozen=True)
class Plan:
    """How a product, or those of gate and up, is dealt to blocks of threads."""

    tokens: int
    """Of a tile: 32, 64, 96 or 128."""
    token_blocks: int
    row_blocks: int
    """Of each matrix."""
    whole: int
    """Tiles that are not cut, the first ones of all."""
    workers: int
    """Blocks of threads."""


def runs_on(device: torch.device) -> bool:
    """Whether the kernel runs on a device: its instructions are those of 9.0 alone."""
    return kernels_run_on(device) and torch.cuda.get_device_capability(device) == (9, 0)


@functools.cache
def sound(group: int, axis: Axis, dtype: torch.dtype, width: int, device: torch.device) -> bool:
    """Whether the kernel as this machine compiles it multiplies rightly; tried once, on a GPU.

    Compilers have been seen to read accumulators before the tensor cores had written them.

    Args:
        group, axis: M of the weights' masks, and along which dimension their groups lie.
        dtype: float16 or bfloat16.
        width: of a tile of tokens.
        device: that the kernel runs on.
    """
    rows, columns = 512, 1024
    generator = torch.Generator(device).manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator, device=device)
    mask = keep_mask(weight.abs(), NofM(group // 2, group), "row", axis)
    dense = weight.mul_(mask).to(dtype)
    x = torch.randn(width, columns, generator=generator, device=device).to(dtype)
    got = multiply([pack(dense, mask, group, axis)], x).float()
    wanted = x.float() @ dense.float().T
    right = bool((got - wanted).abs().max() < 0.02 * wanted.abs().max())
    if not right:
        log.warning(
            "the packed kernel for many tokens is not right as this machine's NVRTC compiles it; "
            "more than 16 tokens take other ways, which are slower"
        )
    return right


def width_of(tokens: int) -> int:
    """Of a tile of so many tokens: 32, 64, 96 or 128."""
    if 128 < tokens <= 192:
        return 96
    return next(width for width in (32, 64, 96, 128) if tokens <= width or width == 128)


def plan_of(layout: Layout, matrices: int, tokens: int, multiprocessors: int) -> Plan:
    """The plan that was fastest where it was measured.

    Tiles are dealt whole as long as all multiprocessors get as many; what is left, or all, is cut
    along the columns where that saves more than adding the parts costs.
    """
    width = width_of(tokens)
    token_blocks, row_blocks = -(-tokens // width), -(-layout.rows // BLOCK_ROWS)
    tiles, chunks = token_blocks * row_blocks * matrices, layout.chunks
    turns = -(-tiles // multiprocessors)
    uncut = Plan(width, token_blocks, row_blocks, tiles, -(-tiles // turns))
    cut = tiles % multiprocessors
    whole = tiles - cut
    if cut == 0:
        return uncut
    workers = multiprocessors if whole else multiprocessors // cut * cut
    cost = whole // multiprocessors * chunks + cut * chunks / workers + ADDING
    if cut * chunks < workers or cost > turns * chunks:
        return uncut
    return Plan(width, token_blocks, row_blocks, whole, workers)


def multiply(weights: Sequence[Groups], x: Tensor, activation: int = 0) -> Tensor:
    """x Wᵀ of one weight; or of gate and up act(x Gᵀ) · (x Uᵀ), rounded after each step.

    Args:
        weights: one, or two packed alike, on a device that the kernel runs on.
        x: [tokens, in], in the dtype that was packed.
        activation: the kernel's number for it, of two weights.

    Returns:
        [tokens, out] in the dtype of ``x``; sums are float32.
    """
    multiprocessors, _ = limits(x.device.index)
    return planned(
        weights, x, activation, plan_of(weights[0].layout, len(weights), len(x), multiprocessors)
    )


def planned(weights: Sequence[Groups], x: Tensor, activation: int, plan: Plan) -> Tensor:
    """:func:`multiply`, as a plan says."""
    layout, device, matrices, tokens = weights[0].layout, x.device.index, len(weights), len(x)
    tiles = plan.token_blocks * plan.row_blocks * matrices
    out = x.new_empty((tokens, layout.rows))
    wide = out if matrices == 1 else x.new_empty((matrices, tokens, layout.rows))
    parts = plan.workers * 2 if plan.whole < tiles else 0
    partial = x.new_empty((parts, plan.tokens, BLOCK_ROWS), dtype=torch.float32)
    stages, memory = stages_of(layout, plan.tokens, limits(device)[1])
    definitions = {
        "TOKENS": plan.tokens, "BF16": int(x.dtype == torch.bfloat16), "GROUP": layout.group,
        "OUTPUT": int(layout.axis == "output"), "STAGES": stages, **UNUSED,
    }  # fmt: skip
    many = kernel("many.cu", "many", tuple(definitions.items()), memory, device)
    threads = 256 + (128 if plan.tokens > 64 else 32)
    sizes = (plan.token_blocks, plan.row_blocks, plan.whole)
    many(
        plan.workers, threads, memory, weights[0].data, weights[-1].data, arranged(x, layout, plan),
        wide, partial, layout.rows, tokens, layout.tiles, layout.chunks, matrices, *sizes,
    )  # fmt: skip
    if parts or matrices == 2:
        combine = _beside("combine", x, plan, matrices, activation)
        count = tiles // 2 if matrices == 2 else tiles - plan.whole
        combine(
            count * plan.tokens * BLOCK_ROWS // (4 * THREADS), THREADS, 0, wide, partial, out,
            layout.rows, tokens, layout.chunks, *sizes, plan.workers,
        )  # fmt: skip
    return out


def arranged(x: Tensor, layout: Layout, plan: Plan) -> Tensor:
    """Tokens [tokens, in] in the order in which the kernel reads them, padded with zeros."""
    padded, blocks = plan.token_blocks * plan.tokens, layout.padded[1] // 32
    out = x.new_empty((padded, layout.padded[1]))
    _beside("arrange", x, plan)(
        -(-padded * blocks // THREADS), THREADS, 0, aligned(x), out, x.shape[1], len(x),
        plan.token_blocks, blocks,
    )  # fmt: skip
    return out


def stages_of(layout: Layout, tokens: int, shared: int) -> tuple[int, int]:
    """Chunks that a block copies ahead, and its bytes of shared memory of at most ``shared``."""
    tiles = BLOCK_ROWS // layout.tile_rows
    stage = 2 * tokens * layout.chunk_columns + tiles * VECTORS * LANES * 16
    stages = min(MOST_STAGES, (shared - RESERVED_BYTES - TURNING_BYTES) // stage)
    return stages, stages * stage + TURNING_BYTES + 1024


def _beside(name: str, x: Tensor, plan: Plan, matrices: int = 1, activation: int = 0) -> Launch:
    """A kernel of arrange.cu."""
    definitions = UNUSED | {
        "GROUP": 0, "OUTPUT": 0, "TOKENS": plan.tokens, "BF16": int(x.dtype == torch.bfloat16),
        "MATRICES": matrices, "ACTIVATION": activation,
    }  # fmt: skip
    return kernel("arrange.cu", name, tuple(definitions.items()), 0, x.device.index)
