"""The stages on a mixture of experts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dass.stages.activations import activations
from dass.stages.block_errors import block_errors
from tests.conftest import TinyModel
from tests.unit.stages.pipeline import CALIBRATION, Pipeline
from tests.unit.stages.test_resuming import content, kill_after, resumed


@pytest.fixture
def folder(tiny_model: TinyModel, tmp_path: Path, save_words: Callable[[Path], None]) -> Path:
    folder = Path(shutil.copytree(tiny_model("qwen2_moe"), tmp_path / "tiny"))
    save_words(folder)
    return folder


def test_a_run_says_how_many_tokens_each_expert_saw(pipeline: Pipeline, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = pipeline.prune(run, "sparsegpt")
    experts = [f"model.layers.{b}.mlp.experts.{e}" for b in range(3) for e in range(4)]
    assert list(result.expert_tokens) == experts
    tokens = CALIBRATION["sequences"] * CALIBRATION["length"]
    assert result.tokens == tokens
    assert sum(result.expert_tokens.values()) == 3 * 2 * tokens  # two experts per token
    assert len(result.sparsity) == 3 * (4 * 2 + 3)
    assert result.mean_sparsity == pytest.approx(0.5)
    assert pipeline.prune(tmp_path / "by_size", "magnitude").expert_tokens == {}
    dense, pruned = pipeline.perplexity(), pipeline.perplexity(run)
    assert pruned.mask_hash == result.mask_hash
    for split, measured in pruned.splits.items():
        assert measured.perplexity != dense.splits[split].perplexity
    pipeline.zero_shot(run)


def test_a_killed_job_goes_on_where_it_stopped(pipeline: Pipeline, tmp_path: Path) -> None:
    kill_after(1, pipeline, tmp_path / "killed", "sparsegpt")
    assert resumed(pipeline.prune(tmp_path / "killed", "sparsegpt"))
    assert not resumed(pipeline.prune(tmp_path / "whole", "sparsegpt"))
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_block_errors_and_norms(pipeline: Pipeline, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pipeline.prune(run)
    activations(
        model="m", calibration="c", folder=pipeline.folder, tokens=pipeline.calibrate(),
        dtype="float32", bos="text", norms_file=run / "norms.safetensors",
        result_file=run / "norms.json",
    )  # fmt: skip
    block_errors(
        run="m/c/method/2of4", folder=pipeline.folder, pruned=run / "pruned.safetensors",
        norms=run / "norms.safetensors", tokens=pipeline.tokenise(), dtype="float32", bos="text",
        dataset="text", split="test", windows=4, result_file=run / "blocks.json",
    )  # fmt: skip
    assert (run / "blocks.json").is_file()
