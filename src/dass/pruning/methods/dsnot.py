"""DSnoT: exchange kept and pruned weights until a row's mean output is that of the dense row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from dass.pruning.method import Argument, Need, Statistics
from dass.pruning.patterns import Axis, Pattern
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DSnoT:
    """Dynamic sparse no training: refine a mask by the mean of each row's error.

    With μ the mean of the inputs and σ² their variance within a sequence, a row's mean error is
    ε = Σ W_j μ_j over its pruned weights. In each cycle the pruned weight with the largest
    W_j μ_j / σ_j² returns if ε > 0, else that with the lowest; and a kept one goes, by the lowest
    |W_j| · ‖X_j‖₂: unstructured, of those whose W_j μ_j has the other sign; N:M, of its group. No
    weight moves twice. A row ends when |ε| is within ``threshold``, or no such weight is left to
    it; for N:M also when ε would change its sign.

    Source: Zhang et al., "Dynamic sparse no training: training-free fine-tuning for sparse LLMs"
    (ICLR 2024), section 3, with the choices of its code, which leaves the MLP as it is unless
    asked.
    """

    cycles: Annotated[int, Argument("Exchanges per row at most.", above=0)] = 50
    threshold: Annotated[
        float, Argument("Of the error summed over 2048 tokens, as in its code.", least=0)
    ] = 0.1

    needs: ClassVar[frozenset[Need]] = frozenset(
        {
            "input_norm",
            "input_mean",
            "input_variance",
            "intermediate_norm",
            "intermediate_mean",
            "intermediate_variance",
        }
    )
    axes: ClassVar[frozenset[Axis]] = frozenset({"input"})

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
        from dass.pruning.regrowing import regrow  # with torch: only to prune

        needs: tuple[Need, Need, Need] = ("input_norm", "input_mean", "input_variance")
        if role == "down":
            needs = ("intermediate_norm", "intermediate_mean", "intermediate_variance")
        norm, mean, variance = map(statistics.get, needs)
        w = weight.float()
        score, shift = w.abs() * norm, w * mean
        return regrow(score, shift, variance, mask, pattern, self.cycles, self.threshold)
