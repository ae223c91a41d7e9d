"""Streaming block by block against the whole model that transformers loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from dass.data.model_folder import SINGLE
from dass.errors import DassError, ModelError, NumericError
from dass.models.numerics import max_abs
from dass.models.streamed import StreamedModel, check_finite
from tests.conftest import SUPPORTED, TinyModel, streamed_logits, whole_logits


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_streaming_is_the_whole_model(
    architecture: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    folder = tiny_model(architecture)
    expected = whole_logits(folder, tokens)
    assert expected.std() > 0.1  # weights that do something
    streamed = streamed_logits(StreamedModel(folder, torch.float32), tokens)
    torch.testing.assert_close(streamed, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma"])
def test_in_bfloat16_too(architecture: str, tiny_model: TinyModel, tokens: Tensor) -> None:
    """The same operations in the same order; the head sees rows flattened, so bits may differ."""
    folder = tiny_model(architecture)
    streamed = streamed_logits(StreamedModel(folder, torch.bfloat16), tokens)
    assert streamed.dtype == torch.bfloat16
    expected = whole_logits(folder, tokens, torch.bfloat16)
    torch.testing.assert_close(streamed, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("architecture", ["mistral", "gemma2", "gemma3"])
def test_the_sliding_window_matters(
    architecture: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    """Changing a token that is out of the first block's window leaves its last output alone."""
    model = StreamedModel(tiny_model(architecture), torch.float32)
    changed = tokens.clone()
    changed[:, 0] = (tokens[:, 0] + 1) % 128

    def first_block(some: Tensor) -> Tensor:
        inputs = model.block_inputs(some)
        args, kwargs = inputs.arguments[0]
        with torch.inference_mode(), model.block(0) as block:
            output: Tensor = block(inputs.hidden, *args, **kwargs)
        return output

    before, after = first_block(tokens), first_block(changed)
    assert torch.equal(before[:, 8:], after[:, 8:])
    assert not torch.allclose(before[:, 7], after[:, 7])


@pytest.mark.parametrize("architecture", ["llama", "granite"])
def test_longer_sequences_leave_no_trace(
    architecture: str, tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    """Dynamic scaling keeps the positions of the longest sequence so far; a model's own logits of
    many rows, as Granite's, are such a sequence, too."""
    folder = Path(shutil.copytree(tiny_model(architecture), tmp_path / "tiny"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"max_position_embeddings": 8}
    config |= {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0}}
    (folder / "config.json").write_text(json.dumps(config))
    model = StreamedModel(folder, torch.float32)
    for length in (20, 8, 12):
        some = tokens[:, :length]
        torch.testing.assert_close(
            streamed_logits(model, some), whole_logits(folder, some), rtol=1e-5, atol=1e-5
        )


def test_a_model_in_shards_is_the_same(tiny_model: TinyModel, tokens: Tensor) -> None:
    one = streamed_logits(StreamedModel(tiny_model("llama"), torch.float32), tokens)
    many = streamed_logits(StreamedModel(tiny_model("llama", sharded=True), torch.float32), tokens)
    assert torch.equal(one, many)


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_logits_take_any_rows(architecture: str, tiny_model: TinyModel) -> None:
    """Rows do not see one another, whichever and however many they are."""
    model = StreamedModel(tiny_model(architecture), torch.float32)
    rows = torch.randn(40, 32, generator=torch.Generator().manual_seed(1))
    some = [17, 3, 3, 39]
    torch.testing.assert_close(model.logits(rows)[some], model.logits(rows[some]))
    torch.testing.assert_close(model.logits(rows)[5:6], model.logits(rows[5:6]))


@pytest.mark.parametrize("architecture", ["llama", "phi3", "gemma3"])
@pytest.mark.parametrize("resident", [False, True])
def test_blocks_hold_storage_only_in_use_unless_resident(
    architecture: str, resident: bool, tiny_model: TinyModel, tokens: Tensor
) -> None:
    model = StreamedModel(tiny_model(architecture), torch.float32, resident=resident)

    def on_meta() -> list[bool]:
        return [all(p.is_meta for p in layer.parameters()) for layer in model.layers]

    assert on_meta() == [True, True, True]
    with model.block(1) as block:
        assert not any(p.is_meta for p in block.parameters())
        assert on_meta() == [True, False, True]
    assert on_meta() == [True, not resident, True]
    assert torch.equal(streamed_logits(model, tokens), streamed_logits(model, tokens))
    assert on_meta() == [not resident] * 3


def test_storage_is_dropped_when_the_work_inside_fails(tiny_model: TinyModel) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    with pytest.raises(RuntimeError, match="inside"), model.block(0):
        raise RuntimeError("inside")
    assert all(p.is_meta for p in model.layers[0].parameters())


def test_a_block_that_was_changed_is_read_afresh(tiny_model: TinyModel, tokens: Tensor) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    before = streamed_logits(model, tokens)
    with torch.inference_mode(), model.block(0) as block:
        block.mlp.down_proj.weight.zero_()
    assert torch.equal(streamed_logits(model, tokens), before)


def test_resident_blocks_are_read_once(
    tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32, resident=True)
    first = streamed_logits(model, tokens)
    monkeypatch.setattr(model.weights, "read", None)
    assert torch.equal(streamed_logits(model, tokens), first)


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_what_surrounds_the_blocks_is_real(architecture: str, tiny_model: TinyModel) -> None:
    """Buffers (rotary frequencies) are in no file: they must have been computed, not left empty."""
    folder = tiny_model(architecture)
    model = StreamedModel(folder, torch.float32).model
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = dict(whole.named_buffers())
    buffers = dict(model.named_buffers())
    assert set(buffers) == set(expected)
    assert any("inv_freq" in name for name in buffers)
    for name, buffer in buffers.items():
        assert torch.equal(buffer, expected[name]), name
    for name, parameter in model.named_parameters(remove_duplicate=False):
        assert parameter.is_meta == (".layers." in name), name


@pytest.mark.parametrize("architecture", ["gemma", "gemma2", "gemma3"])
def test_tied_heads_share_the_embedding(architecture: str, tiny_model: TinyModel) -> None:
    folder = tiny_model(architecture)
    assert "lm_head.weight" not in load_file(folder / SINGLE)
    model: Any = StreamedModel(folder, torch.float32).model
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_a_tied_model_whose_file_holds_the_head_as_well(
    tiny_model: TinyModel, tmp_path: Path, tokens: Tensor
) -> None:
    folder = Path(shutil.copytree(tiny_model("gemma"), tmp_path / "gemma"))
    tensors = load_file(folder / SINGLE)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    streamed = streamed_logits(StreamedModel(folder, torch.float32), tokens)
    torch.testing.assert_close(streamed, whole_logits(folder, tokens), rtol=1e-5, atol=1e-5)


def test_the_overlay_is_applied_to_every_tensor(
    tiny_model: TinyModel, tmp_path: Path, tokens: Tensor
) -> None:
    """Streaming through an overlay is streaming a folder whose tensors were changed."""
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "changed"))
    seen: list[str] = []

    def overlay(name: str, tensor: Tensor) -> Tensor:
        seen.append(name)
        return tensor * 1.5 if "down_proj" in name or "norm" in name else tensor

    tensors = {n: overlay(n, t) for n, t in load_file(folder / SINGLE).items()}
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    names, seen = sorted(seen), []
    model = StreamedModel(tiny_model("llama"), torch.float32, overlay=overlay)
    streamed = streamed_logits(model, tokens)
    assert sorted(seen) == names
    torch.testing.assert_close(streamed, whole_logits(folder, tokens), rtol=1e-5, atol=1e-5)


