"""Packed N:M weights times many tokens, on GPUs of compute capability 9.0 (Hopper)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dass.packed.formats import LANES, VECTORS, Groups, Layout
from dass.packed.nvrtc import kernel

THREADS = 256
"""Of a block of the kernels of arrange.cu."""


@dataclass(frozen=True)
class Plan:
    """How a product is cut into blocks."""

    tokens: int
    """Of a block: 32, 64 or 128."""
    gangs: int
    """Warpgroups of a block, each for 128 rows."""
    splits: int
    """Shares of the columns, whose sums are added at the end."""
    stages: int
    """Chunks of columns in shared memory."""
    resident: int = 1
    """Blocks of a multiprocessor."""
    cluster: int = 1
    """Blocks that share copying their tokens."""

    @property
    def rows(self) -> int:
        """Of a block."""
        return 128 * self.gangs

    @property
    def copiers(self) -> int:
        """Threads of a block that copy."""
        return 128 if self.tokens * self.gangs >= 256 else 32

    def stage_bytes(self, layout: Layout) -> int:
        """Of a chunk: tokens and packed tiles."""
        tiles = self.rows // layout.tile_rows
        return 2 * self.tokens * layout.chunk_columns + tiles * VECTORS * LANES * 16

    def memory(self, layout: Layout) -> int:
        """Bytes of shared memory of a block."""
        size = 4 if self.splits > 1 else 2
        out = self.tokens * (self.rows * size + 16)
        return max(self.stages * self.stage_bytes(layout), out) + 1024


def arranged(x: Tensor, layout: Layout, plan: Plan) -> Tensor:
    """Tokens [tokens, in] as the kernel reads them, in x's dtype; padded with zeros."""
    tokens, blocks = len(x), layout.padded[1] // 32
    token_blocks = -(-tokens // plan.tokens)
    out = x.new_empty((token_blocks * plan.tokens, layout.padded[1]))
    count = len(out) * blocks
    launch = kernel("arrange.cu", "arrange", _around(plan, x.dtype, 1, 0), 0, x.device.index)
    launch(
        -(-count // THREADS), THREADS, 0, x.contiguous(), out, x.shape[1], tokens, token_blocks,
        blocks,
    )  # fmt: skip
    return out


def multiply(weights: Sequence[Groups], x: Tensor, activation: int, plan: Plan) -> Tensor:
    """x Wᵀ of one weight, or the gated product of gate and up: [tokens, out].

    Args:
        weights: one, or two packed alike.
        x: [tokens, in].
        activation: the kernel's number for it, of two weights.
        plan: how to cut the product.
    """
    layout, device, matrices, tokens = weights[0].layout, x.device.index, len(weights), len(x)
    out = x.new_empty((tokens, layout.rows))
    split, whole = plan.splits > 1, plan.splits == 1 and matrices == 1
    shape = (plan.splits, matrices, tokens, layout.rows)
    sums = out if whole else out.new_empty(shape, dtype=torch.float32 if split else x.dtype)
    token_blocks = -(-tokens // plan.tokens)
    row_blocks = -(-layout.rows // (plan.rows * plan.cluster)) * plan.cluster
    memory = plan.memory(layout)
    launch = kernel("many.cu", "many", _definitions(layout, plan, x.dtype), memory, device)
    launch(
        token_blocks * row_blocks * plan.splits * matrices, 128 * plan.gangs + plan.copiers, memory,
        weights[0].data, weights[-1].data, arranged(x, layout, plan), sums, layout.rows, tokens,
        layout.tiles, layout.chunks, plan.splits, token_blocks, row_blocks,
    )  # fmt: skip
    if not whole:
        combine = kernel(
            "arrange.cu", "combine", _around(plan, x.dtype, matrices, activation), 0, device
        )
        each = 1 if out.numel() % 4 else 4
        blocks = -(-out.numel() // (each * THREADS))
        combine(blocks, THREADS, 0, sums, out, out.numel(), plan.splits, each)
    return out


@functools.cache
def _around(
    plan: Plan, dtype: torch.dtype, matrices: int, activation: int
) -> tuple[tuple[str, int], ...]:
    definitions = {
        "TOKENS": plan.tokens, "BF16": int(dtype == torch.bfloat16), "GROUP": 0, "OUTPUT": 0,
        "TILES": 1, "WARPS": 4, "MATRICES": matrices, "ACTIVATION": activation, "UNPACK": 0,
        "SPLIT": int(plan.splits > 1),
    }  # fmt: skip
    return tuple(definitions.items())


@functools.cache
def _definitions(layout: Layout, plan: Plan, dtype: torch.dtype) -> tuple[tuple[str, int], ...]:
    definitions = {
        "GROUP": layout.group, "OUTPUT": int(layout.axis == "output"), "TOKENS": plan.tokens,
        "GANGS": plan.gangs, "COPIERS": plan.copiers, "STAGES": plan.stages,
        "RESIDENT": plan.resident, "CLUSTER": plan.cluster, "SPLIT": int(plan.splits > 1),
        "BF16": int(dtype == torch.bfloat16),
        "TILES": 1, "WARPS": 4, "MATRICES": 1, "ACTIVATION": 0, "UNPACK": 0,
    }  # fmt: skip
    return tuple(definitions.items())
