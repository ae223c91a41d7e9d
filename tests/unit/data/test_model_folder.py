"""A model folder is understood from config.json and headers, or refused in one line."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dass.data.model_config import check_window
from dass.data.model_folder import INDEX, SINGLE, check_folder, read_header, weight_files
from dass.errors import ModelError
from dass.models.streamed import StreamedModel
from tests.conftest import TinyModel

Tensors = dict[str, Tensor]


@pytest.fixture
def folder(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A copy of the tiny Llama."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "tiny"))


def set_config(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


def refused(folder: Path, *parts: str) -> str:
    """The one line with which the folder is refused, before a weight is read."""
    with pytest.raises(ModelError) as error:
        check_folder(folder)
    line = str(error.value)
    assert "\n" not in line and str(folder) in line
    for part in parts:
        assert part in line
    with pytest.raises(ModelError) as again:
        StreamedModel(folder, torch.float32)
    assert str(again.value) == line
    return line


# --- Quantised weights ------------------------------------------------------------------------


def projections(tensors: Tensors) -> list[str]:
    return [name for name in tensors if name.endswith("_proj.weight")]


def float8(tensors: Tensors, scale: str, dtype: torch.dtype = torch.float8_e4m3fn) -> Tensors:
    """As published in float8: a scale per matrix, or its inverse per block."""
    for name in projections(tensors):
        tensors[name] = tensors[name].to(dtype)
        if scale:
            tensors[name.replace("weight", scale)] = torch.ones(1)
    return tensors


def float8_scaled_in_bfloat16(tensors: Tensors) -> Tensors:
    """The numbers of float8 in a dtype that looks harmless, with their scales."""
    return {
        name: tensor.bfloat16() if tensor.dtype == torch.float8_e4m3fn else tensor
        for name, tensor in float8(tensors, "weight_scale").items()
    }


def int8(tensors: Tensors) -> Tensors:
    """As bitsandbytes stores LLM.int8()."""
    for name in projections(tensors):
        tensors[name] = (tensors[name] * 40).to(torch.int8)
        tensors[name.replace("weight", "SCB")] = torch.ones(len(tensors[name]))
    return tensors


def nf4(tensors: Tensors) -> Tensors:
    """As bitsandbytes stores 4 bits."""
    for name in projections(tensors):
        tensors[name] = torch.zeros((tensors[name].numel() // 2, 1), dtype=torch.uint8)
        tensors[f"{name}.absmax"] = torch.zeros(8, dtype=torch.uint8)
        tensors[f"{name}.quant_map"] = torch.zeros(16)
        tensors[f"{name}.quant_state.bitsandbytes__nf4"] = torch.zeros(80, dtype=torch.uint8)
    return tensors


def gptq(tensors: Tensors) -> Tensors:
    """As GPTQ and AWQ pack 4 bits into int32."""
    for name in projections(tensors):
        out, width = tensors.pop(name).shape
        stem = name.removesuffix("weight")
        tensors[f"{stem}qweight"] = torch.zeros((width // 8, out), dtype=torch.int32)
        tensors[f"{stem}qzeros"] = torch.zeros((1, out // 8), dtype=torch.int32)
        tensors[f"{stem}scales"] = torch.zeros((1, out), dtype=torch.float16)
        tensors[f"{stem}g_idx"] = torch.zeros(width, dtype=torch.int32)
    return tensors


def compressed(tensors: Tensors) -> Tensors:
    """As compressed-tensors packs 4 bits."""
    for name in projections(tensors):
        shape = tensors.pop(name).shape
        tensors[f"{name}_packed"] = torch.zeros((shape[0], shape[1] // 8), dtype=torch.int32)
        tensors[f"{name}_scale"] = torch.zeros((shape[0], 1))
        tensors[f"{name}_shape"] = torch.tensor(shape)
    return tensors


def one_tensor(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    """One projection of this dtype and nothing beside it."""

    def change(tensors: Tensors) -> Tensors:
        name = projections(tensors)[-1]
        return tensors | {name: tensors[name].to(dtype)}

    return change


@pytest.mark.parametrize(
    ("quantise", "dtype"),
    [
        (lambda t: float8(t, "weight_scale"), "F8_E4M3"),
        (lambda t: float8(t, "weight_scale_inv"), "F8_E4M3"),
        (lambda t: float8(t, "", torch.float8_e5m2), "F8_E5M2"),
        (float8_scaled_in_bfloat16, "F32"),
        (int8, "I8"),
        (nf4, "U8"),
        (gptq, "I32"),
        (compressed, "I32"),
        (one_tensor(torch.int8), "I8"),
        (one_tensor(torch.uint8), "U8"),
        (one_tensor(torch.int16), "I16"),
        (one_tensor(torch.float8_e4m3fnuz), "F8_E4M3FNUZ"),
        (one_tensor(torch.int64), "I64"),
        (one_tensor(torch.bool), "BOOL"),
    ],
)
def test_quantised_weights_are_refused_by_name(
    quantise: Callable[[Tensors], Tensors], dtype: str, folder: Path
) -> None:
    tensors = quantise(load_file(folder / SINGLE))
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / SINGLE, {"format": "pt"})
    line = refused(folder, SINGLE, "quantised checkpoint", "give the unquantised model")
    assert f"({dtype})" in line or "scales of quantised weights" in line
    assert "model.layers." in line and "fetch" not in line


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_a_config_that_says_so_is_refused(key: str, folder: Path) -> None:
    set_config(folder, **{key: {"quant_method": "gptq", "bits": 4}})
    refused(folder, f"{key} (gptq)", "unquantised")
    set_config(folder, **{key: None})
    check_folder(folder)


def test_also_of_a_model_within_a_larger_one(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    text = config | {"quantization_config": {"quant_method": "fp8"}}
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "text_config": text}))
    refused(folder, "quantization_config (fp8)")


# --- config.json ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[1]", "holds a list, not an object"),
        ("null", "holds a NoneType"),
        ("[" * 100_000, "not valid JSON"),
        ('\ufeff{"model_type": "llama"}', "BOM"),
        ("{}", "no model_type"),
        ('{"model_type": 3}', "no model_type"),
    ],
)
def test_what_is_no_config(content: str, said: str, folder: Path) -> None:
    (folder / "config.json").write_text(content, encoding="utf-8")
    refused(folder, "config.json", said)


def test_a_config_that_is_no_text_or_no_file(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe\x00{")
    refused(folder, "config.json", "not valid JSON")
    (folder / "config.json").unlink()
    refused(folder, "no config.json")
    (folder / "config.json").mkdir()
    refused(folder, "no config.json")


@pytest.mark.parametrize(
    "key",
    [
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"),
        *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
    ],
)
@pytest.mark.parametrize("value", ["32", 0, -1, 1.5, True])
def test_a_size_that_is_none_names_its_key(key: str, value: Any, folder: Path) -> None:
    set_config(folder, **{key: value})
    refused(folder, "config.json", f"{key} is {value!r}, not a whole number above 0")


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size"])
def test_sizes_of_another_model_are_refused_before_it_is_built(key: str, folder: Path) -> None:
    set_config(folder, **{key: 10**12})
    refused(folder, key, str(10**12), "model.embed_tokens.weight", "[128, 32]")


def test_heads_that_cannot_share_keys_and_values(folder: Path) -> None:
    set_config(folder, num_key_value_heads=3)
    refused(folder, "num_attention_heads (4) is no multiple of num_key_value_heads (3)")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize(
    "value", ["flash_attention_2", "kernels-community/flash-attn", "nonsense", 3, {"": "flex"}]
)
def test_attention_that_needs_a_package_or_the_hub(key: str, value: Any, folder: Path) -> None:
    set_config(folder, **{key: value})
    refused(folder, f"{key} is {value!r}", "eager or sdpa")
    set_config(folder, **{key: "eager"})
    check_folder(folder)


@pytest.mark.parametrize("key", ["configuration_files", "transformers_weights", "fusion_config"])
def test_keys_that_would_have_other_files_read(key: str, folder: Path) -> None:
    set_config(folder, **{key: ["config.4.0.0.json"]})
    refused(folder, key, "remove the key")


@pytest.mark.parametrize(
    "setting",
    [
        {"is_causal": False},
        {"use_bidirectional_attention": True},
        {"use_bidirectional_attention": "all"},
    ],
)
def test_tokens_that_see_later_ones(setting: dict[str, Any], folder: Path) -> None:
    set_config(folder, **setting)
    refused(folder, "is_causal or use_bidirectional_attention")


@pytest.mark.parametrize("value", [0, -1, 0.0])
@pytest.mark.parametrize(
    "key", ["sliding_window", "attn_logit_softcapping", "final_logit_softcapping"]
)
def test_limits_that_leave_nothing(key: str, value: float, folder: Path) -> None:
    """A window of no token, logits that are all 0: other programs mean no limit by it."""
    set_config(folder, **{key: value})
    refused(folder, f"{key} is {value}", "set it to null")
    set_config(folder, **{key: None})
    check_folder(folder)


@pytest.mark.parametrize(
    "setting", [{"use_sliding_window": False}, {"layer_types": ["full_attention"] * 3}]
)
def test_a_window_that_no_block_has_may_be_anything(setting: dict[str, Any], folder: Path) -> None:
    set_config(folder, sliding_window=0, **setting)
    check_folder(folder)


# --- Headers ----------------------------------------------------------------------------------


def header(content: Any, data: int) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 2**63),
        header(b"{", 0),
        header([], 0),
        header(b"\xff", 0),
        header({"a": ONE}, 9),
        header({"a": ONE}, 7),
        header({"a": ONE, "b": ONE | {"data_offsets": [4, 12]}}, 12),
        header({"a": ONE | {"shape": [3]}}, 8),
        header({"a": ONE | {"shape": [-2]}}, 8),
        header({"a": ONE | {"dtype": "Q4"}}, 8),
        header({"a": ONE | {"data_offsets": [8, 0]}}, 8),
        header({"a": 3}, 0),
    ],
)
def test_a_damaged_file_is_named(content: bytes, folder: Path) -> None:
    (folder / SINGLE).write_bytes(content)
    refused(folder, SINGLE, "truncated or damaged")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc")
def test_weights_on_a_broken_disk_are_named(folder: Path) -> None:
    """The first bytes of a process's own memory cannot be read: EIO."""
    (folder / SINGLE).unlink()
    (folder / SINGLE).symlink_to("/proc/self/mem")
    refused(folder, SINGLE, "truncated or damaged")


