"""Permuted neurons from stage to stage: a run, its record, its export, and its masks given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dass.errors import PatternError
from dass.pruning.pruned_file import PrunedFile
from tests.unit.stages.pipeline import Pipeline, masks
from tests.unit.stages.test_resuming import content, kill_after, resumed


def test_a_run_says_what_permuting_changed_and_is_measured(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = pipeline.prune(out, permute=True)
    assert result.settings["permute"] is True and result.mean_sparsity == 0.5
    assert set(result.kept_shares) == {"gate", "up", "down"}
    assert all(0.5 < kept.natural < kept.permuted < 1 for kept in result.kept_shares.values())
    measured = pipeline.perplexity(out)
    export = Pipeline(pipeline.export(out), tmp_path / "other")
    export.write_data()
    found = export.perplexity()
    for split, own in measured.splits.items():
        assert found.splits[split].nll == pytest.approx(own.nll, rel=1e-5)


def test_without_groups_nothing_is_permuted(pipeline: Pipeline, tmp_path: Path) -> None:
    run = "m/c/method/u50"
    result = pipeline.prune(tmp_path / "permuted", permute=True, run=run)
    pipeline.prune(tmp_path / "plain", run=run)
    assert (
        result.kept_shares == {} and not PrunedFile(tmp_path / "permuted/pruned.safetensors").orders
    )
    assert masks(tmp_path / "permuted") == masks(tmp_path / "plain")


def test_blocks_are_joined_with_their_orders(pipeline: Pipeline, tmp_path: Path) -> None:
    kill_after(1, pipeline, tmp_path / "again", "wanda", permute=True)
    result = pipeline.prune(tmp_path / "again", "wanda", permute=True)
    assert resumed(result)
    whole = pipeline.prune(tmp_path / "whole", "wanda", permute=True)
    assert content(tmp_path / "again") == content(tmp_path / "whole")
    assert result.kept_shares == whole.kept_shares
    kill_after(1, pipeline, tmp_path / "other", "wanda", permute=True)
    assert not resumed(pipeline.prune(tmp_path / "other", "wanda"))


def test_masks_in_another_order_can_be_given(pipeline: Pipeline, tmp_path: Path) -> None:
    """As a pruned file, whose order goes along, or as the checkpoint that was exported."""
    pipeline.prune(tmp_path / "run", permute=True)
    expected = pipeline.perplexity(tmp_path / "run")
    path = tmp_path / "run/pruned.safetensors"
    pipeline.prune(tmp_path / "given", "given", arguments={"path": str(path)})
    assert masks(tmp_path / "given") == masks(tmp_path / "run")
    first, second = (load_file(one) for one in (path, tmp_path / "given/pruned.safetensors"))
    orders = [name for name in first if name.endswith(".order")]
    assert len(orders) == 3
    assert all(torch.equal(first[name], second[name]) for name in orders)
    assert pipeline.perplexity(tmp_path / "given").splits == expected.splits
    folder = pipeline.export(tmp_path / "run")
    pipeline.prune(tmp_path / "folder", "given", arguments={"path": str(folder)})
    found = pipeline.perplexity(tmp_path / "folder")
    assert found.splits["test"].nll == pytest.approx(expected.splits["test"].nll, rel=1e-5)


def test_given_masks_without_their_order_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.prune(tmp_path / "run", permute=True)
    file = PrunedFile(tmp_path / "run/pruned.safetensors")
    plain = {name: file.mask(name).to(torch.uint8) for name in file.shapes}
    save_file(plain, tmp_path / "masks.safetensors")
    with pytest.raises(PatternError, match=r"the given mask is not 2of4"):
        arguments = {"path": str(tmp_path / "masks.safetensors")}
        pipeline.prune(tmp_path / "given", "given", arguments=arguments)
