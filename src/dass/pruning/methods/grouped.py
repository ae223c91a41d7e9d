"""Metric and comparison group of gate and up, each chosen for itself: the paper's ablation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from dass.pruning.method import Argument, Comparison, Need, Statistics
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Grouped:
    """Any metric for ``gate`` and ``up``, compared within any group; all else as Wanda.

    ``metric: input``:  S_ij = |W_ij| · ‖X_j‖₂;  ``metric: intermediate``:  |W_ij| · ‖Z_i‖₂^α.
    ``group: row``: compared within each output row, N:M groups along the input; ``group: column``:
    within each input column, groups along the output. Input with row is Wanda, intermediate with
    column DaSS. In the other two the norm is the same throughout a group: they are magnitude
    within groups.

    Source: Guo et al. (TMLR 2025, arXiv 2405.01943), section 4: why both were chosen together.
    """

    metric: Annotated[
        Literal["input", "intermediate"], Argument("Whose norm: the input's or the neuron's.")
    ] = "input"
    group: Annotated[Literal["row", "column"], Argument("Within what scores are compared.")] = (
        "column"
    )
    alpha: Annotated[float, Argument("The power of the neuron's norm.", least=0)] = 0.5

    needs: ClassVar[frozenset[Need]] = frozenset({"input_norm", "intermediate_norm"})

    def comparison(self, role: Role) -> Comparison:
        """``gate`` and ``up`` within what was chosen; all else within rows."""
        if role in ("down", "linear") or self.group == "row":
            return Comparison(scope="row", axis="input")
        return Comparison(scope="column", axis="output")

    def score(self, role: Role, weight: Tensor, statistics: Statistics) -> Tensor:
        """Score a projection [out, in]; ``down`` sees the intermediate activation."""
        if role == "linear" or (role != "down" and self.metric == "input"):
            return weight.float().abs() * statistics.get("input_norm")
        neurons = statistics.get("intermediate_norm")
        if role == "down":
            return weight.float().abs() * neurons
        return weight.float().abs() * neurons.pow(self.alpha).unsqueeze(1)
