"""ADMM: the weights that stay make up for those that go, in a few iterations over the layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from dass.pruning.method import Argument, Comparison, Need, Statistics
from dass.pruning.patterns import Pattern
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ADMM:
    """Alternate between the weights' least squares and the mask, with an update of the weights.

    With the weights scaled, V = W · √diag G, Ĝ the inputs' correlation plus ``damping`` on its
    diagonal, ρ = 1 and V₀ the dense V, from U = 0 in each step: Z = mask ∘ (V + U), U ← U + V − Z,
    V ← (V₀ Ĝ + ρ (Z − U)) (Ĝ + ρ I)⁻¹. The last mask ∘ (V + U), scaled back, is the result.
    The mask is chosen anew in each of the first ``mask_steps`` steps, from |V + U|: unstructured,
    the lowest of the whole matrix go; N:M, along the input, of those that are not among the N
    highest of their group the lowest go, at first few and at last all: at step i the share
    1 − (1 − i / mask_steps)³.

    Source: Boža, "Fast and effective weight update for pruned large language models" (TMLR 2024,
    arXiv 2401.02938), algorithms 1 to 3, with the schedules of its code.
    """

    damping: Annotated[
        float, Argument("Added to the correlation's diagonal, as a share of its mean.", above=0)
    ] = 0.1
    steps: Annotated[int, Argument("Steps in all.", above=0)] = 20
    mask_steps: Annotated[int, Argument("First steps, in which masks are chosen.", above=0)] = 15

    needs: ClassVar[frozenset[Need]] = frozenset({"input_gram", "intermediate_gram"})

    def __post_init__(self) -> None:
        """Raises ValueError where masks would change after the last step."""
        if self.mask_steps > self.steps:
            raise ValueError(f"mask_steps must be at most steps, {self.steps}")

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
        from dass.pruning.splitting import Problem, prune_split  # with torch: only to prune

        need: Need = "intermediate_gram" if role == "down" else "input_gram"
        # gate and up share their input, and therefore the inverse.
        key = f"{need} split with damping {self.damping}"
        gram = statistics.get(need)
        problem: Problem = statistics.once(key, lambda: Problem.of(gram, self.damping, name))
        return prune_split(weight, problem, pattern, self.steps, self.mask_steps, name)
