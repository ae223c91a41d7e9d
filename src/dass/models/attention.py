"""Remember what a block's attention put out, so that the pruned pass need not compute it again.

Where only the MLP is pruned, the attention half of a block gives the same output before and after.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def attentions_of(block: nn.Module) -> dict[str, nn.Module]:
    """The block's children that are called an attention and have projections, by name."""
    return {
        name: child
        for name, child in block.named_children()
        if "attn" in name or "attention" in name
        if any(isinstance(module, nn.Linear) for module in child.modules())
    }


def find_attention(block: nn.Module) -> nn.Module | None:
    """The block's attention: its one child of that name with projections; None if unsure."""
    found = list(attentions_of(block).values())
    return found[0] if len(found) == 1 else None


class AttentionMemory:
    """Records attention's outputs batch by batch, then plays them back in the same order.

    Args:
        block: a decoder block. Where its attention cannot be told, nothing is recorded and the
            second pass computes all of the block again. None, where its attention is pruned in
            between: the same holds.
        offload_to: where outputs are kept in between; None: nothing will be recorded.
        spare: pinned buffers that an earlier block's memory has done with; new ones are slow.
    """

    def __init__(
        self,
        block: nn.Module | None,
        offload_to: torch.device | None,
        spare: list[Tensor] | None = None,
    ) -> None:
        self._module = None if block is None else find_attention(block)
        self._offload_to = offload_to or torch.device("cpu")
        self._spare = [] if spare is None else spare
        self._outputs: list[tuple[Tensor, tuple[Any, ...] | None]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the output of each call of the attention inside."""
        if self._module is None:
            yield
            return
        hook = self._module.register_forward_hook(self._keep)
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Let each call of the attention inside return what the same call returned before."""
        if self._module is None or not self._outputs:
            yield
            return
        self._outputs.reverse()
        self._module.forward = self._play
        try:
            yield
        finally:
            del self._module.forward

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        first, rest = (output[0], output[1:]) if isinstance(output, tuple) else (output, None)
        # Blocks throw away the rest (attention weights, [length, length] per head).
        kept = offload(first, self._offload_to, self._spare.pop() if self._spare else None)
        self._outputs.append((kept, rest and (None,) * len(rest)))

    def _play(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        kept, rest = self._outputs.pop()
        first = kept.to(hidden_states.device, non_blocking=True)
        if first is not kept and kept.is_pinned():
            self._spare.append(kept)
        return first if rest is None else (first, *rest)


def offload(tensor: Tensor, device: torch.device, buffer: Tensor | None = None) -> Tensor:
    """The tensor where it is to be kept; on the host in pinned memory, which copies fast.

    Args:
        tensor: what to keep.
        device: where.
        buffer: pinned memory that may be overwritten, used if it has the right size.
    """
    if tensor.device.type == device.type:
        return tensor
    if not tensor.is_cuda:
        return tensor.to(device)
    if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
        buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return buffer.copy_(tensor, non_blocking=True)
