"""What of a decoder block is pruned: its gated MLPs, its attention's linear layers, or both."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from dass.errors import ModelError
from dass.models.attention import attentions_of
from dass.models.glu import GLU, Projection, find_glus, glus_of
from dass.terms import Targets

FUSED = ("qkv_proj", "o_proj")
"""What the layer that holds the rows of q, then k's, then v's, is called, and o beside it."""


@dataclass(frozen=True)
class BlockTargets:
    """The matrices of one decoder block that are pruned."""

    glus: tuple[GLU, ...]
    linears: tuple[Projection, ...]
    """Those of its self attention, rows of one layer side by side; all of the role ``linear``."""

    @property
    def projections(self) -> tuple[Projection, ...]:
        """All of them."""
        return (*(one for glu in self.glus for one in glu.projections), *self.linears)

    @property
    def matrices(self) -> tuple[str, ...]:
        """What a pruned file calls them within the block, each once."""
        return tuple(dict.fromkeys(one.matrix for one in self.projections))


def find_targets(block: nn.Module, where: str, targets: Targets) -> BlockTargets:
    """What of a decoder block is pruned; it may have nothing. Weights may be on any device.

    Args:
        block: a decoder block.
        where: what to call it in an error, e.g. ``llama2-7b, block 0``.
        targets: what is asked for.

    Raises:
        ModelError: as :func:`dass.models.glu.find_glus`; or it has several self attentions.
    """
    return BlockTargets(
        find_glus(block, where) if targets != "attention" else (),
        find_attention_layers(block, where) if targets != "mlp" else (),
    )


def targets_of(blocks: Iterable[nn.Module], model: str, targets: Targets) -> list[BlockTargets]:
    """What of each block of a model is pruned; some blocks may have nothing.

    Raises:
        ModelError: as :func:`find_targets`; or no block has what is asked for.
    """
    listed = list(blocks)
    if targets != "attention":
        glus_of(listed, model)
    found = [find_targets(one, f"{model}, block {n}", targets) for n, one in enumerate(listed)]
    if targets != "mlp" and not any(block.linears for block in found):
        raise ModelError(
            f"{model} ({type(listed[0]).__name__}): no block has a self attention of linear layers "
            f"that `targets: {targets}` could prune; set `targets: mlp`"
        )
    return found


def find_attention_layers(block: nn.Module, where: str) -> tuple[Projection, ...]:
    """The linear layers of a block's self attention, in its order; none of a block without one.

    Recurrences, which some models call a linear attention, are none. A layer that holds q, k and v
    is three matrices where it lies beside ``o_proj``, whose columns say how many rows q has.

    Raises:
        ModelError: the block has several.
    """
    found = {name: one for name, one in attentions_of(block).items() if "linear" not in name}
    if len(found) > 1:
        raise ModelError(
            f"{where}: has several attentions ({', '.join(found)}), which is not supported; set "
            "`targets: mlp`"
        )
    return tuple(
        Projection("linear", layer, f"{f'{name}.{path}'.removesuffix('.')}.weight", rows)
        for name, attention in found.items()
        for path, layer in attention.named_modules()
        if isinstance(layer, nn.Linear)
        for rows in _parts(attention, path, layer)
    )


def _parts(attention: nn.Module, path: str, layer: nn.Linear) -> Iterator[slice]:
    """The rows of q, k and v of a layer that holds all three; all rows of any other."""
    fused, out = FUSED
    beside = getattr(attention, out, None)
    if path == fused and isinstance(beside, nn.Linear):
        queries, rest = beside.in_features, layer.out_features - beside.in_features
        if rest > 0 and rest % 2 == 0:
            middle = queries + rest // 2
            yield from (slice(0, queries), slice(queries, middle))
            yield slice(middle, layer.out_features)
            return
    yield slice(None)
