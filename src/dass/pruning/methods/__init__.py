"""The pruning methods: pure tensor functions of one block's weights and statistics.

A method is a frozen dataclass whose fields are its arguments. It says which statistics it
``needs`` and comes in one of two kinds:

* a :class:`ScoreMethod` gives a score to each weight; :func:`dass.pruning.masks.keep_mask` does the rest;
* an :class:`UpdateMethod` chooses the mask itself and may change the weights that stay.

A method of one's own needs no change here: ``function: mypackage.mymodule:MyMethod`` in the
config names any such class that Python can import.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from dass.errors import ConfigError
from dass.pruning.patterns import Axis, Pattern, Scope

if TYPE_CHECKING:
    from torch import Tensor

Role = Literal["gate", "up", "down"]
"""Which of a GLU's three projections a matrix is."""

ROLES: tuple[Role, ...] = ("gate", "up", "down")

Need = Literal["input_norm", "intermediate_norm", "input_gram", "intermediate_gram"]
"""A field of :class:`Statistics`."""

BUILT_IN = {
    "magnitude": "dass.pruning.methods.magnitude:Magnitude",
    "wanda": "dass.pruning.methods.wanda:Wanda",
    "sparsegpt": "dass.pruning.methods.sparsegpt:SparseGPT",
    "dass": "dass.pruning.methods.dass:DaSS",
}


@dataclass(frozen=True)
class Statistics:
    """What one pass of the calibration tokens through a dense block tells about its GLU.

    X is the input of ``gate`` and ``up``; Z = act(gate(x)) · up(x) is the input of ``down``.
    All are sums over every calibration token, float32, on the weights' device. A field that
    the method did not ask for is None.
    """

    input_norm: Tensor | None = None
    """[hidden]: ‖X_j‖₂ of each input channel."""
    intermediate_norm: Tensor | None = None
    """[intermediate]: ‖Z_i‖₂ of each intermediate neuron."""
    input_gram: Tensor | None = None
    """[hidden, hidden]: XᵀX."""
    intermediate_gram: Tensor | None = None
    """[intermediate, intermediate]: ZᵀZ."""

    derived: dict[str, Any] = field(default_factory=dict)
    """What a method computed from these and wants again for the block's other projections."""

    def get(self, need: Need) -> Tensor:
        """The field ``need``, which the method must have asked for."""
        value: Tensor | None = getattr(self, need)
        if value is None:
            raise LookupError(f"{need} was not collected: list it in the method's `needs`")
        return value


@dataclass(frozen=True)
class Score:
    """A score for each weight, and how scores are compared."""

    values: Tensor
    """[out, in], float32; the lowest go."""
    scope: Scope
    """Within which entries unstructured patterns compare."""
    axis: Axis
    """Along which dimension N:M groups lie."""


@runtime_checkable
class ScoreMethod(Protocol):
    """A method that scores weights and leaves the kept ones as they are."""

    needs: ClassVar[frozenset[Need]]

    def score(self, role: Role, weight: Tensor, statistics: Statistics) -> Score:
        """Score ``weight`` [out, in], the projection ``role`` of a block's GLU."""


@runtime_checkable
class UpdateMethod(Protocol):
    """A method that chooses the mask and updates the weights that stay."""

    needs: ClassVar[frozenset[Need]]

    def update(
        self, role: Role, weight: Tensor, statistics: Statistics, pattern: Pattern, name: str
    ) -> tuple[Tensor, Tensor]:
        """Prune ``weight`` [out, in].

        Returns:
            (new weight [out, in] in the dtype of ``weight``, bool mask [out, in] of kept entries).
        """


Method = ScoreMethod | UpdateMethod


def find_class(function: str) -> str:
    """The ``module:Class`` of a method: a built-in name, or already written so.

    Raises:
        ConfigError: neither.
    """
    if function in BUILT_IN:
        return BUILT_IN[function]
    if re.fullmatch(r"\w+(\.\w+)*:\w+", function):
        return function
    raise ConfigError(
        f"unknown method {function!r}: the built-in ones are {', '.join(BUILT_IN)}; "
        "write package.module:Class for one of your own"
    )


def make_method(function: str, arguments: dict[str, Any]) -> Method:
    """Build the method ``function`` with ``arguments``.

    Raises:
        ConfigError: it cannot be imported, does not take the arguments, or is no method.
    """
    module_name, class_name = find_class(function).split(":")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"method {function!r} cannot be imported: {error}") from None
    try:
        method = cls(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"method {function!r} does not take {arguments}: {error}") from None
    if not isinstance(method, ScoreMethod | UpdateMethod):
        raise ConfigError(f"method {function!r} has neither score() nor update(), or no `needs`")
    return method
