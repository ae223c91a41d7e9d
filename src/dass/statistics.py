"""What one pass of the calibration tokens through a dense block tells about its GLU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dass.glu import GLU
from dass.methods import Need, Statistics
from dass.scoring import Batch


def collect(
    block: nn.Module, glu: GLU, batches: list[Batch], index: int, needs: frozenset[Need]
) -> Statistics:
    """Run every batch through the dense block as far as ``down`` and sum up what is needed.

    Norms are summed up over batches in float64, Gram matrices in float32.

    Args:
        block: decoder block ``index``, and
        glu: its gated MLP.
        batches: what goes in; unchanged.
        needs: which statistics to collect; with none, nothing is run.
    """
    totals: dict[Need, Tensor] = {}

    def see(norm: Need, product: Need, last: bool) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2)
            if norm in needs:
                add(norm, sum_of_squares(x))
            if product in needs:
                add_gram(totals, product, x)
            if last:
                raise _SeenEnough  # the product with `down` is of no use here

        return hook

    def add(need: Need, value: Tensor) -> None:
        totals[need] = totals[need].add_(value) if need in totals else value

    hooks = [
        glu.gate.linear.register_forward_pre_hook(see("input_norm", "input_gram", False)),
        glu.down.linear.register_forward_pre_hook(
            see("intermediate_norm", "intermediate_gram", True)
        ),
    ]
    try:
        for batch in batches if needs else []:
            try:
                batch.run(block, index)
            except _SeenEnough:
                # Handled right here: a context manager around it would keep the exception, and
                # with it the activations of the frames that it went through, until the next
                # garbage collection.
                continue
    finally:
        for hook in hooks:
            hook.remove()
    return Statistics(
        input_norm=_norm(totals.get("input_norm")),
        intermediate_norm=_norm(totals.get("intermediate_norm")),
        input_gram=totals.get("input_gram"),
        intermediate_gram=totals.get("intermediate_gram"),
    )


def _norm(squares: Tensor | None) -> Tensor | None:
    return None if squares is None else squares.sqrt().float()


def sum_of_squares(x: Tensor) -> Tensor:
    """Σ over tokens of x² for each channel of [tokens, channels], float64; sums are float32."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=0, dtype=torch.float32)
    return norm.double().square()


def add_gram(totals: dict[Need, Tensor], need: Need, x: Tensor) -> None:
    """Add xᵀx of [tokens, channels] to a float32 [channels, channels] total.

    Half-precision inputs on a GPU are multiplied on tensor cores with float32 accumulation:
    their products are exact in float32, so nothing is lost against converting them first.
    """
    if x.is_cuda and x.dtype in (torch.float16, torch.bfloat16):
        if need in totals:
            torch.addmm(totals[need], x.t(), x, out_dtype=torch.float32, out=totals[need])
        else:
            totals[need] = torch.mm(x.t(), x, out_dtype=torch.float32)
        return
    x = x.float()
    if need in totals:
        totals[need].addmm_(x.t(), x)
    else:
        totals[need] = x.t() @ x


class _SeenEnough(Exception):
    """Ends a block's forward at the input of ``down``."""
