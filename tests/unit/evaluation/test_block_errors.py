"""Errors of each block: against plain transformers, by hand, and of nothing pruned."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from dass.errors import DataError, ModelError
from dass.evaluation.block_errors import (
    RelativeError,
    block_errors,
    kept_by_decile,
    kept_of_neurons,
    kept_shares,
)
from dass.models.glu import find_glu
from dass.models.streamed import StreamedModel
from dass.pruning.methods import make_method
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned_file import PrunedFile, pack, save_pruned
from tests.conftest import MORE, SUPPORTED, TinyModel


def pruned_file(
    folder: Path, tokens: Tensor, path: Path, method: str = "dass", dtype: Any = torch.float32
) -> PrunedFile:
    pruned = prune(
        StreamedModel(folder, dtype), tokens, make_method(method, {}), parse_pattern("2of4")
    )
    save_pruned(path, pruned.masks, pruned.values, pruned.shapes, {})
    return PrunedFile(path)


def whole(folder: Path, dtype: Any, file: PrunedFile | None = None) -> nn.Module:
    """The model of transformers, pruned where a file is given."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if file is not None and name in file.shapes:
                parameter.copy_(file(name, parameter))
    return model


def relative(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """‖a − b‖ / ‖a‖ over all pairs."""
    ours, theirs = (
        torch.cat([one.double().flatten() for one in side]) for side in zip(*pairs, strict=True)
    )
    return float((ours - theirs).norm() / ours.norm())


def by_transformers(
    dense: nn.Module, pruned: nn.Module, tokens: Tensor
) -> list[tuple[float, float]]:
    """Both errors of each block, by hooks on the two whole models."""
    layers = list(zip(dense.model.layers, pruned.model.layers, strict=True))
    seen: list[dict[str, list[Tensor]]] = [{} for _ in layers]

    def note(index: int, name: str) -> Any:
        def hook(_module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen[index].setdefault(f"{name} in", []).append(inputs[0])
            seen[index].setdefault(f"{name} out", []).append(output)

        return hook

    for index, (ours, theirs) in enumerate(layers):
        ours.register_forward_hook(note(index, "dense"))
        theirs.register_forward_hook(note(index, "pruned"))
        theirs.mlp.register_forward_hook(note(index, "glu"))
    with torch.inference_mode():
        for window in tokens.split(1):
            dense(input_ids=window, use_cache=False)
            pruned(input_ids=window, use_cache=False)
        found = []
        for own, (layer, _) in zip(seen, layers, strict=True):
            wanted = [layer.mlp(x) for x in own["glu in"]]
            glu = relative(list(zip(wanted, own["glu out"], strict=True)))
            hidden = relative(list(zip(own["dense out"], own["pruned out"], strict=True)))
            found.append((glu, hidden))
    return found


@pytest.mark.parametrize(
    ("architecture", "method", "dtype"),
    [(one, "dass", torch.float32) for one in ("llama", "gemma2", "phi3", "qwen3")]
    + [("llama", "sparsegpt", torch.float32), ("llama", "dass", torch.bfloat16)],
)
def test_errors_are_those_of_two_whole_models(
    tiny_model: TinyModel, tokens: Tensor, architecture: str, method: str, dtype: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    folder = tiny_model(architecture)
    file = pruned_file(folder, tokens, tmp_path / "p", method, dtype)
    dense, other = StreamedModel(folder, dtype), StreamedModel(folder, dtype, overlay=file)
    found = block_errors(dense, other, tokens)
    wanted = by_transformers(whole(folder, dtype), whole(folder, dtype, file), tokens)
    assert [(one.glu, one.hidden) for one in found] == [
        (pytest.approx(glu, rel=1e-4), pytest.approx(hidden, rel=1e-4)) for glu, hidden in wanted
    ]
    assert all(0.05 < one.glu < 1.5 and 0 < one.hidden < 1.5 for one in found)
    assert block_errors(dense, other, tokens) == found  # to the bit


@pytest.mark.parametrize("architecture", [*SUPPORTED, *MORE])
def test_a_model_that_is_not_pruned_has_no_error(
    tiny_model: TinyModel, tokens: Tensor, architecture: str
) -> None:
    folder = tiny_model(architecture)
    models = [StreamedModel(folder, torch.float32) for _ in range(2)]
    assert {(one.glu, one.hidden) for one in block_errors(*models, tokens)} == {(0.0, 0.0)}


def test_weights_that_are_all_gone_have_an_error_of_one(
    tiny_model: TinyModel, tokens: Tensor
) -> None:
    """The pruned GLU gives nothing; what the attention adds is still there."""
    folder = tiny_model("llama")

    def without_down(name: str, dense: Tensor) -> Tensor:
        return torch.zeros_like(dense) if "down_proj" in name else dense

    models = [StreamedModel(folder, torch.float32, overlay=o) for o in (None, without_down)]
    found = block_errors(*models, tokens)
    assert [one.glu for one in found] == [1.0] * 3
    assert 0 < found[0].hidden < 1


def test_the_first_block_alone_is_different(tiny_model: TinyModel, tokens: Tensor) -> None:
    """Later GLUs are whole, so that they make no error of their own; the stream keeps its own."""
    folder = tiny_model("llama")

    def first(name: str, dense: Tensor) -> Tensor:
        return dense / 2 if "layers.0.mlp.down_proj" in name else dense

    models = [StreamedModel(folder, torch.float32, overlay=o) for o in (None, first)]
    found = block_errors(*models, tokens)
    assert [one.glu for one in found] == [pytest.approx(0.5), 0.0, 0.0]
    assert all(one.hidden > 0 for one in found)


def test_the_relative_error_by_hand() -> None:
    error = RelativeError()
    error.add(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))  # 16 of 25
    assert error.value() == 4 / 5
    error.add(torch.tensor([[12.0]]), torch.tensor([[9.0]]))  # and 9 of 144
    assert error.value() == pytest.approx(5 / 13)


def test_a_silent_glu_has_no_error() -> None:
    """Blocks that are added to a model begin with a down of zeros."""
    error = RelativeError()
    error.add(torch.zeros(3), torch.zeros(3))
    assert error.value() == 0.0
    error.add(torch.zeros(3), torch.ones(3))
    assert error.value() == math.inf  # which no result file holds


def test_kept_by_decile_by_hand() -> None:
    """Twenty neurons, the loudest first: the loudest tenth keeps all, the quietest an eighth."""
    norms = torch.arange(20.0, 0, -1)
    kept = torch.tensor([1.0, 1.0, *[0.5] * 16, 0.25, 0.0])
    assert kept_by_decile(kept, norms) == [0.125, *[0.5] * 8, 1.0]


def test_equal_norms_are_sorted_by_place_and_tenths_differ_by_one() -> None:
    kept = torch.tensor([1.0, 1.0, *[0.0] * 20, 1.0])  # 23 neurons: three tenths of three
    assert kept_by_decile(kept, torch.ones(23)) == [
        pytest.approx(2 / 3), *[0.0] * 8, 0.5,
    ]  # fmt: skip


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_the_kept_share_of_a_neuron_by_hand(
    tiny_model: TinyModel, architecture: str, tmp_path: Path
) -> None:
    """Of neuron 5 gate keeps half and up a quarter; of all others both keep everything."""
    model = StreamedModel(tiny_model(architecture), torch.float32)
    glu, gate, up = find_glu(model.layers[0], "b"), *(torch.ones(64, 32) > 0 for _ in "gu")
    gate[5, :16] = False
    up[5, 8:] = False
    fused = len(glu.parameters) == 2
    masks = {"gate_up_proj": torch.cat([gate, up])} if fused else {"gate_proj": gate, "up_proj": up}
    names = {f"model.layers.0.mlp.{name}.weight": mask for name, mask in masks.items()}
    save_pruned(
        tmp_path / "p", {name: pack(mask) for name, mask in names.items()}, {},
        {name: tuple(mask.shape) for name, mask in names.items()}, {},
    )  # fmt: skip
    kept = kept_of_neurons(glu, PrunedFile(tmp_path / "p"), "model.layers.0")
    assert kept[5] == 0.375
    assert kept.sum() == 63.375


def test_norms_of_another_model_are_refused(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    folder = tiny_model("llama")
    file = pruned_file(folder, tokens, tmp_path / "p")
    model = StreamedModel(folder, torch.float32)
    shares = kept_shares(model, file, [torch.arange(64.0)] * 3, "norms")
    assert [len(own) for own in shares] == [10] * 3
    assert sum(shares[0]) / 10 == pytest.approx(0.5, abs=0.02)
    for norms in ([torch.ones(64)] * 2, [torch.ones(32)] * 3):
        with pytest.raises(DataError, match=r"^norms: norms of another model than .*run again$"):
            kept_shares(model, file, norms, "norms")


def test_a_glu_without_a_module_of_its_own_is_refused(
    tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [StreamedModel(tiny_model("llama"), torch.float32) for _ in range(2)]
    monkeypatch.setattr("dass.evaluation.block_errors.common_module", lambda block, _: block)
    with pytest.raises(ModelError, match=r"^llama, block 0 .*not a module of its own"):
        block_errors(*models, tokens)
