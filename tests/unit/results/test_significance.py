"""Whether runs differ beyond noise: against exact enumeration, an obvious oracle, and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dass.results.significance import Differences, differences, holm, p_value

Floats = NDArray[np.float64]


def items(*values: float) -> Floats:
    return np.array(values)


def test_draws_are_paired_by_seed() -> None:
    ours = {0: items(1, 2), 1: items(3, 4), 7: items(0, 0)}
    theirs = {1: items(1, 1), 0: items(2, 2), 5: items(9, 9)}
    assert differences(ours, theirs).tolist() == [[-1, 0], [2, 3]]


def test_a_single_draw_is_held_against_each() -> None:
    one, two = {3: items(1, 2)}, {0: items(1, 1), 1: items(5, 5)}
    assert differences(one, two).tolist() == [[0, 1], [-4, -3]]
    assert differences(two, one).tolist() == [[0, -1], [4, 3]]
    assert differences(one, {0: items(1, 1)}).tolist() == [[0, 1]]


def test_draws_without_common_seeds_are_paired_in_order() -> None:
    ours = {1: items(3, 3), 0: items(1, 1)}
    theirs = {8: items(1, 1), 7: items(0, 0), 9: items(9, 9)}
    assert differences(ours, theirs).tolist() == [[1, 1], [2, 2]]


def test_equal_runs_do_not_differ() -> None:
    assert p_value([np.zeros((3, 10))]) == 1.0


def test_of_a_single_item_nothing_can_be_told() -> None:
    assert p_value([np.ones((3, 1))]) == 1.0
    assert p_value([np.ones((1, 5)), np.ones((1, 1))]) == 1.0


def test_the_same_difference_everywhere_is_no_noise() -> None:
    assert p_value([np.full((1, 20), 0.1)]) == pytest.approx(1 / 10_001)
    assert p_value([np.full((1, 20), 0.1)], 50_000) == pytest.approx(1 / 50_001)


def test_it_has_two_sides_and_no_chance() -> None:
    values = np.random.default_rng(0).normal(0.2, 1, (3, 40))
    assert p_value([values]) == p_value([values.copy()])
    assert p_value([values]) == pytest.approx(p_value([-values]), abs=0.01)


def exact(parts: list[Differences]) -> float:
    """All resamples of n − 1 of n draws and items, each as likely as the next."""
    draws = parts[0].shape[0]
    mean = np.mean([part.mean() for part in parts])
    rows = list(itertools.product(range(draws), repeat=max(draws - 1, 1)))
    columns = [list(itertools.product(range(n), repeat=n - 1)) for n in (p.shape[1] for p in parts)]
    far = [
        abs(np.mean([p[np.ix_(chosen, c)].mean() for p, c in zip(parts, own, strict=True)]) - mean)
        >= abs(mean) - 1e-12
        for chosen in rows
        for own in itertools.product(*columns)
    ]  # fmt: skip
    return max(float(np.mean(far)), least(parts))


def least(parts: list[Differences]) -> float:
    """How often chance alone gives all items one sign."""
    return float(max(0.5 ** (part.shape[1] - 1) for part in parts))


def test_two_items_by_hand() -> None:
    """One of 3 and −1 is drawn: 2 from their mean of 1, which is 1 from zero; always as far.

    3 and 2 never are; but by chance alone half of all two items have the same sign.
    """
    assert p_value([np.array([[3.0, -1.0]])]) == 1.0
    assert p_value([np.array([[3.0, 2.0]])]) == 0.5


@pytest.mark.parametrize(("count", "lowest"), [(3, 1 / 4), (5, 1 / 16), (6, 1 / 32), (11, 1 / 1024)])
def test_a_few_items_that_agree_are_no_certainty(count: int, lowest: float) -> None:
    few = np.full((2, count), 0.1)
    assert p_value([few]) == lowest
    assert p_value([few, np.full((2, 99), 0.1)]) == lowest


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_under_the_null_a_few_windows_never_differ(count: int) -> None:
    """Without the bound 2 would in 48 of 100 cases, 5 in 14."""
    generator = np.random.default_rng(count)
    p_values = [p_value([generator.normal(size=(1, count))], 500) for _ in range(100)]
    assert min(p_values) > 0.05


def test_three_items_by_hand() -> None:
    """Of 4, 1 and −2 two are drawn; their mean is 1 or more from 1 but for (4, −2) and 1 twice.

    Of 9 pairs: (4, −2) twice and (1, 1) are 0 off, (4, 1) and (1, −2) twice each are 1.5 off,
    (4, 4) and (−2, −2) are 3 off: 6 of 9.
    """
    values = np.array([[4.0, 1.0, -2.0]])
    assert exact([values]) == pytest.approx(6 / 9)
    assert p_value([values]) == pytest.approx(6 / 9, abs=0.06)


@pytest.mark.parametrize("shape", [(1, 5), (3, 4), (2, 5)])
def test_against_all_resamples(shape: tuple[int, int]) -> None:
    """The deviation of 10,000 resamples is at most 0.005, of 1000 at most 0.016."""
    generator = np.random.default_rng(sum(shape))
    for shift in (0.0, 0.5, 1.0):
        values = generator.normal(shift, 1, shape)
        assert p_value([values]) == pytest.approx(exact([values]), abs=0.06)


def test_parts_share_their_draws_and_not_their_items() -> None:
    generator = np.random.default_rng(5)
    parts = [generator.normal(0.5, 1, (3, 3)), generator.normal(0.2, 1, (3, 3))]
    assert p_value(parts) == pytest.approx(exact(parts), abs=0.06)
    same = [parts[0], parts[0]]
    assert p_value(same) == pytest.approx(exact(same), abs=0.06)


def indexed(part: Differences, resamples: int) -> float:
    """The same by indices, one resample at a time."""
    generator = np.random.default_rng(1)
    draws, n = part.shape
    far = 0
    for _ in range(resamples):
        rows = generator.integers(0, draws, max(draws - 1, 1))
        columns = generator.integers(0, n, n - 1)
        far += abs(part[np.ix_(rows, columns)].mean() - part.mean()) >= abs(part.mean()) - 1e-12
    return far / resamples


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda draws: st.lists(
            st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=draws, max_size=draws),
            min_size=2, max_size=40,
        )
    )
)  # fmt: skip
def test_against_a_bootstrap_of_indices(columns: list[list[float]]) -> None:
    """Differences of hits, of which many columns are equal."""
    part = np.array(columns).T
    expected = max(indexed(part, 1500), least([part]))
    assert p_value([part]) == pytest.approx(expected, abs=0.1)


def test_under_the_null_five_in_a_hundred_are_below_five_percent() -> None:
    generator = np.random.default_rng(11)
    p_values = [p_value([generator.normal(size=(1, 100))], 1000) for _ in range(400)]
    assert 0.025 < np.mean(np.array(p_values) < 0.05) < 0.085
    assert 0.4 < np.mean(p_values) < 0.6


def test_draws_that_disagree_count_as_noise() -> None:
    """On every item by 1 in two draws and by −1 in a third: the items alone would say otherwise."""
    part = np.array([[1.0] * 100, [1.0] * 100, [-1.0] * 100])
    assert p_value([part]) > 0.05
    assert p_value([part[:1]]) < 0.001


def test_holm_by_hand() -> None:
    """0.01 · 4; 0.02 · 3; 0.025 · 2 is less than that before it; 0.9."""
    assert holm([0.02, 0.9, 0.01, 0.025]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_keeps_the_order_and_only_raises(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, corrected, strict=True))
    assert [q for _, q in sorted(zip(p_values, corrected, strict=True))] == sorted(corrected)
