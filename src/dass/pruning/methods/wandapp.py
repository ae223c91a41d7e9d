"""Wanda++'s regional gradient score: Wanda's, with the gradient of the block's output in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from dass.pruning.method import Argument, Comparison, Need, Statistics
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class WandaPP:
    """Size of a weight, times the norm of its input plus the weight's regional gradient.

    S_ij = (alpha · G_ij + ‖X_j‖₂) · |W_ij|, compared within each row; N:M groups lie along the
    input. G is the root mean square, over sequences, of ∂‖f(X)‖₂ / ∂W, with f the dense decoder
    block and X one sequence of its inputs. ‖X_j‖₂ is that of Wanda, over all tokens.

    Source: Yang et al., "Wanda++: pruning large language models via regional gradients" (Findings
    of ACL 2025, arXiv 2503.04992), the regional gradient score. Their regional optimizer, which
    moves the weights, is not part of it.
    """

    alpha: Annotated[float, Argument("Weight of the gradient; the paper uses 100.", least=0)] = (
        100.0
    )

    needs: ClassVar[frozenset[Need]] = frozenset({"input_norm", "intermediate_norm", "gradient"})

    def comparison(self, role: Role) -> Comparison:
        """Within each row, whatever the role."""
        return Comparison(scope="row", axis="input")

    def score(self, role: Role, weight: Tensor, statistics: Statistics) -> Tensor:
        """Score a projection [out, in]; ``down`` sees the intermediate activation."""
        norm = statistics.get("intermediate_norm" if role == "down" else "input_norm")
        gradient = statistics.get("gradient")
        return gradient.mul(self.alpha).add_(norm).mul_(weight.float().abs())
