"""The intermediate neurons of a gated MLP in another order: the same function, other groups.

Rows of gate and up and columns of down move together. Neuron i is then the one that ``order[i]``
names.
"""

from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from dass.errors import ModelError
from dass.models.glu import GLU

Move = tuple[int, Tensor]
"""A dimension of a tensor, and int64 [its size]: where each of its new entries comes from."""


def moves_of(glu: GLU, block: nn.Module, order: Tensor, where: str) -> dict[str, Move]:
    """What moves where a GLU's neurons do: tensors or matrices of the block, by their names.

    Args:
        glu: of the block.
        block: the decoder block, on any device, also ``meta``.
        order: int64 [neurons], a permutation.
        where: what to call the block in an error.

    Raises:
        ModelError: the MLP has a parameter of which it is not known how neurons lie in it.
    """
    rows: dict[str, list[Tensor]] = {}
    for projection in (glu.gate, glu.up):  # the order of their rows where they are one matrix
        rows.setdefault(projection.matrix, []).append(order + (projection.rows.start or 0))
    moves: dict[str, Move] = {name: (0, torch.cat(parts)) for name, parts in rows.items()}
    moves[glu.down.matrix] = (1, order)
    if glu.expert is not None:  # whose module has no other parameters
        return moves
    moves |= {f"{name.removesuffix('weight')}bias": moves[name] for name in rows}
    known = {*moves, f"{glu.down.matrix.removesuffix('weight')}bias"}
    module, hidden = block.get_submodule(glu.path), glu.down.whole.shape[0]
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        full = f"{glu.path}.{name}".removeprefix(".")
        if full in known or glu.intermediate_size not in tensor.shape:
            continue
        if tensor.dim() != 1 or hidden == glu.intermediate_size:
            raise ModelError(
                f"{where}: how neurons lie in {full} is not understood, so that they cannot be "
                "permuted; remove `permute`"
            )
        moves[full] = (0, order)
    return moves


def moved(moves: Mapping[str, Move], name: str, tensor: Tensor, rows: slice | None) -> Tensor:
    """A tensor in the new order; itself where nothing of it moves.

    Args:
        moves: name of a tensor, or of an expert's matrix, -> its move.
        name: of the tensor, also one of all experts, or of a matrix.
        tensor: its value.
        rows: which rows of the matrix ``tensor`` holds, whole projections; None: all.
    """
    if name in moves:
        dim, index = moves[name]
        if rows is not None and dim == 0:
            index = index[rows] - rows.start
        return tensor.index_select(dim, index.to(tensor.device))
    if tensor.dim() == 3 and f"{name}.0" in moves:
        parts = (moved(moves, f"{name}.{n}", own, None) for n, own in enumerate(tensor))
        return torch.stack(list(parts))
    return tensor
