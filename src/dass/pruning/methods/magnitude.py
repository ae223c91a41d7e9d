"""Magnitude pruning: the smallest weights go. The baseline that needs no data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dass.pruning.method import Comparison, Need, Statistics
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Magnitude:
    """The smallest weights go.

    S_ij = |W_ij|, compared within the whole matrix; N:M groups lie along the input.

    Source: Han et al., "Learning both weights and connections for efficient neural networks"
    (NeurIPS 2015), section 3, as the DaSS paper uses it (section 5, baselines).
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    def comparison(self, role: Role) -> Comparison:
        """Within the whole matrix, whatever the role."""
        return Comparison(scope="matrix", axis="input")

    def score(self, role: Role, weight: Tensor, statistics: Statistics) -> Tensor:
        """Score a projection [out, in] of any role."""
        return weight.float().abs()
