"""How patterns and numbers are printed."""

from __future__ import annotations

import pytest

from dass.report.words import format_percent, format_perplexity, pattern_label, sentences


@pytest.mark.parametrize(
    ("pattern", "label"), [("u50", "50 %"), ("u62.5", "62.5 %"), ("4of8", "4:8"), ("2of4", "2:4")]
)
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
