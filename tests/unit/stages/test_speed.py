"""Benchmarks as the workflow calls them: what is asked for is what is measured, and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dass.models.shape import Shape
from dass.speed.gpu_timing import GpuSettings
from dass.speed.results import SpeedResult, read_speed
from dass.speed.timing import Outcome
from dass.stages import speed_gpu, speed_prefill
from dass.stages.speed_cpu import speed_cpu
from dass.stages.speed_metric import speed_metric

SIZES: dict[str, Any] = {
    "hidden": 64, "intermediate": 128, "heads": 4, "key_value_heads": 2, "blocks": 3,
    "head_dim": None, "activation": "silu",
}  # fmt: skip


def seconds(result: SpeedResult) -> set[int]:
    """How many repeats the measurements have."""
    return {len(one.seconds) for one in result.measurements}


def test_metric(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    methods: dict[str, Any] = {"mine": ("dass", {"alpha": 0.25}), "obs": ("sparsegpt", {})}
    asked: dict[str, Any] = {
        "patterns": ["u55", "2of4"], "repeats": 2, "threads": threads + 1, "dtype": "bfloat16",
    }  # fmt: skip
    file = tmp_path / "metric.json"
    try:
        speed_metric(subject="m/mine", source=SIZES, methods=methods, result_file=file, **asked)
    finally:
        torch.set_num_threads(threads)
    result = read_speed(file)
    assert (result.kind, result.subject, result.shape) == ("metric", "m/mine", Shape(**SIZES))
    said = {name: [function, own] for name, (function, own) in methods.items()}
    assert result.settings.items() >= (asked | {"methods": said}).items()
    assert {one.variant for one in result.of("score and mask")} == {"u55", "2of4"}
    assert {one.dtype for one in result.measurements} == {"bfloat16"}
    assert seconds(result) == {2}


def test_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dass.speed.machine.cache_bytes", lambda: 1 << 16)
    asked: dict[str, Any] = {
        "tokens": [3], "patterns": ["u55"], "parts": ["mlp"], "repeats": 2, "threads": 1,
    }  # fmt: skip
    file = tmp_path / "cpu.json"
    speed_cpu(subject="m", source=SIZES, engines=["openvino"], result_file=file, **asked)
    result = read_speed(file)
    assert (result.kind, result.subject, result.shape) == ("cpu", "m", Shape(**SIZES))
    assert result.settings.items() >= (asked | {"options": ["openvino"]}).items()
    assert {(one.part, one.tokens) for one in result.measurements} == {("mlp", 3)}
    assert {one.variant for one in result.measurements} == {"dense", "u55"}
    assert seconds(result) == {2}
    found = [*result.measurements, *result.refusals]
    assert any("openvino" in one.engine.lower() for one in found)  # where it is not installed, too


@pytest.mark.parametrize(
    ("dtype", "half"),
    [("float32", "float16"), ("float16", "float16"), ("bfloat16", "bfloat16")],
)
def test_gpu_stages_measure_in_half_precision(
    dtype: str, half: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU: what the benchmarks are asked for, and what is recorded of it."""
    given: list[tuple[Any, ...]] = []

    def benchmark(*arguments: Any) -> Outcome:
        given.append(arguments)
        return Outcome([], [])

    monkeypatch.setattr(GpuSettings, "__post_init__", lambda self: None)  # which asks for one
    monkeypatch.setattr(speed_gpu, "benchmark", benchmark)
    monkeypatch.setattr(speed_prefill, "prefill_of_run", benchmark)
    asked: dict[str, Any] = {"dtype": dtype, "tokens": [5, 7], "repeats": 3}
    out = [tmp_path / "gpu.json", tmp_path / "prefill.json"]
    speed_gpu.speed_gpu(subject="m", source=SIZES, result_file=out[0], **asked)
    speed_prefill.speed_prefill(
        subject="m/c/wanda", folder=folder, pattern="4of8", pruned_file="pruned",
        result_file=out[1], **asked,
    )  # fmt: skip
    (shape, own), (*asked_for, again) = given
    assert (shape, asked_for) == (Shape(**SIZES), [folder, "pruned", "4of8"])
    for file, settings, subject in zip(out, (own, again), ("m", "m/c/wanda"), strict=True):
        result = read_speed(file)
        assert (settings.dtype, settings.tokens, settings.repeats) == (half, [5, 7], 3)
        assert (result.kind, result.subject) == ("gpu", subject)
        assert result.settings.items() >= {"dtype": half, "tokens": [5, 7], "repeats": 3}.items()
    of_run = read_speed(out[1])
    assert of_run.shape.hidden == 32
    assert (read_speed(out[0]).run, of_run.run) == (None, "m/c/wanda/4of8")
