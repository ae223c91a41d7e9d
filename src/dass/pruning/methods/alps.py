"""ALPS: a mask that settles under a growing penalty, then weights fitted to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from dass.pruning.method import Argument, Comparison, Need, Statistics
from dass.pruning.patterns import Pattern
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ALPS:
    """Alternate between the weights' least squares and the mask, ever more strictly, then refit.

    Ĝ is the Gram matrix with ``damping`` of its mean diagonal on the diagonal, scaled so that this
    becomes 1, and V₀ the dense weights scaled to match; Z is V₀ with the lowest pruned, U = 0 and
    ρ = 0.1 at first. A step: V ← (V₀ Ĝ + ρ (Z − U)) (Ĝ + ρ I)⁻¹, Z ← V + U with the lowest pruned,
    U ← U + V − Z. Unstructured, the lowest are those of the whole matrix; N:M groups lie along the
    input.

    Every third step the entries are counted that the mask gained or lost since the last count. If
    there are none and ρ has grown, the steps end. If they are more than 10 % of those that are
    kept, ρ grows by 1.3; more than 0.5 %, by 1.2; fewer, by 1.1, provided that ρ has grown before.
    If it has not, ρ is divided by 5, and Z and U start again if there are any. ρU stays where ρ
    changes. The steps also end where, after 30 of them, fewer than 0.03 % have moved. With the
    mask of the last V, the weights that stay are then fitted in ``gradient_steps`` of conjugate
    gradients per row.

    Source: Meng et al., "ALPS: improved optimization for highly sparse one-shot pruning for large
    language models" (NeurIPS 2024, arXiv 2406.07831), with the schedule of its code.
    """

    damping: Annotated[
        float, Argument("Added to the Gram matrix's diagonal, as a share of its mean.", above=0)
    ] = 0.01
    steps: Annotated[int, Argument("Steps that choose masks, at most.", above=0)] = 300
    gradient_steps: Annotated[
        int, Argument("Steps of conjugate gradients with the last mask.", least=0)
    ] = 10

    needs: ClassVar[frozenset[Need]] = frozenset({"input_gram", "intermediate_gram"})

    def comparison(self, role: Role) -> Comparison:
        """Within the whole matrix, whatever the role."""
        return Comparison(scope="matrix", axis="input")

    def update(
        self, role: Role, weight: Tensor, statistics: Statistics, pattern: Pattern, name: str
    ) -> tuple[Tensor, Tensor]:
        """Prune a projection [out, in] of any role; ``down`` sees the intermediate activation.

        Raises:
            NumericError: weights or the Gram matrix are not finite.
            PatternError: M does not divide the input dimension.
        """
        from dass.pruning.penalty import Layer, prune_with_growing_penalty  # with torch

        need: Need = "intermediate_gram" if role == "down" else "input_gram"
        # gate and up share their input.
        key = f"{need} scaled with damping {self.damping}"
        gram = statistics.get(need)
        layer: Layer = statistics.once(key, lambda: Layer.of(gram, self.damping))
        return prune_with_growing_penalty(
            weight, layer, pattern, self.steps, self.gradient_steps, name
        )
