"""How patterns and numbers are printed."""

from __future__ import annotations

import pytest

from dass.report.words import (
    format_percent,
    format_perplexity,
    format_with_error,
    listed,
    pattern_label,
    perplexity_with_error,
    sentences,
)


@pytest.mark.parametrize(
    ("pattern", "label"),
    [("u50", "50 %"), ("u62.5", "62.5 %"), ("4of8", "4:8"), ("2of4", "2:4"),
     ("2of4x4", "2:4 both axes")],
)  # fmt: skip
def test_patterns_have_the_papers_names(pattern: str, label: str) -> None:
    assert pattern_label(pattern) == label


@pytest.mark.parametrize(
    ("value", "text"),
    [(5.474, "5.47"), (999.99, "999.99"), (1234.5678, "1235"), (2.5e6, "2.5e6"), (1e13, "1.0e13")],
)
def test_large_perplexities_are_short(value: float, text: str) -> None:
    assert format_perplexity(value) == text


def test_accuracies_are_printed_in_percent() -> None:
    assert [format_percent(share) for share in (0.5, 1.0, 0.12345)] == ["50.0", "100.0", "12.3"]


def test_each_part_of_a_caption_ends_once() -> None:
    assert sentences("A", "", "B.", "C?") == "A. B. C?"


@pytest.mark.parametrize(
    ("value", "error", "texts"),
    [
        (12.345, 0.123, ("12.35", "0.12")),
        (5.4712, 0.0031, ("5.471", "0.003")),
        (0.00886, 2.93e-05, ("0.00886", "0.00003")),
        (12.345, 0.0096, ("12.345", "0.010")),
        (12.345, 0.00996, ("12.35", "0.01")),
        (12.345, 1.23, ("12.3", "1.2")),
        (12.345, 9.96, ("12", "10")),
        (123.45, 34.56, ("123", "35")),
        (998.76, 234.5, ("1000", "230")),
        (12.345, 0, ("12.35", "0")),
    ],
)
def test_decimals_follow_the_error(value: float, error: float, texts: tuple[str, str]) -> None:
    """Two of them where that shows one or two digits of the error."""
    assert format_with_error(value, error, 2) == texts


@pytest.mark.parametrize(
    ("value", "error", "texts"),
    [
        (5.474, 0.0512, ("5.47", "0.05")),
        (1234.5678, 12.3, ("1235", "12")),
        (1234.5678, 0.03, ("1234.57", "0.03")),
        (12345.6, 234, ("12350", "230")),
        (3.21e9, 2.5e8, ("3.2e9", "0.2e9")),
        (3.21e9, 4e6, ("3.210e9", "0.004e9")),
        (3.21e9, 0, ("3.2e9", "0")),
    ],
)
def test_large_perplexities_share_their_exponent_with_the_error(
    value: float, error: float, texts: tuple[str, str]
) -> None:
    assert perplexity_with_error(value, error) == texts


def test_a_list_reads_as_one() -> None:
    assert [listed(list(words)) for words in ("", "a", "ab", "abc")] == [
        "", "a", "a and b", "a, b and c",
    ]  # fmt: skip
