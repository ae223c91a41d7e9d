"""2:4 through torch's semi-structured tensors: which masks they take, and proof that they did.

Sparse tensor cores skip along the dimension that a product sums over. In y = x·Wᵀ that is the
input dimension of W [out, in], the last one. Groups that lie along the output, as DaSS has them in
gate and up, give the hardware nothing to skip; given such a matrix, a conversion may drop
non-zeros without a word. Hence the axis is checked before the conversion and the round trip after.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

from dass.errors import PatternError

Compress = Callable[[Tensor], Tensor]
"""A 2:4 matrix [out, in] -> a tensor that ``torch.nn.functional.linear`` takes as its weight."""

STOCK_AXIS = "the input dimension, which the product sums over"
KEPT, GROUP = 2, 4


def is_2of4(weight: Tensor, axis: str) -> bool:
    """Whether each 4 consecutive entries along ``input`` (dim 1) or ``output`` hold 2 at most."""
    along = weight if axis == "input" else weight.t()
    if along.shape[1] % GROUP:
        return False
    counts = (along != 0).reshape(along.shape[0], -1, GROUP).sum(2)
    return bool((counts <= KEPT).all())


def check_axis(weight: Tensor, name: str) -> None:
    """Refuse a matrix that stock 2:4 kernels cannot run.

    Raises:
        PatternError: its groups do not lie along the input; says whether along the output.
    """
    if is_2of4(weight, "input"):
        return
    if is_2of4(weight, "output"):
        raise PatternError(
            f"{name}: its 2:4 groups lie along the output dimension, but stock sparse kernels "
            f"skip along {STOCK_AXIS}; it runs as a dense matrix only"
        )
    raise PatternError(f"{name}: not 2:4 along {STOCK_AXIS}")


def backends() -> dict[str, Compress]:
    """Name -> conversion, of each library that torch has kernels of."""
    from torch.sparse import (
        SparseSemiStructuredTensorCUSPARSELT,
        SparseSemiStructuredTensorCUTLASS,
    )

    return {
        "cusparselt": SparseSemiStructuredTensorCUSPARSELT.from_dense,
        "cutlass": SparseSemiStructuredTensorCUTLASS.from_dense,
    }


def convert(weight: Tensor, compress: Compress, name: str, round_trip: bool = True) -> Tensor:
    """Convert a 2:4 matrix, having checked its axis, and prove that nothing was lost.

    Args:
        weight: [out, in], contiguous, 2:4 along the input.
        compress: a backend's conversion.
        name: what to call the matrix in an error.
        round_trip: convert back and compare.

    Raises:
        PatternError: the groups do not lie along the input, or the round trip changed an entry.
    """
    check_axis(weight, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once that this is a prototype
        sparse = compress(weight)
        if round_trip:
            # A backend that converts for this card may still have no kernel for it.
            linear(weight.new_ones((64, weight.shape[1])), sparse)
            if not torch.equal(sparse.to_dense(), weight):
                raise PatternError(f"{name}: the conversion to 2:4 changed its entries; not timed")
    return sparse
