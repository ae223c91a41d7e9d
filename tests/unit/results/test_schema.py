"""Result files: what is written is read back; what is malformed is named and refused."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dass.errors import DataError, NumericError
from dass.results.schema import (
    SCHEMA_VERSION,
    ActivationsResult,
    BlocksResult,
    PerplexityResult,
    PruningResult,
    Run,
    TaskAccuracy,
    ZeroShotResult,
    read_result,
    write_result,
)

RUN = {"model": "llama", "calibration": "c4", "method": "dass", "pattern": "2of4"}
DENSE = {"model": "llama", "calibration": None, "method": "dense", "pattern": None}
COMMON: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "run": RUN, "provenance": {"date": "d"}}
PRUNING = COMMON | {
    "settings": {"function": "dass", "arguments": {"alpha": 0.5}},
    "calibration_hash": "c",
    "mask_hash": "m",
    "sparsity": {"model.layers.0.mlp.gate_proj.weight": 0.5},
    "mean_sparsity": 0.5,
    "expert_tokens": {"model.layers.0.mlp.experts.0": 17},
    "seconds": {"total": 2.5, "masks": 1.5},
    "kept_shares": {"down": {"natural": 0.74, "permuted": 0.76}},
    "block_seconds": [0.5],
    "peak_memory_bytes": {"host": 1024, "device": None},
    "tokens": 4096,
}
PERPLEXITY = COMMON | {
    "settings": {"length": 128, "bos": "text"},
    "dataset": "wikitext2",
    "splits": {
        "validation": {
            "perplexity": 5.25,
            "nll": 1.658,
            "tokens": 256,
            "windows": 2,
            "tokens_hash": "t",
            "window_nlls": [1.5, 1.816],
        }
    },
    "others": {
        "c4": {
            "split": "validation",
            "perplexity": 7.5,
            "nll": 2.015,
            "tokens": 128,
            "windows": 1,
            "tokens_hash": "t",
            "window_nlls": [2.015],
        }
    },
    "mask_hash": "m",
}
ZERO_SHOT = COMMON | {
    "run": DENSE,
    "settings": {},
    "tasks": {
        "winogrande": {
            "acc": 0.75,
            "acc_stderr": 0.02,
            "acc_norm": None,
            "acc_norm_stderr": None,
            "samples": 4,
            "version": 1.0,
            "requests_hash": "r",
            "hits": "1101",
            "norm_hits": None,
        }
    },
    "limit": None,
    "mask_hash": None,
}
SPREAD = {"median": 2.5, "percentiles": {"1": 0.25, "50": 1.0, "100": 40.0}, "outliers": 0.125}
ACTIVATIONS = {
    "schema_version": SCHEMA_VERSION,
    "model": "llama",
    "calibration": "c4",
    "settings": {},
    "provenance": {"date": "d"},
    "calibration_hash": "c",
    "norms_hash": "n",
    "tokens": 4096,
    "blocks": [{"input": SPREAD, "intermediate": SPREAD}],
}
BLOCKS = COMMON | {
    "settings": {"length": 128},
    "dataset": "wikitext2",
    "split": "test",
    "windows": 2,
    "tokens": 256,
    "tokens_hash": "t",
    "mask_hash": "m",
    "norms_hash": "n",
    "blocks": [{"glu_error": 0.25, "hidden_error": 1.5, "kept": [0.5] * 10}],
}
KINDS = [
    (PruningResult, PRUNING),
    (PerplexityResult, PERPLEXITY),
    (ZeroShotResult, ZERO_SHOT),
    (ActivationsResult, ACTIVATIONS),
    (BlocksResult, BLOCKS),
]


def changed(content: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a dotted place replaced; ``...`` removes it."""
    content = copy.deepcopy(content)
    *outer, last = place.split("/")
    inner = content
    for key in outer:
        inner = inner[int(key) if isinstance(inner, list) else key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return content


@pytest.mark.parametrize(("cls", "content"), KINDS)
def test_what_is_written_is_read_back(cls: Any, content: dict[str, Any], tmp_path: Path) -> None:
    result = cls.model_validate(content)
    write_result(tmp_path / "a" / "result.json", result)
    assert read_result(tmp_path / "a" / "result.json", cls) == result
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == content


def test_a_run_that_counted_no_experts_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(changed(PRUNING, "expert_tokens", ...)))
    assert read_result(tmp_path / "result.json", PruningResult).expert_tokens == {}


@given(st.floats(min_value=1, allow_infinity=False, allow_nan=False))
def test_a_perplexity_keeps_every_digit(value: float) -> None:
    content = changed(PERPLEXITY, "splits/validation/perplexity", value)
    with TemporaryDirectory() as folder:
        write_result(Path(folder) / "perplexity.json", PerplexityResult.model_validate(content))
        result = read_result(Path(folder) / "perplexity.json", PerplexityResult)
    assert result.splits["validation"].perplexity == value


