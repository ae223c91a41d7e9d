"""Masks from elsewhere: checkpoints and files, taken as they are, or refused in one line."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dass.data.token_file import load_tokens
from dass.errors import DassError
from dass.evaluation.perplexity import measure_perplexity
from dass.models.streamed import StreamedModel
from dass.pruning.pruned_file import PrunedFile
from dass.runtime.files import sha256
from tests.conftest import TinyModel
from tests.unit.stages.pipeline import Pipeline, masks

DOWN = "model.layers.1.mlp.down_proj.weight"
GATE = "model.layers.0.mlp.gate_proj.weight"


def given(pipeline: Pipeline, path: Path, out: Path, pattern: str = "2of4") -> Any:
    arguments, run = {"path": str(path)}, f"m/c/method/{pattern}"
    return pipeline.prune(out, "given", arguments=arguments, run=run)


def checkpoint_of(pipeline: Pipeline, out: Path, method: str, pattern: str = "2of4") -> Path:
    pipeline.prune(out, method, run=f"m/c/method/{pattern}")
    return pipeline.export(out)


def edit(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def plain_masks(out: Path) -> dict[str, Tensor]:
    file = PrunedFile(out / "pruned.safetensors")
    return {name: file.mask(name) for name in file.shapes}


@pytest.mark.parametrize("pattern", ["2of4", "u50"])
@pytest.mark.parametrize("method", ["wanda", "dass", "sparsegpt"])
def test_a_pruned_checkpoint_is_measured_as_it_is(
    pipeline: Pipeline, method: str, pattern: str, tmp_path: Path
) -> None:
    """Masks and perplexity are those of the run that the checkpoint was exported from."""
    folder = checkpoint_of(pipeline, tmp_path / "run", method, pattern)
    expected = pipeline.perplexity(tmp_path / "run")
    result = given(pipeline, folder, tmp_path / "given", pattern)
    assert masks(tmp_path / "given") == masks(tmp_path / "run")
    assert set(result.provenance["given"]) == {"config", "weights"}
    found = pipeline.perplexity(tmp_path / "given")
    assert (found.splits, found.mask_hash) == (expected.splits, expected.mask_hash)


def test_values_that_were_moved_are_kept(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = checkpoint_of(pipeline, tmp_path / "run", "wanda")

    def move(tensors: dict[str, Tensor]) -> None:
        for name in tensors:
            if ".mlp." in name:
                tensors[name] *= 1.5

    edit(folder, move)
    given(pipeline, folder, tmp_path / "given")
    windows = load_tokens(pipeline.tokenise())
    moved = measure_perplexity(StreamedModel(folder, torch.float32), windows["test"])
    found = pipeline.perplexity(tmp_path / "given").splits["test"]
    assert found.model_dump() == vars(moved)
    assert found.nll != pipeline.perplexity(tmp_path / "run").splits["test"].nll


def test_fused_parameters_are_taken_by_halves(
    pipeline: Pipeline, tiny_model: TinyModel, tmp_path: Path
) -> None:
    phi3 = Path(shutil.copytree(tiny_model("phi3"), tmp_path / "phi3"))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pipeline.folder / file, phi3)
    pipeline.folder = phi3
    folder = checkpoint_of(pipeline, tmp_path / "run", "dass")
    given(pipeline, folder, tmp_path / "given")
    assert masks(tmp_path / "given") == masks(tmp_path / "run")


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_a_file_of_masks(pipeline: Pipeline, dtype: torch.dtype, tmp_path: Path) -> None:
    pipeline.prune(tmp_path / "run")
    file = tmp_path / "masks.safetensors"
    save_file({n: mask.to(dtype) for n, mask in plain_masks(tmp_path / "run").items()}, file)
    result = given(pipeline, file, tmp_path / "given")
    assert masks(tmp_path / "given") == masks(tmp_path / "run")
    assert result.provenance["given"] == {"file": file.name, "sha256": sha256(file)}
    found, expected = pipeline.perplexity(tmp_path / "given"), pipeline.perplexity(tmp_path / "run")
    assert found.splits == expected.splits


@pytest.mark.parametrize("method", ["dass", "sparsegpt"])
def test_a_pruned_file_of_this_project(pipeline: Pipeline, method: str, tmp_path: Path) -> None:
    pipeline.prune(tmp_path / "run", method)
    given(pipeline, tmp_path / "run/pruned.safetensors", tmp_path / "given")
    assert masks(tmp_path / "given") == masks(tmp_path / "run")
    found, expected = pipeline.perplexity(tmp_path / "given"), pipeline.perplexity(tmp_path / "run")
    assert found.splits == expected.splits


# What is refused --------------------------------------------------------------------------------


def refused(pipeline: Pipeline, path: Path, line: str, pattern: str = "2of4") -> None:
    with pytest.raises(DassError) as caught:
        given(pipeline, path, path.parent / "refused", pattern)
    assert re.search(line, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def set_one(name: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name][0] += 1

    return change


@pytest.mark.parametrize(
    "name",
    ["model.embed_tokens.weight", "model.layers.2.self_attn.q_proj.weight", "model.norm.weight"],
)
def test_a_checkpoint_with_more_changed_than_its_mlps(
    pipeline: Pipeline, name: str, tmp_path: Path
) -> None:
    """Its perplexity would be that of another model."""
    folder = checkpoint_of(pipeline, tmp_path / "run", "wanda")
    edit(folder, set_one(name))
    refused(pipeline, folder, rf"export: {name} differs from that of .*, and is not pruned here")


def test_a_checkpoint_of_another_form(
    pipeline: Pipeline, tiny_model: TinyModel, tmp_path: Path
) -> None:
    refused(pipeline, tiny_model("mistral"), r"is not what .* has; give masks of this model$")


def test_masks_of_another_pattern(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = checkpoint_of(pipeline, tmp_path / "run", "wanda", "u70")
    said = r"mlp\.gate_proj\.weight: the given mask has 68\.75% zeros, but 2of4 asks for 50\.00%"
    refused(pipeline, folder, said)
    half = checkpoint_of(pipeline, tmp_path / "half", "wanda", "u50")
    refused(
        pipeline, half, r"the given mask is not 2of4: \d+ groups along the input keep more, and"
    )
    assert given(pipeline, half, tmp_path / "given", "u50").mean_sparsity == 0.5


def changed_file(pipeline: Pipeline, out: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    pipeline.prune(out)
    tensors = plain_masks(out)
    change(tensors)
    save_file(tensors, out / "masks.safetensors")
    return out / "masks.safetensors"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: t.pop(DOWN), f"holds no mask of {re.escape(DOWN)}; give one mask for each"),
        (lambda t: t.update({"a.q": t[DOWN].clone()}), r"also holds a\.q; give one mask"),
        (lambda t: t.update({DOWN: t[DOWN][:8].clone()}), r"\[8, 64\], but the model's is \["),
        (lambda t: t.update({DOWN: t[DOWN].float()}), "is F32, no mask; give bool or uint8$"),
        (lambda t: t.update({DOWN: t[DOWN].byte() * 255}), "holds other values than 0 and 1"),
    ],
)  # fmt: skip
def test_files_that_are_no_masks_of_this_model(
    pipeline: Pipeline, change: Callable[[dict[str, Any]], None], line: str, tmp_path: Path
) -> None:
    refused(pipeline, changed_file(pipeline, tmp_path / "run", change), line)


def test_what_is_no_safetensors_file(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("no masks")
    refused(
        pipeline, tmp_path / "masks", r"masks: no safetensors file \(.*\); give a file of masks$"
    )


def test_a_pruned_file_of_other_weights(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.prune(tmp_path / "run")
    edit(pipeline.folder, set_one(GATE))
    refused(pipeline, tmp_path / "run/pruned.safetensors", "made from other weights than")
