"""DaSS: dependency-aware semi-structured sparsity of GLU variants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from dass.pruning.method import Argument, Comparison, Need, Statistics
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DaSS:
    """Weight times the norm of the intermediate neuron that it feeds, to the power alpha.

    Row i of ``gate`` and ``up`` makes Z_i, which column i of ``down`` reads: all three are scored
    by it.

    ``gate``, ``up``:  S_ij = |W_ij| · ‖Z_i‖₂^α, compared within each input column j over the
    output neurons i; N:M groups lie along the output.
    ``down``:  S_ij = |W_ij| · ‖Z_j‖₂, compared within each output row; groups along the input.
    Layers outside a GLU, which the paper does not prune: as Wanda.

    Source: Guo et al., "Dependency-aware semi-structured sparsity of GLU variants in large
    language models" (TMLR 2025, arXiv 2405.01943), section 4; α = 0.5 in all its experiments.
    """

    alpha: Annotated[float, Argument("The power; the paper uses 0.5.", least=0)] = 0.5

    needs: ClassVar[frozenset[Need]] = frozenset({"intermediate_norm"})

    def comparison(self, role: Role) -> Comparison:
        """``gate`` and ``up`` across the neurons that an input feeds; all else as Wanda."""
        if role in ("down", "linear"):
            return Comparison(scope="row", axis="input")
        return Comparison(scope="column", axis="output")

    def score(self, role: Role, weight: Tensor, statistics: Statistics) -> Tensor:
        """Score a projection: ``gate``, ``up`` [intermediate, hidden], ``down`` transposed."""
        if role == "linear":
            return weight.float().abs() * statistics.get("input_norm")
        norm = statistics.get("intermediate_norm")
        if role == "down":
            return weight.float().abs() * norm
        return weight.float().abs() * norm.pow(self.alpha).unsqueeze(1)