@pytest.mark.parametrize(
    ("cls", "content", "place", "value"),
    [
        (PruningResult, PRUNING, "speed", 3),
        (PruningResult, PRUNING, "mean_sparsity", "0.5"),
        (PruningResult, PRUNING, "mean_sparsity", 1.5),
        (PruningResult, PRUNING, "peak_memory_bytes/host", 1.5),
        (PruningResult, PRUNING, "mask_hash", ...),
        (PruningResult, PRUNING, "run/pattern", None),
        (BlocksResult, BLOCKS, "split", "train"),
        (BlocksResult, BLOCKS, "blocks", []),
        (BlocksResult, BLOCKS, "blocks/0/kept", [0.5] * 9),
        (BlocksResult, BLOCKS, "blocks/0/glu_error", -0.5),
        (ActivationsResult, ACTIVATIONS, "blocks/0/input/outliers", 2.0),
        (PerplexityResult, PERPLEXITY, "splits", {}),
        (PerplexityResult, PERPLEXITY, "splits/validation/windows", -1),
        (PerplexityResult, PERPLEXITY, "splits/validation/perplexity", float("nan")),
        (PerplexityResult, PERPLEXITY, "splits/validation/nll", float("inf")),
        (ZeroShotResult, ZERO_SHOT, "tasks/winogrande/acc", None),
        (ZeroShotResult, ZERO_SHOT, "tasks/winogrande/samples", ...),
        (PerplexityResult, PERPLEXITY, "splits/validation", 3),
        (PerplexityResult, PERPLEXITY, "others/c4/split", "train"),
        (PerplexityResult, PERPLEXITY, "others/c4/windows", -1),
        (ZeroShotResult, ZERO_SHOT, "tasks/winogrande/hits", "110x"),
        (ZeroShotResult, ZERO_SHOT, "run/calibration", "c4"),
    ],
)
def test_a_malformed_file_is_named_with_its_field(
    cls: Any, content: dict[str, Any], place: str, value: Any, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(changed(content, place, value)))
    with pytest.raises(DataError) as error:
        read_result(path, cls)
    field = "run" if place.startswith("run/") else place.replace("/", ".")
    assert str(error.value).startswith(f"{path}: {field}: ")
    assert str(error.value).endswith("delete it and run again")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, "1", None])
def test_another_schema_version_is_refused(version: Any, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(COMMON | {"schema_version": version, "of a time": "to come"}))
    with pytest.raises(DataError, match=rf"result.json: schema_version is {version!r}.*run again"):
        read_result(path, PruningResult)


@pytest.mark.parametrize("text", ["", "{", "[1]", '"text"', "null"])
def test_what_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"result.json: .*run again"):
        read_result(path, PruningResult)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        read_result(tmp_path / "none.json", PruningResult)


def test_one_kind_is_not_taken_for_another(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(PERPLEXITY))
    with pytest.raises(DataError, match=r"result\.json: "):
        read_result(path, ZeroShotResult)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_perplexity_that_is_no_number_is_not_written(value: float, tmp_path: Path) -> None:
    path = tmp_path / "perplexity.json"
    path.write_text("as before")
    content = changed(PERPLEXITY, "splits/validation/perplexity", value)
    with pytest.raises(NumericError, match=r"llama/c4/dass/2of4: splits.validation.perplexity is"):
        write_result(path, PerplexityResult.model_validate(content))
    assert path.read_text() == "as before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_number_deep_in_the_settings_is_checked_too(tmp_path: Path) -> None:
    content = changed(PRUNING, "settings/arguments/alpha", [1.0, float("nan")])
    with pytest.raises(NumericError, match=r"settings.arguments.alpha.1 is nan"):
        write_result(tmp_path / "pruning.json", PruningResult.model_validate(content))
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_dense_or_pruned() -> None:
    assert str(Run(**RUN)) == "llama/c4/dass/2of4"
    assert str(Run(**DENSE)) == "llama/dense"
    for run in (RUN | {"method": "dense"}, DENSE | {"method": "dass"}, RUN | {"calibration": None}):
        with pytest.raises(ValidationError, match="dense run has neither"):
            Run(**run)
    assert [Run.parse(str(run)) for run in (Run(**RUN), Run(**DENSE))] == [Run(**RUN), Run(**DENSE)]


def test_a_task_without_acc_norm_counts_with_its_acc() -> None:
    common: dict[str, Any] = {
        "acc": 0.75, "acc_stderr": 0.1, "hits": "1110", "samples": 4, "version": 1,
        "requests_hash": "r",
    }  # fmt: skip
    both = TaskAccuracy(acc_norm=0.5, acc_norm_stderr=0.2, norm_hits="0101", **common)
    only = TaskAccuracy(acc_norm=None, acc_norm_stderr=None, norm_hits=None, **common)
    assert (both.by("acc"), both.by("acc_norm")) == ((0.75, 0.1), (0.5, 0.2))
    assert (only.by("acc"), only.by("acc_norm")) == ((0.75, 0.1), (0.75, 0.1))
    assert (both.hits_by("acc"), both.hits_by("acc_norm")) == ("1110", "0101")
    assert (only.hits_by("acc"), only.hits_by("acc_norm")) == ("1110", "1110")


@pytest.mark.parametrize(
    ("cls", "content", "place", "value", "what"),
    [
        (PerplexityResult, PERPLEXITY, "splits/validation/window_nlls", [1.658], "window_nlls: "),
        (ZeroShotResult, ZERO_SHOT, "tasks/winogrande/hits", "1100", "acc: is not that of"),
        (ZeroShotResult, ZERO_SHOT, "tasks/winogrande/hits", "11011", "acc: is not that of"),
        (ZeroShotResult, ZERO_SHOT, "tasks/winogrande/norm_hits", "1101", "acc_norm: without"),
        (ZeroShotResult, ZERO_SHOT, "tasks/winogrande/acc_norm", 0.75, "acc_norm: without"),
    ],
)
def test_what_runs_are_compared_by_belongs_to_the_value(
    cls: Any, content: dict[str, Any], place: str, value: Any, what: str
) -> None:
    with pytest.raises(ValidationError, match=what):
        cls.model_validate(changed(content, place, value))


def test_reading_results_imports_nothing_heavy() -> None:
    heavy = "('torch', 'pandas', 'matplotlib', 'transformers')"
    code = f"import sys, dass.results.summary; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
