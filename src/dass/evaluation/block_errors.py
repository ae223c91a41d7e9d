"""What pruning does to each decoder block: the error of its GLU, and of all that came before it.

Of a mixture of experts the GLU is the smallest module that holds all that is pruned in the block;
its router gets the same input in both models, so that it sends tokens to the same experts.

A dense and a pruned model go through the same windows side by side, block by block. Block l of the
pruned model reads what its pruned blocks 0..l-1 give, as it does when the model is used.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dass.errors import DataError, ModelError
from dass.models.batches import Batch, batches_of
from dass.models.glu import GLU, Projection, common_module, find_glus, glus_of
from dass.models.streamed import StreamedModel, check_finite
from dass.pruning.pruned_file import PrunedFile
from dass.runtime.progress import Progress

DECILES = 10


@dataclass(frozen=True)
class BlockErrors:
    """The errors of one block over all windows; norms are Frobenius norms, sums are float64."""

    glu: float
    """‖GLU(x) − GLU_pruned(x)‖ / ‖GLU(x)‖, x being what the pruned block's GLU is given."""
    hidden: float
    """‖h − h_pruned‖ / ‖h‖ of the block's output, each model on its own way."""


class RelativeError:
    """‖wanted − got‖ / ‖wanted‖ over everything that is added."""

    def __init__(self) -> None:
        self._difference: Tensor | float = 0.0
        self._wanted: Tensor | float = 0.0

    def add(self, wanted: Tensor, got: Tensor) -> None:
        """Add two tensors of one shape."""
        exact = wanted.double()
        self._difference += (exact - got.double()).square().sum()
        self._wanted += exact.square().sum()

    def value(self) -> float:
        """The error; 0 where the two are equal, though nothing but zeros were wanted."""
        if not self._difference:
            return 0.0
        return float(torch.as_tensor(self._difference / self._wanted).sqrt())


@torch.inference_mode()
def block_errors(dense: StreamedModel, pruned: StreamedModel, windows: Tensor) -> list[BlockErrors]:
    """The errors of each block on windows, int64 [n, length].

    Windows go through one at a time, so that nothing depends on how many fit into the memory.

    Args:
        dense: the dense model, and
        pruned: the same with a pruned file as its overlay.
        windows: the tokens.

    Raises:
        ModelError: a block's GLU is not a module of its own.
        NumericError: an activation is not finite.
    """
    found = []
    # Both models' hidden states stay on the device only if all of them fit there.
    size = 2 * windows.numel() * dense.hidden_size * dense.dtype.itemsize
    ours, theirs = (
        [batch for window in windows.split(1) for batch in batches_of(model, window, size)]
        for model in (dense, pruned)
    )
    progress = Progress("block errors", dense.n_blocks, "blocks")
    for index in range(dense.n_blocks):
        with dense.block(index) as block, pruned.block(index) as other:
            found.append(_errors_of(block, other, ours, theirs, index, dense.folder.name))
        progress.step()
    return found


def _errors_of(
    dense: nn.Module, pruned: nn.Module, ours: list[Batch], theirs: list[Batch], index: int,
    model: str,
) -> BlockErrors:  # fmt: skip
    """The errors of one block; both models' batches go through it."""
    where = f"{model}, block {index}"
    glu, hidden, peaks = RelativeError(), RelativeError(), []
    dense_glu, pruned_glu = (_module(block, where) for block in (dense, pruned))
    for batch, other in zip(ours, theirs, strict=True):
        peaks.append(batch.advance(dense, index))
        with _watching(pruned_glu) as calls:
            peaks.append(other.advance(pruned, index))
        for args, kwargs, output in calls:
            glu.add(_states(dense_glu(*args, **kwargs)), _states(output))
        device = peaks[0].device
        hidden.add(batch.hidden.to(device), other.hidden.to(device))
    check_finite(peaks, where)
    return BlockErrors(glu.value(), hidden.value())


def _states(output: Any) -> Tensor:
    """The hidden states that a module gives, alone or before other things."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


def _module(block: nn.Module, where: str) -> nn.Module:
    """The block's GLU, or all of its experts, as a module."""
    if not (glus := find_glus(block, where)):
        raise ModelError(f"{where}: has no GLU; leave the model out of `blocks`")
    module = common_module(block, glus)
    if module is block:
        raise ModelError(
            f"{where} ({type(block).__name__}): its GLU is not a module of its own, whose error "
            "could be told; leave the model out of `blocks`"
        )
    return module


@contextmanager
def _watching(module: nn.Module) -> Iterator[list[tuple[Any, dict[str, Any], Any]]]:
    """What a module is called with meanwhile, and what it gives."""
    calls: list[tuple[Any, dict[str, Any], Any]] = []

    def see(_module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        calls.append((args, kwargs, output))

    hook = module.register_forward_hook(see, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def kept_shares(
    model: StreamedModel, pruned: PrunedFile, norms: Sequence[Tensor], where: str
) -> list[list[float]]:
    """Of each block the share of gate's and up's weights that is kept, by tenths of the neurons.

    Args:
        model: the dense model.
        pruned: of the model.
        norms: [intermediate] for each block: ‖Z‖ of each neuron in the dense model, GLU by GLU.
        where: what to call the norms in an error.

    Raises:
        DataError: the norms are of another model.
        ModelError: no GLU was pruned.
    """
    if pruned.targets == "attention":
        raise ModelError(
            f"{pruned.path}: prunes no gated MLP (targets: attention); leave it out of `blocks`"
        )
    glus = glus_of(model.layers, model.folder.name)
    if [len(own) for own in norms] != [sum(g.intermediate_size for g in own) for own in glus]:
        raise DataError(
            f"{where}: norms of another model than {model.folder}; delete it, run again"
        )
    return [
        kept_by_decile(
            torch.cat([kept_of_neurons(glu, pruned, f"{model.prefix}.{index}") for glu in block]),
            own,
        )
        for index, (block, own) in enumerate(zip(glus, norms, strict=True))
    ]


def kept_by_decile(kept: Tensor, norms: Tensor) -> list[float]:
    """Share of the weights of gate and up that is kept in each tenth of the neurons.

    Args:
        kept: [intermediate]: the share kept of each neuron's weights.
        norms: [intermediate]: ‖Z‖ of each neuron in the dense model, by which they are sorted.

    Returns:
        From the quietest tenth to the loudest; tenths differ by one neuron at most.
    """
    order = norms.argsort(stable=True)
    return [float(part.mean()) for part in kept.double()[order].tensor_split(DECILES)]


def kept_of_neurons(glu: GLU, mask_of: PrunedFile, prefix: str) -> Tensor:
    """float64 [intermediate]: the share kept of each neuron's weights in gate and up.

    Args:
        glu: of a block.
        mask_of: the pruned file.
        prefix: of the block's parameters in it.
    """

    def share(projection: Projection) -> Tensor:
        mask = mask_of.mask(f"{prefix}.{projection.matrix}")[projection.rows]
        return mask.double().mean(1)

    return (share(glu.gate) + share(glu.up)) / 2
