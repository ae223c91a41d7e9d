"""SparseSwaps: exchange a kept and a pruned weight while the layer's output comes closer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from dass.pruning.method import Argument, Need, Statistics
from dass.pruning.patterns import Axis, Pattern
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SparseSwaps:
    """Refine a mask by the swaps that lower the output's error most.

    The error of a row w, with G the Gram matrix of its inputs and v the pruned part of w, is
    vᵀGv. To prune the kept weight p and restore the pruned u changes it by
    2 w_p e_p + w_p² G_pp − 2 w_u e_u + w_u² G_uu − 2 w_p w_u G_pu with e = Gv. The best swap is
    made while it lowers the error, by more than what rounding may do.

    Unstructured: within a row, whatever the start compares within, so that the number of entries
    that a row keeps stays. N:M along the input: within a group of a row. N:M along the output:
    between two rows of one column's group; the change is the sum of the two rows', without the
    last term.

    Source: Zimmer et al., "SparseSwaps: tractable LLM pruning mask refinement at scale"
    (arXiv 2512.10922); groups along the output are not in it.
    """

    swaps: Annotated[int, Argument("Swaps per row at most.", above=0)] = 100

    needs: ClassVar[frozenset[Need]] = frozenset({"input_gram", "intermediate_gram"})
    axes: ClassVar[frozenset[Axis]] = frozenset({"input", "output"})

    def refine(
        self,
        role: Role,
        weight: Tensor,
        statistics: Statistics,
        mask: Tensor,
        pattern: Pattern,
        axis: Axis,
        name: str,
    ) -> Tensor:
        """Refine the mask [out, in] of any role; ``down`` sees the intermediate activation."""
        from dass.pruning.swaps import swap  # with torch: only to prune

        gram = statistics.get("intermediate_gram" if role == "down" else "input_gram")
        return swap(weight, gram, mask, pattern, axis, self.swaps, name)