def test_names_and_sizes(tiny_model: TinyModel) -> None:
    model = StreamedModel(tiny_model("phi3"), torch.float32)
    assert model.n_blocks == 3
    assert model.max_length == 128
    assert model.parameter_name(2, "mlp.down_proj.weight") == "model.layers.2.mlp.down_proj.weight"
    assert model.glu_parameters == ("mlp.gate_up_proj.weight", "mlp.down_proj.weight")


def test_check_finite_names_the_place() -> None:
    fine = [max_abs(torch.zeros(2, 3, 4)), max_abs(torch.full((2, 1, 4), 3e38))]
    check_finite(fine, "tiny, block 1")
    check_finite([], "tiny, block 1")
    inf = float("inf")
    for bad in ([0.0, float("nan")], [inf, 1.0], [inf, -inf]):
        with pytest.raises(NumericError, match=r"^tiny, block 1: its output is not fin") as error:
            check_finite([fine[0], max_abs(torch.tensor(bad)), fine[1]], "tiny, block 1")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "raises"),
    [
        (lambda folder: (folder / "config.json").unlink(), ModelError),
        (lambda folder: (folder / "config.json").write_text("{"), ModelError),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "nonsense"}'),
         ModelError),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), DassError),
        (lambda folder: (folder / SINGLE).unlink(), ModelError),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_model_is_refused_in_one_line(
    damage: Any, raises: type[DassError], tiny_model: TinyModel, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "broken"))
    damage(folder)
    with pytest.raises(raises, match="broken") as error:
        StreamedModel(folder, torch.float32)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_lacks_a_tensor_of_a_block(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "broken"))
    tensors = load_file(folder / SINGLE)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / SINGLE)
    with pytest.raises(ModelError, match=r"holds model\.layers\.1\.mlp\.up_proj\.weight") as error:
        StreamedModel(folder, torch.float32)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_size(tiny_model: TinyModel, tmp_path: Path) -> None:
    """The file's tensors are whole, but not what config.json says."""
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "broken"))
    tensors = load_file(folder / SINGLE)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name][:32].clone()
    save_file(tensors, folder / SINGLE)
    with pytest.raises(ModelError, match=r"broken.*up_proj.*intermediate_size") as error:
        StreamedModel(folder, torch.float32)
    assert "\n" not in str(error.value)
