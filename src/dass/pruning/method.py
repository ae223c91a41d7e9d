"""What a pruning method is: the interface of the files in :mod:`dass.pruning.methods`.

A method is a frozen dataclass, and its fields are its arguments in a config. It says which
statistics of the calibration tokens it ``needs``, and per role how its scores are compared
(:meth:`ScoreMethod.comparison`). It comes in one of three kinds:

* a :class:`ScoreMethod` gives a score to each weight; :func:`dass.pruning.masks.keep_mask` does
  the rest;
* an :class:`UpdateMethod` chooses the mask itself and may change the weights that stay;
* a :class:`Refinement` makes a mask of another method better. The config names that method under
  ``start``, and both together are a :class:`Refined` method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from dass.pruning.patterns import Axis, Pattern, Scope
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor

Need = Literal[
    "input_norm",
    "intermediate_norm",
    "input_gram",
    "intermediate_gram",
    "input_mean",
    "intermediate_mean",
    "input_variance",
    "intermediate_variance",
    "gradient",
]
"""A field of :class:`Statistics`."""


@dataclass(frozen=True)
class Argument:
    """What a config says about a field: ``Annotated[float, Argument("…", least=0)]``."""

    description: str
    above: float | None = None
    """The field must be greater than this."""
    least: float | None = None
    """The field must be at least this."""


@dataclass(frozen=True)
class Statistics:
    """What one pass of the calibration tokens through a dense block tells about its GLU.

    X is the input of ``gate`` and ``up``; Z = act(gate(x)) · up(x) is the input of ``down``.
    All are over every calibration token, float32, on the weights' device. A field that
    the method did not ask for is None.

    A linear layer outside a GLU, of the role ``linear``, has the fields ``input_…`` only: X is its
    own input. Of each kind (norm, gram, mean, variance) that the method asks for, of whichever
    input, it has that of X.
    """

    input_norm: Tensor | None = None
    """[hidden]: ‖X_j‖₂ of each input channel."""
    intermediate_norm: Tensor | None = None
    """[intermediate]: ‖Z_i‖₂ of each intermediate neuron."""
    input_gram: Tensor | None = None
    """[hidden, hidden]: XᵀX."""
    intermediate_gram: Tensor | None = None
    """[intermediate, intermediate]: ZᵀZ."""
    input_mean: Tensor | None = None
    """[hidden]: mean of X_j over tokens."""
    intermediate_mean: Tensor | None = None
    """[intermediate]: mean of Z_i over tokens."""
    input_variance: Tensor | None = None
    """[hidden]: variance of X_j within a sequence, its mean over sequences; not Bessel's."""
    intermediate_variance: Tensor | None = None
    """[intermediate]: variance of Z_i, likewise."""

    gradient: Tensor | None = None
    """[out, in], of the matrix at hand: the root mean square, over sequences, of the gradient that
    the L2 norm of the block's output has with respect to each weight."""

    derived: dict[str, Any] = field(default_factory=dict)
    """What a method computed from these and wants again for the block's other projections."""

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """What was derived under ``key`` before; made, and kept, the first time."""
        if key not in self.derived:
            self.derived[key] = make()
        return self.derived[key]

    def get(self, need: Need) -> Tensor:
        """The field ``need``, which the method must have asked for."""
        value: Tensor | None = getattr(self, need)
        if value is None:
            raise LookupError(
                f"{need} was not collected: list it in the method's `needs` (a layer outside a GLU "
                "has that of its input only)"
            )
        return value


class Comparison(NamedTuple):
    """How the scores of one matrix [out, in] are compared."""

    scope: Scope
    """Within which entries unstructured patterns compare."""
    axis: Axis
    """Along which dimension the M entries of an N:M group lie."""


@runtime_checkable
class ScoreMethod(Protocol):
    """A method that scores weights and leaves the kept ones as they are."""

    @property
    def needs(self) -> frozenset[Need]:
        """The statistics that it reads."""

    def comparison(self, role: Role) -> Comparison:
        """How the scores of the projection ``role`` are compared."""

    def score(self, role: Role, weight: Tensor, statistics: Statistics) -> Tensor:
        """Scores, float32 [out, in], of the projection ``role``; the lowest go."""


@runtime_checkable
class UpdateMethod(Protocol):
    """A method that chooses the mask and updates the weights that stay.

    One whose masks may have N:M groups along both dimensions says so: ``tiles: ClassVar = True``.
    """

    @property
    def needs(self) -> frozenset[Need]:
        """The statistics that it reads."""

    def comparison(self, role: Role) -> Comparison:
        """Within what the method compares entries, and along what it lays N:M groups."""

    def update(
        self, role: Role, weight: Tensor, statistics: Statistics, pattern: Pattern, name: str
    ) -> tuple[Tensor, Tensor]:
        """Prune ``weight`` [out, in].

        Returns:
            (new weight [out, in] in the dtype of ``weight``, bool mask [out, in] of kept entries).
        """


@runtime_checkable
class Refinement(Protocol):
    """What makes a mask better; the weights that stay are the dense model's."""

    @property
    def needs(self) -> frozenset[Need]:
        """The statistics that it reads, beside those of the method that it starts from."""

    axes: ClassVar[frozenset[Axis]]
    """Along which dimensions N:M groups may lie; a start that lays others is refused."""

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
        """A better mask, bool [out, in], than ``mask``, which stays as it is.

        It keeps as many entries as ``mask``; for N:M as many of each group along ``axis``.
        """


@dataclass(frozen=True)
class Refined:
    """A refinement and the method whose mask it starts from; of an update method the mask only."""

    refinement: Refinement
    start: Method

    @property
    def needs(self) -> frozenset[Need]:
        """The statistics that either reads."""
        return self.refinement.needs | self.start.needs

    def comparison(self, role: Role) -> Comparison:
        """As the start compares: its groups stay."""
        return self.start.comparison(role)


Method = ScoreMethod | UpdateMethod | Refined
