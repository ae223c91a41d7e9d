"""Patterns: what they read, how they are written, which matrices they fit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dass.errors import PatternError
from dass.pruning.patterns import NofM, Unstructured, check_fit, parse_pattern


@pytest.mark.parametrize("text", ["u50", "u62.5", "u1", "u99.5", "2of4", "4of8", "1of2", "31of64"])
def test_a_pattern_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_pattern(text)) == text


@pytest.mark.parametrize(
    ("text", "sparsity"), [("u50", 0.5), ("u62.5", 0.625), ("2of4", 0.5), ("3of4", 0.25)]
)
def test_sparsity_is_the_share_of_zeros(text: str, sparsity: float) -> None:
    assert parse_pattern(text).sparsity == sparsity


def test_n_of_m_keeps_n() -> None:
    assert parse_pattern("1of4") == NofM(kept=1, group=4)


@pytest.mark.parametrize(
    ("text", "size", "pruned"),
    [("u50", 7, 3), ("u50", 1, 0), ("u62.5", 8, 5), ("u29", 100, 29), ("u57", 100, 57),
     ("u99", 3, 2), ("u0.1", 1000, 1)],
)  # fmt: skip
def test_how_many_go_is_rounded_down_exactly(text: str, size: int, pruned: int) -> None:
    """In floats 0.29 × 100 and 0.57 × 100 are a little less than 29 and 57."""
    pattern = parse_pattern(text)
    assert isinstance(pattern, Unstructured)
    assert pattern.pruned(size) == pruned


@settings(deadline=None)
@given(st.integers(1, 9999), st.integers(1, 10**6))
def test_never_all_go(hundredths: int, size: int) -> None:
    pattern = parse_pattern(f"u{hundredths / 100}")
    assert isinstance(pattern, Unstructured)
    assert pattern.pruned(size) == hundredths * size // 10000 < size


@pytest.mark.parametrize(
    "text",
    ["u0", "u100", "u0.0", "u150", "u", "50", "u-5", "U50", "u50%", "4of4", "8of4", "0of4", "2of",
     "2:4", "2of4 ", "", "dense", "u5e1", "-2of4"],
)  # fmt: skip
def test_nonsense_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(PatternError) as error:
        parse_pattern(text)
    assert repr(text) in str(error.value)
    assert "\n" not in str(error.value)


def test_more_kept_than_there_are_is_said_plainly() -> None:
    with pytest.raises(PatternError, match=r"8 of 4\b.*0 < N < M"):
        parse_pattern("8of4")


def test_fit_looks_at_the_axis_only() -> None:
    check_fit((8, 6), NofM(2, 4), "output", "m")
    check_fit((6, 8), NofM(2, 4), "input", "m")
    check_fit((5, 7), Unstructured(parse_pattern("u50").percent), "input", "m")  # type: ignore[union-attr]


@pytest.mark.parametrize(("axis", "shape"), [("input", (8, 6)), ("output", (6, 8))])
def test_a_group_that_does_not_divide_is_refused_in_one_line(
    axis: str, shape: tuple[int, int]
) -> None:
    with pytest.raises(PatternError) as error:
        check_fit(shape, NofM(2, 4), axis, "block 3, gate")  # type: ignore[arg-type]
    line = str(error.value)
    assert line.startswith("block 3, gate: pattern 2of4 needs the")
    assert axis in line and "multiple of 4" in line and "6" in line and "\n" not in line
