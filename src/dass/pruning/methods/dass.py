"""DaSS: dependency-aware semi-structured sparsity of GLU variants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dass.pruning.methods import Need, Role, Score, Statistics

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DaSS:
    """Row i of ``gate`` and ``up`` makes Z_i, which column i of ``down`` reads: score them by it.

    ``gate``, ``up``:  S_ij = |W_ij| · ‖Z_i‖₂^α, compared within each input column j over the
    output neurons i; N:M groups lie along the output.
    ``down``:  S_ij = |W_ij| · ‖Z_j‖₂, compared within each output row; groups along the input.

    Source: Guo et al., "Dependency-aware semi-structured sparsity of GLU variants in large
    language models" (TMLR 2025, arXiv 2405.01943), section 4; α = 0.5 in all its experiments.
    """

    alpha: float = 0.5

    needs: ClassVar[frozenset[Need]] = frozenset({"intermediate_norm"})

    def score(self, role: Role, weight: Tensor, statistics: Statistics) -> Score:
        """Score a projection: ``gate``, ``up`` [intermediate, hidden], ``down`` transposed."""
        norm = statistics.get("intermediate_norm")
        if role == "down":
            return Score(weight.float().abs() * norm, scope="row", axis="input")
        importance = norm.pow(self.alpha).unsqueeze(1)
        return Score(weight.float().abs() * importance, scope="column", axis="output")
