"""SparseGPT: prune column by column and let the later columns make up for the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from dass.pruning.method import Argument, Comparison, Need, Statistics
from dass.pruning.patterns import Pattern
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SparseGPT:
    """Column by column, with an update of the weights that stay.

    Weights go by the OBS error w² / [H⁻¹]_jj², and the columns to their right are updated.
    Unstructured masks are chosen per block of ``block`` columns within the whole matrix; N:M
    masks every M columns, when the updates have reached them. H is XᵀX up to a factor, which
    changes neither the order of the errors nor the update; ``damping`` times its mean diagonal
    is added to the diagonal.

    Source: Frantar and Alistarh, "SparseGPT: massive language models can be accurately pruned
    in one-shot" (ICML 2023), algorithm 1 and section 3.
    """

    damping: Annotated[
        float,
        Argument("Added to the Gram matrix's diagonal, as a share of its mean.", above=0),
    ] = 0.01
    block: Annotated[int, Argument("Columns for which masks are chosen together.", above=0)] = 128

    needs: ClassVar[frozenset[Need]] = frozenset({"input_gram", "intermediate_gram"})

    def comparison(self, role: Role) -> Comparison:
        """Within each block of columns of the whole matrix, whatever the role."""
        return Comparison(scope="matrix", axis="input")

    def update(
        self, role: Role, weight: Tensor, statistics: Statistics, pattern: Pattern, name: str
    ) -> tuple[Tensor, Tensor]:
        """Prune a projection [out, in] of any role; ``down`` sees the intermediate activation.

        Raises:
            NumericError: the damped Gram matrix is not positive definite.
            PatternError: M does not divide the input dimension.
        """
        from dass.pruning.columns import inverse_factor, prune_columns  # with torch: only to prune

        need: Need = "intermediate_gram" if role == "down" else "input_gram"
        gram = statistics.get(need)
        # gate and up share their input, and therefore its factor.
        key = f"{need} damped by {self.damping}"
        factor: Tensor = statistics.once(key, lambda: inverse_factor(gram, self.damping, name))
        return prune_columns(weight, gram.diagonal() == 0, factor, pattern, self.block, name)
