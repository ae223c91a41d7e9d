"""What a model does behind its blocks, where that is nothing but modules one after the other.

For most models that is a norm and a head. To go through the model's ``forward`` for every few
rows would cost more time than the norm: embeddings, masks and all blocks would be passed by.
Models that do more, as scale or cap their logits, keep to their own code.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Call = tuple[nn.Module, Any, Any]
"""A module that was called, its only argument, and what it returned."""


def find_head(
    model: nn.Module, hidden: Tensor, logits: Callable[[Tensor], Tensor]
) -> nn.Sequential | None:
    """The modules that make logits of the last block's output; None: there is more to it.

    Args:
        model: in evaluation mode, with its weights in place.
        hidden: [rows, hidden], to try it with.
        logits: the model's own way from those to [rows, vocabulary].
    """
    calls: list[Call] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if len(inputs) == 1:
            calls.append((module, inputs[0], output))

    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(note) for module in leaves]
    try:
        wanted = logits(hidden)
    finally:
        for hook in hooks:
            hook.remove()
    chain = _chain(calls, hidden, wanted)
    if chain is None or not torch.equal(nn.Sequential(*chain)(hidden), wanted):
        return None
    return nn.Sequential(*chain)


def _chain(calls: Sequence[Call], start: Tensor, end: Tensor) -> list[nn.Module] | None:
    """The calls that lead from one tensor to the other, each handed on in the same memory."""
    chain: list[nn.Module] = []
    reached = end
    for module, given, returned in reversed(calls):
        if _same_memory(returned, reached):
            chain.insert(0, module)
            reached = given
    return chain if chain and _same_memory(reached, start) else None


def _same_memory(one: Any, other: Any) -> bool:
    """Whether two tensors are the same numbers, but for dimensions of one entry."""
    return (
        isinstance(one, Tensor)
        and isinstance(other, Tensor)
        and one.data_ptr() == other.data_ptr()
        and one.squeeze().shape == other.squeeze().shape
        and one.dtype == other.dtype
    )
