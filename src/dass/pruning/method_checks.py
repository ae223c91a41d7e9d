"""What a method says before it sees a weight, checked; without torch, so that plans are quick."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

from dass.errors import ConfigError, DassError, PatternError
from dass.pruning.method import Comparison, Method, Refined, Refinement, UpdateMethod
from dass.pruning.patterns import Axis, NofM, Pattern, Scope
from dass.terms import NEURON_DIM, ROLES_OF, Role, Targets


def comparison_of(method: Method, role: Role) -> Comparison:
    """What a method says of a role.

    Raises:
        ConfigError: it fails, or says nothing that is known.
    """
    if isinstance(method, Refined):
        return comparison_of(method.start, role)
    with explained(method, "comparison", role):
        found: Any = method.comparison(role)
    try:
        scope, axis = found
    except (TypeError, ValueError):
        scope = axis = None
    if scope not in get_args(Scope) or axis not in get_args(Axis):
        scopes, axes = (" or ".join(map(repr, get_args(kind))) for kind in (Scope, Axis))
        raise ConfigError(
            f"{role}: comparison() of method {name_of(method)} gives {found!r}, not "
            f"Comparison(scope, axis) of {scopes}, and {axes}; correct the method"
        )
    return Comparison(scope, axis)


def check_groups(method: Method, pattern: Pattern, targets: Targets = "mlp") -> None:
    """Refuse N:M groups that a method cannot lay, or a refinement cannot move within.

    Raises:
        PatternError: which groups, and what to do.
    """
    if isinstance(pattern, NofM) and pattern.both and not takes_tiles(method):
        own = method.refinement if isinstance(method, Refined) else method
        does = "refine" if isinstance(method, Refined) else "lay"
        raise PatternError(
            f"{name_of(own)} cannot {does} groups along both dimensions ({pattern}); choose a "
            "method that only scores, or another pattern"
        )
    if not isinstance(method, Refined):
        return
    check_groups(method.start, pattern, targets)
    for role in ROLES_OF[targets] if isinstance(pattern, NofM) else ():
        if (axis := comparison_of(method, role).axis) not in method.refinement.axes:
            raise PatternError(
                f"{name_of(method.refinement)} cannot refine {pattern} groups along the {axis}, as "
                f"{name_of(first_of(method))} lays those of {role}; choose another start, or an "
                "unstructured pattern"
            )


def check_permutes(method: Method, pattern: NofM, targets: Targets = "mlp") -> None:
    """Refuse to permute neurons where that cannot be, or where no group would be another.

    Raises:
        ConfigError: why, and what to do.
    """
    if isinstance(method, UpdateMethod | Refined):
        own = method.refinement if isinstance(method, Refined) else method
        raise ConfigError(
            f"{name_of(own)} does not only score weights, so that neurons cannot be permuted by "
            "its scores; remove `permute`, or choose a method that only scores"
        )
    roles = [role for role in ROLES_OF[targets] if role != "linear"]
    if not any(regroups(role, comparison_of(method, role), pattern) for role in roles):
        where = "along the neurons" if roles else "in gated MLPs"
        raise ConfigError(
            f"{name_of(method)} has no {pattern} groups {where}, so that permuting them changes "
            "nothing; remove `permute`"
        )


def takes_tiles(method: Method) -> bool:
    """Whether a method's masks may have N:M groups along both dimensions.

    Those of scores are; an update method says that it gives such with ``tiles = True``.
    """
    if isinstance(method, UpdateMethod):
        return bool(getattr(method, "tiles", False))
    return not isinstance(method, Refined)


def regroups(role: Role, comparison: Comparison, pattern: NofM | None = None) -> bool:
    """Whether a role's groups lie along the neurons, so that the order of these decides."""
    along = "output" if NEURON_DIM[role] == 0 else "input"
    return comparison.axis == along or (pattern is not None and pattern.both)


def first_of(method: Method) -> Method:
    """The method that chains of refinements start from."""
    return first_of(method.start) if isinstance(method, Refined) else method


def name_of(method: Method | Refinement) -> str:
    """What to call it in an error."""
    return f"{type(method).__module__}:{type(method).__qualname__}"


@contextmanager
def explained(method: Method | Refinement, call: str, name: str) -> Iterator[None]:
    """Whatever a custom method raises, as one line with the place; our own keep their traceback."""
    try:
        yield
    except (DassError, MemoryError):
        raise
    except Exception as error:
        ours = type(method).__module__.split(".")[0] == "dass"
        if ours or type(error).__name__ == "OutOfMemoryError":  # torch's
            raise
        own = sys.modules[type(method).__module__].__file__
        frames = traceback.extract_tb(error.__traceback__)
        frame = next((one for one in reversed(frames) if one.filename == own), frames[-1])
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            f"{name}: {call}() of method {name_of(method)} failed ({what}; {frame.filename}, line "
            f"{frame.lineno}); correct the method"
        ) from error
