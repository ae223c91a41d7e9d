"""Requests as trees: by hand, and against what each request reads alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dass.evaluation import trees
from dass.evaluation.requests import Request
from dass.evaluation.trees import grow, lay_out

CPU = torch.device("cpu")


def test_by_hand() -> None:
    """Context 1 2; choices 3, 4 5 and 4 6 7: nodes 1 2 | 4 (once) | 6; 3, 5 and 7 are not read."""
    tree = grow([([1, 2], [3]), ([1, 2], [4, 5]), ([1, 2], [4, 6, 7])])
    assert tree.tokens == [1, 2, 4, 6]
    assert tree.depths == [0, 1, 2, 3]
    assert tree.ends == [4, 4, 4, 4]
    assert tree.places == [[1], [1, 2], [1, 2, 3]]


def test_branches_by_hand() -> None:
    """Two sentences that begin alike, as WinoGrande's: 1 | 2 3 | 4 3, and 3 stands there twice."""
    tree = grow([([1, 4, 3], [9]), ([1, 2, 3], [9])])
    assert tree.tokens == [1, 2, 3, 4, 3]
    assert tree.depths == [0, 1, 2, 1, 2]
    assert tree.ends == [5, 3, 3, 5, 5]
    assert tree.places == [[4], [2]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "ALIKE", 0)
        rows = lay_out([([1, 4, 3], [9]), ([1, 2, 3], [9])], 5)
    assert rows.mask(slice(0, 1), CPU)[0, 0, :5, :5].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 1, 1],
    ]


tokens = st.lists(st.integers(0, 2), min_size=1, max_size=5)
requests = st.lists(st.tuples(tokens, tokens), min_size=1, max_size=20)


@given(requests, st.integers(8, 20), st.integers(0, 4))
def test_each_place_sees_what_its_request_reads(
    requests: list[Request], row: int, alike: int
) -> None:
    """And nothing else, in order, at positions from 0; however the trees lie in rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "ALIKE", alike)
        rows = lay_out(requests, row)
    mask = rows.mask(slice(None), CPU)[:, 0]
    assert mask.diagonal(dim1=1, dim2=2).all()
    assert rows.counts == [len(continuation) for _, continuation in requests]
    place = iter(zip(rows.places.tolist(), rows.targets.tolist(), strict=True))
    for context, continuation in requests:
        for number, token in enumerate(continuation):
            flat, target = next(place)
            at, column = divmod(flat, rows.tokens.shape[1])
            seen = mask[at, column]
            assert target == token
            assert rows.tokens[at][seen].tolist() == [*context, *continuation[:number]]
            assert rows.depths[at][seen].tolist() == list(range(len(context) + number))
    assert next(place, None) is None


@given(requests)
def test_nothing_is_there_twice(requests: list[Request]) -> None:
    read = [[*context, *continuation][:-1] for context, continuation in requests]
    beginnings = {tuple(r[: n + 1]) for r in read for n in range(len(r))}
    assert len(grow(requests).tokens) == len(beginnings)


def test_questions_that_begin_alike_share_a_tree_wherever_they_stand() -> None:
    first, second, other = [1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [9, 2]
    requests = [(first, [7]), (first, [8, 9]), (other, [3]), (second, [7, 7]), (second, [8, 8])]
    rows = lay_out(requests, 64)
    # 1 2 3 4 once, then 5 8 and 6 7 8; 9 2 for itself.
    assert rows.tokens[0, :11].tolist() == [1, 2, 3, 4, 5, 8, 6, 7, 8, 9, 2]
    assert rows.tokens[0, 11:].sum() == 0
    assert rows.places.tolist() == [4, 4, 5, 10, 6, 7, 6, 8]  # by request, as they were asked


def test_a_row_takes_what_fits() -> None:
    """Trees of 5, 4, 3, 2 and 1 tokens: rows of 8 take 5+3, 4+2+1 and one place is left."""
    rows = lay_out([([n] * n, [9]) for n in range(1, 6)], 8)
    assert rows.tokens.tolist() == [[5, 5, 5, 5, 5, 3, 3, 3], [4, 4, 4, 4, 2, 2, 1, 0]]


def rows_of(requests: list[Request], length: int, *divisions: tuple[float, float, float]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "DIVISIONS", divisions or trees.DIVISIONS)
        return len(lay_out(requests, length).tokens)


@pytest.mark.parametrize(("length", "own"), [(64, 7), (64, 9), (32, 3), (32, 5)])
def test_of_several_divisions_the_one_of_fewest_rows_is_taken(length: int, own: int) -> None:
    questions: list[Request] = [([1] + [n] * (own + n % 3), [9]) for n in range(2, 42)]
    each = [rows_of(questions, length, division) for division in trees.DIVISIONS]
    assert rows_of(questions, length) == min(each) < max(each)


@pytest.mark.parametrize(
    ("shared", "own", "length", "most"),
    [
        (12, 6, 16, 64),  # most of a request is there already: up to four rows' length
        (6, 20, 32, 32),  # most of it is not: a row's length
    ],
)
def test_a_tree_grows_beyond_a_row_only_while_much_is_shared(
    shared: int, own: int, length: int, most: int
) -> None:
    begin = list(range(1, shared + 1))
    requests: list[Request] = [(begin + [n] * own, [9]) for n in range(20, 60)]
    assert lay_out(requests, length).tokens.shape[1] == most


def test_equal_requests_stand_once() -> None:
    rows = lay_out([([1, 2], [3, 4]), ([5], [6]), ([1, 2], [3, 4])], 8)
    assert rows.tokens.tolist() == [[1, 2, 3, 5, 0, 0, 0, 0]]
    assert rows.places.tolist() == [1, 2, 3, 1, 2]


def test_small_questions_are_kept_to_fill_rows_with() -> None:
    """Four of 40 tokens leave 24 in each row of 64: room for 8 of 3, not for a tree of 63."""
    large: list[Request] = [([n] * 40, [9]) for n in range(10, 14)]
    small: list[Request] = [([1, n, n], [9]) for n in range(30, 62)]
    assert rows_of(large + small, 64, (1.0, 0.5, 0.05)) == 4
    assert rows_of(large + small, 64, (1.0, 0.0, 1.0)) == 5
