"""Calls of a method, checked: a custom one may fail, or give something else than it should."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dass.errors import ConfigError
from dass.pruning.masks import keep_mask
from dass.pruning.method import Method, Refined, Refinement, ScoreMethod, Statistics, UpdateMethod
from dass.pruning.method_checks import comparison_of, explained, name_of
from dass.pruning.patterns import Pattern
from dass.terms import Role


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
    with explained(refinement, "refine", name):
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
    with explained(method, "score", name):
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
    with explained(method, "update", name):
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
    method: Method | Refinement, call: str, name: str, given: str, wanted: str, weight: Tensor
) -> ConfigError:
    return ConfigError(
        f"{name}: {call}() of method {name_of(method)} gives {given}, not {wanted} of the weight's "
        f"shape {list(weight.shape)}; correct the method"
    )
