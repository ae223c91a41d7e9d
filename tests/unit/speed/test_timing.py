"""Medians, quartiles, speed-ups and crossovers, against answers worked out by hand."""

from __future__ import annotations

import pytest

from dass.speed.timing import Measurement, Spread, crossover, interleave, speed_up, spread


def test_median_and_quartiles() -> None:
    # Of five values in order, the quartiles are the second and the fourth.
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(2.0, 3.0, 4.0)
    # Of four, a quarter of the way from the first to the last: 1 + 3/4, and 1 + 9/4.
    assert spread([4.0, 1.0, 3.0, 2.0]) == Spread(1.75, 2.5, 3.25)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)


def test_no_sample_has_no_median() -> None:
    with pytest.raises(ValueError):
        spread([])


def test_a_measurement_knows_its_spread() -> None:
    one = Measurement("mlp", "torch", "dense", 1, "float16", [3.0, 1.0, 2.0])
    assert one.spread == Spread(1.5, 2.0, 2.5)


def test_speed_ups_are_taken_round_by_round() -> None:
    # A slow round (the second) slows both and changes no ratio: medians apart would give 1 / 4.
    assert speed_up([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == Spread(2.0, 2.0, 2.0)
    assert speed_up([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]) == Spread(1.5, 2.0, 2.5)


def test_samples_of_different_rounds_have_no_ratio() -> None:
    with pytest.raises(ValueError):
        speed_up([1.0, 2.0], [1.0])


def certain(value: float) -> Spread:
    return Spread(value, value, value)


def test_the_crossover_is_the_first_count_from_which_on_it_always_pays() -> None:
    pays = {1: certain(1.1), 16: certain(0.5), 512: certain(1.2), 8192: certain(1.4)}
    assert crossover(pays) == 512
    assert crossover({1: certain(2.0), 16: certain(2.0)}) == 1
    assert crossover({1: certain(2.0), 16: certain(0.9)}) is None
    assert crossover({}) is None


def test_a_gain_within_the_spread_is_none() -> None:
    assert crossover({512: Spread(0.98, 1.1, 1.2), 2048: Spread(1.1, 1.2, 1.3)}) == 2048


def test_variants_take_turns_and_each_round_begins_with_another() -> None:
    order: list[tuple[str, int]] = []

    def timed(name: str, took: float):
        def run(turn: int) -> float:
            order.append((name, turn))
            return took + turn

        return run

    seconds, failed = interleave({"a": timed("a", 10), "b": timed("b", 20)}, warmup=1, repeats=2)
    assert order == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert seconds == {"a": [11, 12], "b": [21, 22]}  # the warm-up round does not count
    assert failed == {}


def test_a_variant_that_fails_loses_no_other() -> None:
    def breaks(turn: int) -> float:
        if turn == 1:
            raise RuntimeError("\nno kernel for this card\nat line 3")
        return 1.0

    seconds, failed = interleave({"good": lambda _: 2.0, "bad": breaks}, warmup=0, repeats=3)
    assert seconds == {"good": [2.0, 2.0, 2.0]}
    assert failed == {"bad": "no kernel for this card"}