def test_a_pointer_of_git_lfs_says_what_to_do(folder: Path) -> None:
    (folder / SINGLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    refused(folder, SINGLE, "git lfs pull")


def test_a_file_that_cannot_be_opened(folder: Path) -> None:
    (folder / "other.safetensors").mkdir()
    with pytest.raises(ModelError, match=r"other\.safetensors: truncated or damaged"):
        read_header(folder / "other.safetensors")


def test_the_check_needs_neither_torch_nor_transformers(folder: Path) -> None:
    """So that it may be made for each job of thousands."""
    script = """import sys
from dass.data.model_folder import check_folder, files_read
assert len(check_folder(sys.argv[1])) == 30 and len(files_read(sys.argv[1])) > 1
assert not {"torch", "transformers", "pydantic"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True)


def test_a_tensor_that_two_shards_hold_is_of_the_last_by_name(folder: Path) -> None:
    """In whichever order the index names them: transformers reads them sorted."""
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    for name in ("b.safetensors", "a.safetensors"):
        save_file(tensors, folder / name)
    names = sorted(tensors)
    index = dict.fromkeys(names, "a.safetensors") | {names[0]: "b.safetensors"}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert weight_files(folder) == [folder / "a.safetensors", folder / "b.safetensors"]
    assert {part.file.name for part in check_folder(folder).values()} == {"b.safetensors"}


def test_blocks_are_counted_without_the_prefix_too(folder: Path) -> None:
    """As a base model's tensors are called."""
    tensors = load_file(folder / SINGLE)
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(bare, folder / SINGLE)
    check_folder(folder)
    set_config(folder, num_hidden_layers=2)
    refused(folder, "num_hidden_layers is 2", "layers.2.")


@pytest.mark.parametrize(
    ("settings", "longest"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"text_config": {"max_position_embeddings": 512}}, 512),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}},
         16384),
        ({"max_position_embeddings": 4096,
          "rope_parameters": {"rope_type": "dynamic", "factor": 2}},
         8192),
        ({"max_position_embeddings": 32768, "rope_scaling": {
            "rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 32768}}, 131072),
        # These say in max_position_embeddings how far they reach.
        ({"max_position_embeddings": 131072, "rope_scaling": {
            "rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 32768}}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": {
            "rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 32768}}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}},
         131072),
    ],
)  # fmt: skip
def test_windows_are_as_long_as_the_model_has_positions(settings: dict, longest: int) -> None:
    check_window(settings, longest, "m")
    with pytest.raises(ModelError, match=rf"m: max_position_embeddings is {longest}, but windows"):
        check_window(settings, longest + 1, "m")


def test_a_model_without_position_embeddings_takes_any_window() -> None:
    check_window({"model_type": "recurrent_gemma"}, 10**6, "m")
