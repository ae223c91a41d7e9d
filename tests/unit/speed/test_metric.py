"""The pruning metric on its own: every method and pattern is timed, and none changes anything."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from dass.pruning.methods import make_method
from dass.pruning.patterns import parse_pattern
from dass.speed.__main__ import main
from dass.speed.metric import MASK, SCORE, MetricSettings, benchmark, mask_block, statistics_of
from dass.speed.shapes import SHAPES, random_weight
from dass.terms import ROLES

TINY = SHAPES["tiny"]
METHODS = {"wanda": ("wanda", {}), "s": ("sparsegpt", {"block": 32}), "dass": ("dass", {})}
GRADED = {"w": ("wandapp", {})}


def test_every_method_and_pattern_is_timed() -> None:
    methods = METHODS | GRADED
    outcome = benchmark(TINY, MetricSettings(methods, ["u50", "2of4"], repeats=2))
    found = {(m.part, m.engine, m.variant) for m in outcome.measurements}
    both = {(MASK, name, pattern) for name in methods for pattern in ("u50", "2of4")}
    assert found == both | {(SCORE, name, "") for name in ("wanda", "dass", "w")}
    assert all(len(m.seconds) == 2 for m in outcome.measurements)
    assert not outcome.skipped


def test_a_pattern_that_does_not_fit_is_recorded() -> None:
    outcome = benchmark(TINY, MetricSettings({"wanda": ("wanda", {})}, ["2of24"], repeats=1))
    (skipped,) = outcome.skipped
    assert skipped.engine == "wanda" and "multiple of 24" in skipped.reason


def test_groups_that_a_method_cannot_lay_are_recorded() -> None:
    outcome = benchmark(TINY, MetricSettings(METHODS, ["2of4x4"], repeats=1))
    assert {m.engine for m in outcome.measurements if m.part == MASK} == {"wanda", "dass"}
    (skipped,) = outcome.skipped
    assert skipped.engine == "s" and "along both dimensions" in skipped.reason


def test_repeating_a_metric_starts_again_and_leaves_weights_alone() -> None:
    weights = {r: random_weight(TINY.matrix(r), 0, torch.float32, "cpu") for r in ROLES}
    before = {role: weight.clone() for role, weight in weights.items()}
    given = statistics_of(TINY, "cpu", grams=True)
    for name in METHODS:
        mask_block(make_method(*METHODS[name]), weights, given, {}, parse_pattern("2of4"))
    assert not given.derived  # a factor that is kept would make the second repeat too fast
    assert all(torch.equal(weights[role], before[role]) for role in ROLES)


def test_the_command_writes_one_file(tmp_path: Path) -> None:
    out = tmp_path / "metric.json"
    arguments = [
        "metric",
        "--shapes",
        "tiny",
        "--patterns",
        "u50",
        "--repeats",
        "1",
        "--out",
        str(out),
    ]
    assert main(arguments) == 0
    (result,) = json.loads(out.read_text())["results"]
    assert {m["engine"] for m in result["measurements"]} == {"wanda", "sparsegpt", "dass"}
