"""Calls of a method, checked: a custom one may fail, or give something else than it should."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor

from dass.errors import ConfigError, DassError, PatternError
from dass.pruning.masks import keep_mask
from dass.pruning.method import (
    Comparison,
    Method,
    Refined,
    Refinement,
    ScoreMethod,
    Statistics,
    UpdateMethod,
)
from dass.pruning.neuron_order import regroups
from dass.pruning.patterns import Axis, NofM, Pattern, Scope
from dass.terms import ROLES_OF, Role, Targets


def comparison_of(method: Method, role: Role) -> Comparison:
    """What a method says of a role.

    Raises:
        ConfigError: it fails, or says nothing that is known.
    """
    if isinstance(method, Refined):
        return comparison_of(method.start, role)
    with _explained(method, "comparison", role):
        found: Any = method.comparison(role)
    try:
        scope, axis = found
    except (TypeError, ValueError):
        scope = axis = None
    if scope not in get_args(Scope) or axis not in get_args(Axis):
        scopes, axes = (" or ".join(map(repr, get_args(kind))) for kind in (Scope, Axis))
        raise ConfigError(
            f"{role}: comparison() of method {_name(method)} gives {found!r}, not "
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
            f"{_name(own)} cannot {does} groups along both dimensions ({pattern}); choose a method "
            "that only scores, or another pattern"
        )
    if not isinstance(method, Refined):
        return
    check_groups(method.start, pattern, targets)
    for role in ROLES_OF[targets] if isinstance(pattern, NofM) else ():
        if (axis := comparison_of(method, role).axis) not in method.refinement.axes:
            raise PatternError(
                f"{_name(method.refinement)} cannot refine {pattern} groups along the {axis}, as "
                f"{_name(_first(method))} lays those of {role}; choose another start, or an "
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
            f"{_name(own)} does not only score weights, so that neurons cannot be permuted by its "
            "scores; remove `permute`, or choose a method that only scores"
        )
    roles = [role for role in ROLES_OF[targets] if role != "linear"]
    if not any(regroups(role, comparison_of(method, role), pattern) for role in roles):
        where = "along the neurons" if roles else "in gated MLPs"
        raise ConfigError(
            f"{_name(method)} has no {pattern} groups {where}, so that permuting them changes "
            "nothing; remove `permute`"
        )


def takes_tiles(method: Method) -> bool:
    """Whether a method's masks may have N:M groups along both dimensions.

    Those of scores are; an update method says that it gives such with ``tiles = True``.
    """
    if isinstance(method, UpdateMethod):
        return bool(getattr(method, "tiles", False))
    return not isinstance(method, Refined)


def mask_of(
    method: ScoreMethod | Refined,
    role: Role,
    weight: Tensor,
    statistics: Statistics,
    pattern: Pattern,
    name: str,
) -> Tensor:
    """Bool mask [out, in] of what a method keeps that leaves the kept weights as they are.

    Raises:
        ConfigError: the method fails, or gives something else.
        NumericError, PatternError: as :func:`dass.pruning.masks.keep_mask`.
    """
    if isinstance(method, ScoreMethod):
        scores = scores_of(method, role, weight, statistics, name)
        return keep_mask(scores, pattern, *comparison_of(method, role), name)
    if isinstance(method.start, UpdateMethod):
        _, start = update_of(method.start, role, weight, statistics, pattern, name)
    else:
        start = mask_of(method.start, role, weight, statistics, pattern, name)
    axis, refinement = comparison_of(method, role).axis, method.refinement
    with _explained(refinement, "refine", name):
        mask: Any = refinement.refine(role, weight, statistics, start, pattern, axis, name)
    if not _is_like(mask, weight) or mask.dtype != torch.bool:
        raise _wrong(refinement, "refine", name, _form(mask), "a bool mask", weight)
    return mask  # type: ignore[no-any-return]


def scores_of(
    method: ScoreMethod, role: Role, weight: Tensor, statistics: Statistics, name: str
) -> Tensor:
    """Scores [out, in] of a weight, which ``name`` stands for in errors.

    Raises:
        ConfigError: the method fails, or gives no numbers of the weight's shape.
    """
    with _explained(method, "score", name):
        scores: Any = method.score(role, weight, statistics)
    if not _is_like(scores, weight) or not scores.is_floating_point():
        raise _wrong(method, "score", name, _form(scores), "numbers with a point", weight)
    return scores  # type: ignore[no-any-return]


def update_of(
    method: UpdateMethod,
    role: Role,
    weight: Tensor,
    statistics: Statistics,
    pattern: Pattern,
    name: str,
) -> tuple[Tensor, Tensor]:
    """New weight and bool mask, both [out, in], of a weight, which ``name`` stands for in errors.

    Raises:
        ConfigError: the method fails, or gives something else.
    """
    with _explained(method, "update", name):
        found: Any = method.update(role, weight, statistics, pattern, name)
    updated, mask = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not (
        isinstance(mask, Tensor)
        and mask.dtype == torch.bool
        and _is_like(mask, weight)
        and _is_like(updated, weight)
    ):
        given = f"{_form(updated)} and {_form(mask)}"
        raise _wrong(method, "update", name, given, "the new weight and a bool mask", weight)
    return updated, mask


def _first(method: Method) -> Method:
    return _first(method.start) if isinstance(method, Refined) else method


def _is_like(value: object, weight: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == weight.shape


def _form(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _wrong(
    method: Method | Refinement, call: str, name: str, given: str, wanted: str, weight: Tensor
) -> ConfigError:
    return ConfigError(
        f"{name}: {call}() of method {_name(method)} gives {given}, not {wanted} of the weight's "
        f"shape {list(weight.shape)}; correct the method"
    )


def _name(method: Method | Refinement) -> str:
    return f"{type(method).__module__}:{type(method).__qualname__}"


@contextmanager
def _explained(method: Method | Refinement, call: str, name: str) -> Iterator[None]:
    """Whatever a custom method raises, as one line with the place; our own keep their traceback."""
    try:
        yield
    except (DassError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if type(method).__module__.split(".")[0] == "dass":
            raise
        own = sys.modules[type(method).__module__].__file__
        frames = traceback.extract_tb(error.__traceback__)
        frame = next((one for one in reversed(frames) if one.filename == own), frames[-1])
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            f"{name}: {call}() of method {_name(method)} failed ({what}; {frame.filename}, line "
            f"{frame.lineno}); correct the method"
        ) from error
