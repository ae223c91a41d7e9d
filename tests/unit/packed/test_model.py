"""Whole models on packed weights: in place, and from a file beside an export."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from dass.errors import DataError, ModelError
from dass.models.glu import find_glu
from dass.packed import cpu, linear
from dass.packed.formats import Groups
from dass.packed.linear import PackedGLU
from dass.packed.model import PACKED, load_packed, pack_folder, pack_model
from dass.packed.strips import Strips
from dass.pruning.masks import keep_mask
from dass.pruning.patterns import NofM
from tests.conftest import TinyModel

ARCHITECTURES = ["llama", "mistral", "gemma", "qwen2", "phi3"]


@pytest.fixture(params=ARCHITECTURES)
def export(request: pytest.FixtureRequest, tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A folder of a bfloat16 model that is pruned to 2:4, gate and up along the output."""
    return pruned_folder(tiny_model(request.param), tmp_path / "export")


def pruned_folder(source: Path, folder: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    for block in model.model.layers:
        for projection in find_glu(block, "").projections:
            axis = "input" if projection.role == "down" else "output"
            weight = projection.weight
            mask = keep_mask(weight.float().abs(), NofM(2, 4), "row", axis)
            weight.masked_fill_(~mask, 0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(params=["kernel", "unpacked"])
def apart(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """How far logits may lie apart: unpacked weights give the same products, to the bit."""
    if request.param == "unpacked":
        monkeypatch.setattr(cpu, "kernel", lambda: None)
    elif cpu.kernel() is None:
        pytest.skip("no kernel for this CPU")
    return 0.0 if request.param == "unpacked" else 0.02


def assert_close(one: torch.Tensor, other: torch.Tensor, apart: float) -> None:
    assert (one - other).abs().max() <= apart * other.abs().max()


def layouts(model: torch.nn.Module) -> set[type]:
    """Of all packed weights."""
    mlps = [module for module in model.modules() if isinstance(module, PackedGLU)]
    return {
        type(linear.packed_of(mlp._tensors(role), mlp.numbers[role]))
        for mlp in mlps
        for role in mlp.numbers
    }


def logits(model, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=tokens, use_cache=False).logits.float()


def test_a_model_that_is_packed_in_place_says_the_same(export: Path, tokens, apart: float) -> None:
    model = AutoModelForCausalLM.from_pretrained(export, dtype=torch.bfloat16).eval()
    wanted = logits(model, tokens)
    assert pack_model(model) == {}
    assert sum(isinstance(module, PackedGLU) for module in model.modules()) == len(
        model.model.layers
    )
    assert layouts(model) == {Strips if apart else Groups}  # one of them, and no other copy
    assert_close(logits(model, tokens), wanted, apart)


def test_a_packed_file_makes_the_same_model(export: Path, tokens, apart: float) -> None:
    wanted = logits(AutoModelForCausalLM.from_pretrained(export, dtype=torch.bfloat16), tokens)
    assert pack_folder(export, torch.bfloat16) == export / PACKED
    model = load_packed(export, "cpu")
    assert layouts(model) == {Strips if apart else Groups}
    assert_close(logits(model, tokens), wanted, apart)
    assert not [name for name, p in model.named_parameters() if p.is_meta]


def test_dense_weights_may_be_kept_for_many_tokens(
    export: Path, tokens, apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing is unpacked for them; up to 16 (8) tokens still take the packed weights."""
    most, calls = (8, "_times") if apart else (16, "dense_of")
    model = AutoModelForCausalLM.from_pretrained(export, dtype=torch.bfloat16).eval()
    wanted, few = logits(model, tokens), logits(model, tokens[:1, :most])
    assert pack_model(model, keep_dense=True) == {}
    pack_folder(export, torch.bfloat16)
    used: list[object] = []
    inner = getattr(linear, calls)
    monkeypatch.setattr(linear, calls, lambda one, other: used.append(one) or inner(one, other))
    for one in (model, load_packed(export, "cpu", keep_dense=True)):
        used.clear()
        logits(one, tokens[:1, : most + 1])
        assert torch.equal(logits(one, tokens), wanted)
        assert not used
        assert_close(logits(one, tokens[:1, :most]), few, apart)
        assert len(used) == 3 * len(model.model.layers)


def test_the_packed_model_generates(tiny_model: TinyModel, tmp_path: Path, apart: float) -> None:
    """As the folder's settings have it."""
    folder = pruned_folder(tiny_model("llama"), tmp_path / "export")
    pack_folder(folder, torch.bfloat16)
    (folder / "generation_config.json").write_text('{"repetition_penalty": 3.0}')
    prompt = torch.tensor([[3, 5, 8]])
    both = [
        model.generate(prompt, max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)
        for model in (
            load_packed(folder, "cpu"),
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16),
        )
    ]
    assert torch.equal(*both)
    assert len(both[0].unique()) == 3 + 6  # nothing is said twice


def test_what_cannot_be_packed_stays_and_says_why(tiny_model: TinyModel, tokens) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model("llama"), dtype=torch.bfloat16).eval()
    wanted = logits(model, tokens)
    left = pack_model(model)
    assert len(left) == len(model.model.layers)
    assert "are neither 2:4 nor 4:8" in next(iter(left.values()))
    assert torch.equal(logits(model, tokens), wanted)
    assert pack_model(model, bitmap=True) == {}
    assert torch.equal(logits(model, tokens), wanted)


def test_another_form_of_mlp_stays(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = pruned_folder(tiny_model("llama"), tmp_path / "export")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    mlp = model.model.layers[0].mlp
    forward = mlp.forward
    mlp.forward = lambda x: 2 * forward(x)
    left = pack_model(model)
    assert list(left) == ["model.layers.0"]
    assert "something else than down(act(gate(x)) * up(x))" in left["model.layers.0"]


def test_a_damaged_or_missing_packed_file_is_refused(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = pruned_folder(tiny_model("llama"), tmp_path / "export")
    with pytest.raises(DataError, match="no such file"):
        load_packed(folder, "cpu")
    file = pack_folder(folder, torch.bfloat16)
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        load_packed(folder, "cpu")
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(DataError, match="damaged"):
        load_packed(folder, "cpu")


def test_a_packed_file_of_an_older_format_is_refused(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = pruned_folder(tiny_model("llama"), tmp_path / "export")
    file = pack_folder(folder, torch.bfloat16)
    with safe_open(file, framework="pt") as one:
        metadata = one.metadata() | {"format": "dass-packed-2"}
    save_file(load_file(file), file, metadata)
    with pytest.raises(DataError, match="not a packed file of format dass-packed-3") as caught:
        load_packed(folder, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changed", ["model.safetensors", "config.json"])
def test_a_packed_file_of_what_the_folder_was_before_is_refused(
    changed: str, tiny_model: TinyModel, tmp_path: Path
) -> None:
    """Else its MLPs would run between an attention of other weights, or with another activation."""
    folder = pruned_folder(tiny_model("llama"), tmp_path / "export")
    pack_folder(folder, torch.bfloat16)
    load_packed(folder, "cpu")
    file = folder / changed
    if changed == "config.json":
        file.write_text(file.read_text().replace('"silu"', '"relu"'))
    else:
        weights = {name: 2 * tensor for name, tensor in load_file(file).items()}
        save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"packed of another model than .*; pack it again"):
        load_packed(folder, "cpu")


def test_a_packed_file_of_a_deeper_model_is_refused(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = pruned_folder(tiny_model("llama"), tmp_path / "export")
    pack_folder(folder, torch.bfloat16)
    other = pruned_folder(tiny_model("llama"), tmp_path / "other")
    shutil.copy(folder / PACKED, other / PACKED)
    config = (other / "config.json").read_text()
    weights = load_file(other / "model.safetensors")
    count = len({name.split(".")[2] for name in weights if ".layers." in name})
    kept = {n: t for n, t in weights.items() if f".layers.{count - 1}." not in n}
    save_file(kept, other / "model.safetensors", metadata={"format": "pt"})
    (other / "config.json").write_text(
        config.replace(f'"num_hidden_layers": {count}', f'"num_hidden_layers": {count - 1}')
    )
    with pytest.raises(ModelError, match="another model"):
        load_packed(other, "cpu")
