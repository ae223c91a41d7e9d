"""What pruning a model yields, and how it is kept block by block."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from dass.pruning.pruned_file import mask_hash
from dass.pruning.resume import BlockCheckpoints
from dass.terms import Role


@dataclass
class Pruned:
    """What pruning a model yields; tensors are on the host."""

    masks: dict[str, Tensor] = field(default_factory=dict)
    """Matrix name -> packed mask, uint8; a matrix is a parameter, or an expert's slice of one."""
    values: dict[str, Tensor] = field(default_factory=dict)
    """Matrix name -> kept weights, of methods that update weights."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Matrix name -> shape."""
    sparsity: dict[str, float] = field(default_factory=dict)
    """Matrix name -> share of entries that are pruned."""
    expert_tokens: dict[str, int] = field(default_factory=dict)
    """Expert -> how many calibration tokens its router sent to it."""
    orders: dict[str, Tensor] = field(default_factory=dict)
    """GLU -> int32 [neurons]: the order in which its N:M groups lie, where it is not its own."""
    kept_shares: dict[str, dict[Role, tuple[float, float]]] = field(default_factory=dict)
    """Permuted GLU -> role -> share of the score that is kept in its own order, and in that."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds: loading, statistics, masks, replay, saving, total."""

    block_seconds: list[float] = field(default_factory=list)
    """Seconds of each decoder block, reading included."""

    def add(self, block: Pruned, seconds: float) -> None:
        """Note the shapes and sparsity of one more block, and the seconds that it took."""
        self.shapes |= block.shapes
        self.sparsity |= block.sparsity
        self.expert_tokens |= block.expert_tokens
        self.kept_shares |= block.kept_shares
        self.block_seconds.append(seconds)

    def take(self, part: Pruned) -> None:
        """Take over the masks and all else of some more matrices of the block."""
        self.masks |= part.masks
        self.values |= part.values
        self.shapes |= part.shapes
        self.sparsity |= part.sparsity

    @property
    def mean_sparsity(self) -> float:
        """The share of pruned entries in all pruned matrices together."""
        sizes = {name: float(torch.Size(shape).numel()) for name, shape in self.shapes.items()}
        return sum(self.sparsity[n] * size for n, size in sizes.items()) / sum(sizes.values())

    @property
    def hash(self) -> str:
        """The hash of all masks."""
        return mask_hash(self.masks, self.masks.__getitem__)


class BlockWriter:
    """Keeps what pruning each block gave: in what is returned, or in block checkpoints.

    A file is written in the background, while the next block computes; never more than one, so
    that no more than two blocks' masks and values stand in memory.
    """

    def __init__(self, pruned: Pruned, checkpoints: BlockCheckpoints | None) -> None:
        self._pruned, self._checkpoints = pruned, checkpoints
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def keep(self, index: int, own: Pruned, started: float) -> None:
        """Keep a block on which work began at ``started``."""
        seconds = round(time.monotonic() - started, 4)
        self._pruned.add(own, seconds)
        if self._checkpoints is None:
            self._pruned.masks |= own.masks
            self._pruned.orders |= own.orders
            # Out of pinned memory, of which there is only so much.
            self._pruned.values |= {name: value.clone() for name, value in own.values.items()}
            return
        self._writing = self._thread.submit(
            self._checkpoints.save, index, own.masks, own.values, own.shapes,
            {
                "sparsity": own.sparsity, "expert_tokens": own.expert_tokens,
                "kept_shares": own.kept_shares, "seconds": seconds,
            },
            own.orders,
        )  # fmt: skip

    def wait(self) -> None:
        """Until the file is written that is being written; raises what went wrong with it."""
        if self._writing is not None:
            self._writing.result()
