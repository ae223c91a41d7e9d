"""Masks against hand-computed ones and against a slow oracle that sorts each group in Python."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dass.errors import NumericError, PatternError
from dass.pruning.masks import LARGEST_RANKED_GROUP, keep_mask
from dass.pruning.patterns import Axis, NofM, Pattern, Scope, Unstructured, parse_pattern

SCOPES: list[Scope] = ["matrix", "row", "column"]
AXES: list[Axis] = ["input", "output"]

Place = tuple[int, int]


def groups_of(shape: Place, pattern: Pattern, scope: Scope, axis: Axis) -> Iterator[list[Place]]:
    """The places of each comparison group, lowest index first."""
    rows, columns = range(shape[0]), range(shape[1])
    if isinstance(pattern, Unstructured):
        if scope == "matrix":
            yield [(i, j) for i in rows for j in columns]
        elif scope == "row":
            yield from ([(i, j) for j in columns] for i in rows)
        else:
            yield from ([(i, j) for i in rows] for j in columns)
    elif axis == "input":
        starts = columns[:: pattern.group]
        yield from ([(i, s + k) for k in range(pattern.group)] for i in rows for s in starts)
    else:
        starts = rows[:: pattern.group]
        yield from ([(s + k, j) for k in range(pattern.group)] for j in columns for s in starts)


def how_many_go(pattern: Pattern, size: int) -> int:
    if isinstance(pattern, Unstructured):
        return math.floor(size * pattern.percent / 100)
    return pattern.group - pattern.kept


def oracle(
    scores: list[list[float]], pattern: Pattern, scope: Scope, axis: Axis
) -> list[list[bool]]:
    """Sort each group stably, drop the first ones."""
    keep = [[True] * len(row) for row in scores]
    for group in groups_of((len(scores), len(scores[0])), pattern, scope, axis):
        in_order = sorted(group, key=lambda place: scores[place[0]][place[1]])
        for i, j in in_order[: how_many_go(pattern, len(group))]:
            keep[i][j] = False
    return keep


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Pattern, Scope, Axis]:
    """Matrices whose scores are few (many ties) or any float32; patterns that fit them."""
    axis, scope = draw(st.sampled_from(AXES)), draw(st.sampled_from(SCOPES))
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    pattern: Pattern
    if draw(st.booleans()):
        pattern = parse_pattern(f"u{draw(st.integers(1, 999)) / 10}")
    else:
        group = draw(st.integers(2, 8))
        pattern = NofM(draw(st.integers(1, group - 1)), group)
        if axis == "input":
            columns = group * draw(st.integers(1, 3))
        else:
            rows = group * draw(st.integers(1, 3))
    score = draw(
        st.sampled_from(
            [st.integers(0, 3).map(float), st.floats(-(2.0**100), 2.0**100, width=32), st.just(0.0)]
        )
    )
    values = draw(st.lists(score, min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(values).reshape(rows, columns), pattern, scope, axis


@settings(max_examples=400, deadline=None)
@given(cases())
@example((torch.tensor([[0.0, -0.0, 0.0, -0.0]]), NofM(2, 4), "row", "input"))
def test_a_mask_is_what_stable_sorting_gives(case: tuple[Tensor, Pattern, Scope, Axis]) -> None:
    scores, pattern, scope, axis = case
    mask = keep_mask(scores, pattern, scope, axis)
    assert mask.dtype == torch.bool
    assert mask.tolist() == oracle(scores.tolist(), pattern, scope, axis)


@pytest.mark.parametrize("group", [LARGEST_RANKED_GROUP, LARGEST_RANKED_GROUP + 1, 40, 64, 300])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("values", [2, 5, 10**6])
def test_large_groups_too(group: int, axis: Axis, values: int) -> None:
    """Groups are ranked by comparison up to a size and sorted above it: the result is one."""
    shape = (3, 2 * group) if axis == "input" else (2 * group, 3)
    scores = torch.randint(values, shape, generator=torch.Generator().manual_seed(group)).float()
    for kept in (1, group // 2, group - 1):
        pattern = NofM(kept, group)
        mask = keep_mask(scores, pattern, "row", axis)
        assert mask.tolist() == oracle(scores.tolist(), pattern, "row", axis)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("percent", ["u12.5", "u50", "u87.3"])
def test_counts_are_exact_on_larger_matrices(scope: Scope, percent: str) -> None:
    """Rounded scores, so that ties straddle the threshold."""
    scores = torch.randn(40, 56, generator=torch.Generator().manual_seed(1)).mul(4).round()
    pattern = parse_pattern(percent)
    assert isinstance(pattern, Unstructured)
    pruned = ~keep_mask(scores, pattern, scope, "input")
    if scope == "matrix":
        assert pruned.sum() == pattern.pruned(40 * 56)
    elif scope == "row":
        assert (pruned.sum(1) == pattern.pruned(56)).all()
    else:
        assert (pruned.sum(0) == pattern.pruned(40)).all()


SCORES = torch.tensor([[1.0, 8.0, 3.0, 4.0], [2.0, 7.0, 9.0, 5.0]])


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("matrix", [[0, 1, 0, 0], [0, 1, 1, 1]]),
        ("row", [[0, 1, 0, 1], [0, 1, 1, 0]]),
        ("column", [[0, 1, 0, 0], [1, 0, 1, 1]]),
    ],
)
def test_unstructured_by_hand(scope: Scope, expected: list[list[int]]) -> None:
    mask = keep_mask(SCORES, parse_pattern("u50"), scope, "input")
    assert mask.int().tolist() == expected


@pytest.mark.parametrize(
    ("pattern", "axis", "expected"),
    [
        ("2of4", "input", [[0, 1, 0, 1], [0, 1, 1, 0]]),
        ("1of2", "input", [[0, 1, 0, 1], [0, 1, 1, 0]]),
        ("1of4", "input", [[0, 1, 0, 0], [0, 0, 1, 0]]),
        ("3of4", "input", [[0, 1, 1, 1], [0, 1, 1, 1]]),
        ("1of2", "output", [[0, 1, 0, 0], [1, 0, 1, 1]]),
    ],
)
def test_n_of_m_by_hand(pattern: str, axis: Axis, expected: list[list[int]]) -> None:
    mask = keep_mask(SCORES, parse_pattern(pattern), "matrix", axis)
    assert mask.int().tolist() == expected


@pytest.mark.parametrize(
    ("pattern", "scope", "axis", "expected"),
    [
        ("2of4", "row", "input", [[0, 0, 1, 1]] * 4),
        ("1of4", "row", "output", [[0] * 4, [0] * 4, [0] * 4, [1] * 4]),
        ("u50", "row", "input", [[0, 0, 1, 1]] * 4),
        ("u50", "column", "input", [[0] * 4, [0] * 4, [1] * 4, [1] * 4]),
        ("u62.5", "matrix", "input", [[0] * 4, [0] * 4, [0, 0, 1, 1], [1] * 4]),
    ],
)
def test_of_equal_scores_the_first_goes(
    pattern: str, scope: Scope, axis: Axis, expected: list[list[int]]
) -> None:
    mask = keep_mask(torch.ones(4, 4), parse_pattern(pattern), scope, axis)
    assert mask.int().tolist() == expected


def test_too_few_to_round_down_to_one_keeps_all() -> None:
    assert keep_mask(torch.zeros(3, 3), parse_pattern("u30"), "row", "input").all()


def test_scores_are_left_alone() -> None:
    scores = SCORES.clone()
    keep_mask(scores, parse_pattern("1of2"), "row", "output")
    keep_mask(scores, parse_pattern("u50"), "column", "output")
    assert torch.equal(scores, SCORES)


@pytest.mark.parametrize("pattern", ["u50", "2of4"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(pattern: str, bad: float) -> None:
    scores = torch.ones(4, 4)
    scores[2, 1] = bad
    with pytest.raises(NumericError, match=r"^layer 1: the scores are not finite[^\n]*$"):
        keep_mask(scores, parse_pattern(pattern), "row", "input", "layer 1")


@pytest.mark.parametrize("axis", AXES)
def test_groups_that_do_not_divide_are_refused(axis: Axis) -> None:
    scores = torch.ones((8, 6) if axis == "input" else (6, 8))
    with pytest.raises(PatternError, match=rf"^layer 1: .* {axis} .* 4, but it is 6[^\n]*$"):
        keep_mask(scores, NofM(2, 4), "row", axis, "layer 1")
