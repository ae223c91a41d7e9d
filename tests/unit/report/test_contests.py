"""Which method is best, and which cannot be told apart from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dass.report.contests import Verdict, judge
from dass.report.experiment import Line
from dass.report.measures import Accuracy, Perplexity

from .rows import accuracy, row

A, B, C = (Line("c4", method, "u50") for method in "abc")
MEASURE = Perplexity("validation")


def verdict_of(values: Mapping[Line, Sequence[float] | float | None]) -> Verdict | None:
    """Of lines with one draw each."""
    lines = {
        line: {0: row("m/c4/x/u50", None if v is None else {"validation": v})}
        for line, v in values.items()
    }
    (verdict,) = judge([(MEASURE, lines)])
    return verdict


def noisy(mean: float, number: int, size: int = 60) -> list[float]:
    noise = np.random.default_rng(number).normal(0, 0.1, size)
    return [float(v) for v in mean + noise - noise.mean()]


def test_the_best_beyond_noise_stands_alone() -> None:
    assert verdict_of({A: 6.0, B: 5.0, C: 7.0}) == Verdict(B, frozenset())


def test_those_within_noise_are_tied_with_the_best() -> None:
    """0.001 is less than the error of 60 differences of 0.14 each, 0.02; 1 is more."""
    values = {A: noisy(2.001, 0), B: noisy(2.0, 1), C: noisy(3.0, 2)}
    assert verdict_of(values) == Verdict(B, frozenset({A, B}))


def test_what_is_equal_is_tied() -> None:
    assert verdict_of({A: 5.0, B: 5.0}) == Verdict(A, frozenset({A, B}))


def test_one_line_wins_nothing() -> None:
    assert verdict_of({A: 5.0}) is None
    assert verdict_of({A: 5.0, B: None}) is None
    assert verdict_of({A: None, B: None}) is None


def test_the_highest_accuracy_is_the_best() -> None:
    rows = {
        A: {0: row("m/c4/x/u50", tasks={"piqa": accuracy(0.9)})},
        B: {0: row("m/c4/x/u50", tasks={"piqa": accuracy(0.4)})},
    }
    assert judge([(Accuracy(("piqa",), "acc"), rows)]) == [Verdict(A, frozenset())]
    assert judge([(Accuracy(("piqa", "arc_easy"), "acc"), rows)]) == [None]


def test_more_comparisons_ask_for_more() -> None:
    """A difference with a p-value of about 0.01 is one among 2 and is not one among 40."""
    ours = noisy(2.0, 1)
    theirs = [a + d for a, d in zip(ours, noisy(0.033, 3), strict=True)]
    lines = {
        line: {0: row("m/c4/x/u50", {"validation": values})}
        for line, values in ((A, ours), (B, theirs))
    }
    tie = {line: {0: row("m/c4/x/u50", 5.0)} for line in (A, B)}
    assert judge([(MEASURE, lines), (MEASURE, tie)])[0] == Verdict(A, frozenset())
    assert judge([(MEASURE, lines)] + [(MEASURE, tie)] * 39)[0] == Verdict(A, frozenset({A, B}))


def test_a_lower_mean_of_perplexities_with_higher_log_likelihoods_is_a_tie() -> None:
    """Draws of e² and e² against e¹ and e^2.7: the perplexities' mean is lower, 7.4 against 8.8."""
    steady = {seed: row("m/c4/x/u50", {"validation": [2.0] * 50}) for seed in (0, 1)}
    wild = {
        seed: row("m/c4/x/u50", {"validation": [nll] * 50}) for seed, nll in ((0, 1.0), (1, 2.7))
    }
    (verdict,) = judge([(MEASURE, {A: steady, B: wild})])
    assert verdict == Verdict(A, frozenset({A, B}))


def test_draws_that_disagree_are_no_difference() -> None:
    ours = {seed: row("m/c4/x/u50", 5.0) for seed in range(4)}
    theirs = {seed: row("m/c4/x/u50", value) for seed, value in enumerate((4.5, 5.8, 4.7, 5.9))}
    (verdict,) = judge([(MEASURE, {A: ours, B: theirs})])
    assert verdict == Verdict(A, frozenset({A, B}))
