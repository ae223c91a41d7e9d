"""Parameters of all experts that are stored as a matrix each: filled exactly, or refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dass.data.model_folder import SINGLE
from dass.errors import ModelError
from dass.models.matching import _stacked_as
from dass.models.streamed import StreamedModel
from dass.models.weights import Stack, Weights
from tests.conftest import EXPERTS, TinyModel, build_model

Tensors = dict[str, Tensor]
W1 = "model.layers.1.block_sparse_moe.experts.2.w1.weight"


@pytest.mark.parametrize("architecture", EXPERTS)
def test_every_parameter_is_as_in_the_model_that_was_saved(
    architecture: str, tiny_model: TinyModel
) -> None:
    model = StreamedModel(tiny_model(architecture), torch.float32)
    wanted = build_model(architecture).state_dict()
    for index in range(model.n_blocks):
        with model.block(index) as block:
            for name, tensor in block.state_dict().items():
                assert torch.equal(tensor, wanted[model.parameter_name(index, name)]), name


def test_a_stack_by_hand(tmp_path: Path) -> None:
    tensors = {name: torch.full((2, 3), float(n)) for n, name in enumerate("abcd")}
    save_file(tensors, tmp_path / SINGLE)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    full = Weights(tmp_path).read_source(Stack((("a", "c"), ("b", "d"))), torch.float16)
    assert full.dtype == torch.float16 and full.shape == (2, 4, 3)
    assert full[:, :, 0].tolist() == [[0, 0, 2, 2], [1, 1, 3, 3]]


def changed(source: Path, target: Path, change: Callable[[Tensors], Any]) -> Path:
    folder = Path(shutil.copytree(source, target))
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    return folder


def together(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: torch.zeros(4, 128, 32)})


PROBLEMS: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "an expert too few": (
        lambda t: t.pop(W1),
        r"no safetensors file holds \.experts\.2\.w1\.weight beside .*; fetch the model again$",
    ),
    "an expert too many": (
        lambda t: t.update({W1.replace("2.w1", "4.w1"): t[W1].clone()}),
        r"experts\.4\.w1\.weight is of an expert too many: .*config\.json asks for 4; correct",
    ),
    "a matrix of another shape": (
        lambda t: t.update({W1: t[W1][:32].clone()}),
        rf"{W1} is \[32, 32\], but .* makes it \[64, 32\] \(intermediate_size\); correct",
    ),
    "gate and up of other shapes that fit together": (
        lambda t: t.update({
            W1: t[W1][:32].clone(), W1.replace("w1", "w3"): torch.zeros(96, 32)
        }),
        rf"{W1} is \[32, 32\], but",
    ),
    "whole numbers": (lambda t: t.update({W1: t[W1].int()}), rf"{W1} \(I32\) is quantised"),
    "the same matrix under two names": (
        lambda t: t.update({W1.replace("block_sparse_moe", "mlp"): t[W1].clone()}),
        rf"holds model\.layers\.1\.mlp\.experts\.gate_up_proj twice, as {W1} and as .*; fetch",
    ),
    "parts, and then the whole": (
        together("model.layers.1.mlp.experts.gate_up_proj"),
        r"holds model\.layers\.1\.mlp\.experts\.gate_up_proj twice, as .* and as .*; fetch",
    ),
    "the whole, and then parts": (
        together("model.layers.1.block_sparse_moe.experts.gate_up_proj"),
        r"holds model\.layers\.1\.mlp\.experts\.gate_up_proj twice, as .* and as .*; fetch",
    ),
    "a block too many": (
        lambda t: t.update({W1.replace("layers.1", "layers.7"): t[W1].clone()}),
        r"layers\.7\..*; ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PROBLEMS)
def test_what_does_not_fit_is_refused_in_one_line(
    what: str, tiny_model: TinyModel, tmp_path: Path
) -> None:
    change, says = PROBLEMS[what]
    folder = changed(tiny_model("mixtral"), tmp_path / "model", change)
    with pytest.raises(ModelError, match=says) as error:
        StreamedModel(folder, torch.float32)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_a_value_that_is_not_finite_is_named_as_it_is_stored(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    folder = changed(
        tiny_model("mixtral"), tmp_path / "m", lambda t: t[W1].view(-1)[0].fill_(1e999)
    )
    model = StreamedModel(folder, torch.float32)
    with pytest.raises(Exception, match=rf"{W1} holds NaN or infinite"), model.block(1):
        pass


@pytest.mark.parametrize(
    ("steps", "names"),
    [
        ([("MergeModulelist", 1)], ["a.*.w"]),
        ([("MergeModulelist", 0)], ["a.*.w", "b.*.w"]),
        ([("MergeModulelist", 0), ("Concatenate", 0)], ["a.*.w", "b.*.w"]),
        ([("MergeModulelist", 0), ("Transpose", 1)], ["a.*.w"]),
        ([("MergeModulelist", 0), ("Concatenate", 1), ("Transpose", 1)], ["a.*.w", "b.*.w"]),
        ([("Concatenate", 1)], ["a.*.w", "b.*.w"]),
        ([("MergeModulelist", 0)], ["a.w"]),
        ([("MergeModulelist", 0)], ["a.*.*.w"]),
    ],
)
def test_other_conversions_are_not_taken_for_stacking(
    steps: list[tuple[str, int]], names: list[str]
) -> None:
    assert _stacked_as(rule(steps, names), names[0], "a.3.w") is None


def test_the_number_of_an_expert_is_read_from_its_name() -> None:
    stacking = rule([("MergeModulelist", 0)], ["a.*.w"])
    assert _stacked_as(stacking, "a.*.w", "x.a.3.w") == 3
    assert _stacked_as(stacking, "a.*.w", "x.a.b.w") is None


def rule(steps: list[tuple[str, int]], names: list[str]) -> Any:
    """A conversion as transformers describes it."""
    operations = []
    for kind, dim in steps:
        operations.append(type(kind, (), {})())
        operations[-1].dim = dim
    return SimpleNamespace(source_patterns=names, target_patterns=["t"], operations=operations)
