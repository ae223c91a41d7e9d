"""Packed N:M weights times many tokens, on GPUs of compute capability 9.0 (Hopper)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dass.packed.formats import LANES, VECTORS, Groups, Layout
from dass.packed.many import arranged
from dass.packed.nvrtc import kernel

THREADS = 256


@dataclass(frozen=True)
class Plan:
    """How a product is cut into blocks."""

    tokens: int
    """Of a block: 32, 64 or 128."""
    gangs: int
    """Warpgroups of a block, each for 128 rows."""
    stages: int
    """Chunks of columns in shared memory."""
    resident: int = 1
    """Blocks of a multiprocessor."""
    multiprocessors: int = 132
    splits: int = 1

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
        return self.stages * self.stage_bytes(layout) + 4 * self.gangs * 16 * 36 * 4 + 1024


def multiply(weights: Sequence[Groups], x: Tensor, activation: int, plan: Plan) -> Tensor:
    layout, device, matrices, tokens = weights[0].layout, x.device.index, len(weights), len(x)
    out = x.new_empty((tokens, layout.rows))
    wide = out if matrices == 1 else x.new_empty((matrices, tokens, layout.rows))
    token_blocks = -(-tokens // plan.tokens)
    row_blocks = -(-layout.rows // (plan.rows))
    tiles = token_blocks * row_blocks * matrices
    workers = min(plan.multiprocessors * plan.resident, tiles * layout.chunks)
    parts = tiles % workers
    partial = wide
    if parts:
        partial = x.new_empty(
            (2 * workers, plan.tokens, plan.rows), dtype=torch.float32
        )
    memory = plan.memory(layout)
    launch = kernel("many4.cu", "many", _definitions(layout, plan, x.dtype, 1, 0), memory, device)
    launch(
        workers, 128 * plan.gangs + plan.copiers, memory, weights[0].data,
        weights[-1].data, arranged(x, layout, plan), wide, partial, layout.rows, tokens,
        layout.tiles, layout.chunks, matrices, token_blocks, row_blocks,
    )  # fmt: skip
    if parts or matrices == 2:
        definitions = _definitions(layout, plan, x.dtype, matrices, activation)
        combine = kernel("many4.cu", "combine", definitions, 0, device)
        pieces = plan.tokens * plan.rows // 1024
        count = parts if matrices == 1 else tiles // 2
        combine(
            count * pieces, THREADS, 0, wide, partial, out, layout.rows, tokens, layout.chunks,
            token_blocks, row_blocks, workers,
        )  # fmt: skip
    return out


@functools.cache
def _definitions(
    layout: Layout, plan: Plan, dtype: torch.dtype, matrices: int, activation: int
) -> tuple[tuple[str, int], ...]:
    definitions = {
        "GROUP": layout.group, "OUTPUT": int(layout.axis == "output"), "TOKENS": plan.tokens,
        "GANGS": plan.gangs, "COPIERS": plan.copiers, "STAGES": plan.stages,
        "RESIDENT": plan.resident, "TRADE": int(plan.tokens * plan.gangs >= 256),
        "BF16": int(dtype == torch.bfloat16),
        "TILES": 1, "WARPS": 4, "MATRICES": matrices, "ACTIVATION": activation, "UNPACK": 0,
    }  # fmt: skip
    return tuple(definitions.items())
