"""RIA: how large a weight is among those of its row and column, times its input's norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from dass.pruning.method import Argument, Comparison, Need, Statistics
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RIA:
    """Relative importance of a weight times a power of the norm of its input.

    S_ij = (|W_ij| / Σ_i |W_ij| + |W_ij| / Σ_j |W_ij|) · ‖X_j‖₂^a; N:M groups lie along the input.
    With ``a`` = 0 it is the relative importance alone, and no calibration token is run. A row or
    column of zeros scores zero.

    Source: Zhang et al., "Plug-and-play: an efficient post-training pruning method for large
    language models" (ICLR 2024), equations 3 and 4. Their code compares within the matrix unless
    asked to compare within rows.
    """

    a: Annotated[float, Argument("The power of the norm; the paper uses 0.5.", least=0)] = 0.5
    scope: Annotated[
        Literal["matrix", "row"], Argument("Within what unstructured scores are compared.")
    ] = "matrix"

    @property
    def needs(self) -> frozenset[Need]:
        """The norms, unless their power is 0."""
        return frozenset({"input_norm", "intermediate_norm"} if self.a else ())

    def comparison(self, role: Role) -> Comparison:
        """As asked, whatever the role."""
        return Comparison(scope=self.scope, axis="input")

    def score(self, role: Role, weight: Tensor, statistics: Statistics) -> Tensor:
        """Score a projection [out, in]; ``down`` sees the intermediate activation."""
        size = weight.float().abs()
        columns, rows = (_inverse(size.sum(dim)) for dim in (0, 1))
        if not self.a:
            return size * (columns + rows.unsqueeze(1))
        norm = statistics.get("intermediate_norm" if role == "down" else "input_norm")
        power = norm.pow(self.a)
        return size.mul_((columns * power).addcmul(rows.unsqueeze(1), power))


def _inverse(sums: Tensor) -> Tensor:
    """1 / x, and 0 where x is."""
    return sums.reciprocal().masked_fill(sums == 0, 0.0)
