"""Wanda: weight magnitude times the norm of the input that the weight sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dass.pruning.method import Comparison, Need, Statistics
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Wanda:
    """Weight times the norm of its input.

    S_ij = |W_ij| · ‖X_j‖₂, compared within each output row; N:M groups lie along the input.

    Source: Sun et al., "A simple and effective pruning approach for large language models"
    (ICLR 2024), equation 1.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"input_norm", "intermediate_norm"})

    def comparison(self, role: Role) -> Comparison:
        """Within each output row, whatever the role."""
        return Comparison(scope="row", axis="input")

    def score(self, role: Role, weight: Tensor, statistics: Statistics) -> Tensor:
        """Score a projection [out, in]; ``down`` sees the intermediate activation."""
        norm = statistics.get("intermediate_norm" if role == "down" else "input_norm")
        return weight.float().abs() * norm
