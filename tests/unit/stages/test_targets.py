"""Targets from stage to stage: a run of all linear layers, its record, and other work's blocks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dass.errors import ModelError
from dass.pruning.pruned_file import PrunedFile
from tests.unit.stages.pipeline import Pipeline, masks
from tests.unit.stages.test_resuming import content, kill_after, resumed


@pytest.mark.parametrize(("targets", "matrices"), [("all", 21), ("attention", 12), ("mlp", 9)])
def test_a_run_says_what_it_pruned_and_is_measured_so(
    pipeline: Pipeline, targets: str, matrices: int, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = pipeline.prune(out, "wanda", targets=targets)
    assert result.settings["targets"] == targets
    assert (len(result.sparsity), result.mean_sparsity) == (matrices, 0.5)
    file = PrunedFile(out / "pruned.safetensors")
    assert file.settings["targets"] == targets
    measured = pipeline.perplexity(out)
    assert measured.mask_hash == result.mask_hash == pipeline.zero_shot(out).mask_hash
    # The export, as a dense model of its own, is the same one.
    export = Pipeline(pipeline.export(out), tmp_path / "other")
    export.write_data()
    assert export.perplexity().splits == measured.splits
    said = json.loads((out / "export/dass.json").read_text())["settings"]
    assert said["targets"] == targets
    dense, sparse = (load_file(f / "model.safetensors") for f in (pipeline.folder, export.folder))
    zeros = {name for name in dense if (sparse[name] == 0).sum() > (dense[name] == 0).sum()}
    assert zeros == set(file.shapes)


def test_blocks_of_other_targets_are_never_joined(pipeline: Pipeline, tmp_path: Path) -> None:
    kill_after(1, pipeline, tmp_path / "run", "wanda", targets="all")
    assert not resumed(pipeline.prune(tmp_path / "run", "wanda", targets="mlp"))
    kill_after(1, pipeline, tmp_path / "again", "sparsegpt", targets="all")
    assert resumed(pipeline.prune(tmp_path / "again", "sparsegpt", targets="all"))
    pipeline.prune(tmp_path / "whole", "sparsegpt", targets="all")
    assert content(tmp_path / "again") == content(tmp_path / "whole")


def test_the_default_is_the_mlp_alone(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.prune(tmp_path / "default")
    pipeline.prune(tmp_path / "mlp", targets="mlp")
    assert masks(tmp_path / "default") == masks(tmp_path / "mlp")


def test_masks_of_attention_cannot_be_given(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.prune(tmp_path / "run", "wanda", targets="all")
    path = tmp_path / "run/pruned.safetensors"
    with pytest.raises(ModelError, match=r"of `targets: all`, but only masks of gated MLPs can be"):
        pipeline.prune(tmp_path / "given", "given", arguments={"path": str(path)})
