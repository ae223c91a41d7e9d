"""Result files of runs that never were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dass.results.schema import (
    PeakMemory,
    PerplexityResult,
    PruningResult,
    Run,
    SplitPerplexity,
    TaskAccuracy,
    ZeroShotResult,
    write_result,
)

ORIGIN = {
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "abc",
    "device": "cpu",
    "versions": {"dass": "0.1.0", "torch": "2.11"},
    "seconds": 2.0,
    "peak_memory_bytes": {"host": 100, "device": None},
}


def mask_of(run: Run) -> str | None:
    return None if run.method == "dense" else f"mask of {run}"


def pruning_file(folder: Path, run: str, **changes: Any) -> Path:
    key = Run.parse(run)
    result = PruningResult(
        run=key,
        settings={},
        calibration_hash="c",
        mask_hash=str(mask_of(key)),
        sparsity={"w": 0.5},
        mean_sparsity=0.5,
        seconds={"total": 4.5, "masks": 1.0},
        block_seconds=[2.0, 2.5],
        peak_memory_bytes=PeakMemory(host=300, device=None),
        tokens=512,
        provenance=ORIGIN | {"date": "2026-01-01T00:00:00+00:00", "commit": "old"},
    )
    path = folder / run / "pruning.json"
    write_result(path, result.model_copy(update=changes))
    return path


def split(value: float, tokens_hash: str = "t") -> SplitPerplexity:
    return SplitPerplexity(
        perplexity=value, nll=1.0, tokens=256, windows=2, tokens_hash=tokens_hash,
        window_nlls=[0.75, 1.25],
    )  # fmt: skip


def perplexity_file(folder: Path, run: str, value: float, **changes: Any) -> Path:
    key = Run.parse(run)
    result = PerplexityResult(
        run=key,
        settings={"length": 128, "bos": "text"},
        dataset="wikitext2",
        splits={"validation": split(value)},
        mask_hash=mask_of(key),
        provenance=ORIGIN,
    )
    path = folder / run / "perplexity.json"
    write_result(path, result.model_copy(update=changes))
    return path


def zero_shot_file(folder: Path, run: str, **changes: Any) -> Path:
    key = Run.parse(run)
    common: dict[str, Any] = {"samples": 100, "requests_hash": "r", "acc_stderr": 0.04}
    tasks = {
        "piqa": TaskAccuracy(
            acc=0.7, acc_norm=0.6, acc_norm_stderr=0.03, version=1.0,
            hits=70 * "1" + 30 * "0", norm_hits=60 * "1" + 40 * "0", **common,
        ),
        "winogrande": TaskAccuracy(
            acc=0.5, acc_norm=None, acc_norm_stderr=None, version="1",
            hits=50 * "10", norm_hits=None, **common,
        ),
    }  # fmt: skip
    result = ZeroShotResult(
        run=key, settings={}, tasks=tasks, limit=None, mask_hash=mask_of(key), provenance=ORIGIN
    )
    path = folder / run / "zero_shot.json"
    write_result(path, result.model_copy(update=changes))
    return path


def study_files(folder: Path, model: str) -> dict[str, list[Path]]:
    """Stage -> result files of a model: what can be odd about numbers and texts is in them."""
    dense, *pruned = [f"{model}/{run}" for run in ("dense", "c4/wanda/u50", "c4/dass/2of4")]
    gpu = ORIGIN | {
        "device": "NVIDIA H100, 80 GB",
        "versions": {"torch": '2.11 "stable"', "lm_eval": "0.4.13"},
        "commit": "abc-dirty",
        "seconds": 0.1 + 0.2,
        "peak_memory_bytes": {"host": 2**40, "device": 7},
    }
    values = [1 / 3 + 5, 1e13, 12345678.9]
    return {
        "pruning": [
            pruning_file(folder, run, mean_sparsity=share, provenance=origin)
            for run, share, origin in zip(pruned, (0.5, 2 / 3), (ORIGIN, gpu), strict=True)
        ],
        "perplexity": [
            perplexity_file(
                folder, run, value, splits={"validation": split(value), "test": split(value + 1)}
            )
            for run, value in zip([dense, *pruned], values, strict=True)
        ],
        "zero_shot": [
            zero_shot_file(folder, run, limit=None if model == "b" else 50, provenance=gpu)
            for run in (dense, *pruned)
        ],
    }
