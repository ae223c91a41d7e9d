"""Calls of a method, checked: a custom one may fail, or give something else than it should."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor

from dass.errors import ConfigError, DassError
from dass.pruning.method import Comparison, Method, ScoreMethod, Statistics, UpdateMethod
from dass.pruning.patterns import Axis, Pattern, Scope
from dass.terms import Role


def comparison_of(method: Method, role: Role) -> Comparison:
    """What a method says of a role.

    Raises:
        ConfigError: it fails, or says nothing that is known.
    """
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


def _is_like(value: object, weight: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == weight.shape


def _form(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _wrong(
    method: Method, call: str, name: str, given: str, wanted: str, weight: Tensor
) -> ConfigError:
    return ConfigError(
        f"{name}: {call}() of method {_name(method)} gives {given}, not {wanted} of the weight's "
        f"shape {list(weight.shape)}; correct the method"
    )


def _name(method: Method) -> str:
    return f"{type(method).__module__}:{type(method).__qualname__}"


@contextmanager
def _explained(method: Method, call: str, name: str) -> Iterator[None]:
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
