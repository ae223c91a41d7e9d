"""Reading a model folder, whole and broken in every way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dass.data.model_folder import INDEX, SINGLE
from dass.errors import DassError, ModelError, NumericError
from dass.models.weights import Weights
from tests.conftest import TinyModel

GATE = "model.layers.1.mlp.gate_proj.weight"


@pytest.fixture
def single(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A copy of the tiny Llama in one file."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "tiny"))


@pytest.fixture
def sharded(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A copy of the tiny Llama in several files."""
    return Path(shutil.copytree(tiny_model("llama", sharded=True), tmp_path / "tiny"))


def shard_of(folder: Path, name: str) -> Path:
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][name]


def one_line(error: pytest.ExceptionInfo[DassError], *parts: object) -> None:
    line = str(error.value)
    assert "\n" not in line
    for part in parts:
        assert str(part) in line


def test_tensors_are_those_of_the_file(single: Path) -> None:
    expected = load_file(single / SINGLE)
    weights = Weights(single)
    assert set(weights.stored) == set(expected)
    read = weights.read(list(expected))
    assert all(torch.equal(read[name], tensor) for name, tensor in expected.items())
    assert GATE in weights and "model.layers.9.mlp.gate_proj.weight" not in weights
    assert weights.files == [single / SINGLE]


def test_shards_hold_the_same_as_one_file(single: Path, tiny_model: TinyModel) -> None:
    sharded = tiny_model("llama", sharded=True)
    weights = Weights(sharded)
    assert len(weights.files) > 2
    assert weights.files == sorted(sharded.glob("*.safetensors"))
    whole = Weights(single).read(Weights(single).stored)
    read = weights.read(weights.stored)
    assert set(read) == set(whole)
    assert all(torch.equal(read[name], tensor) for name, tensor in whole.items())


def test_tensors_are_converted(single: Path) -> None:
    weights = Weights(single)
    half = weights.read([GATE], torch.bfloat16)[GATE]
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, weights.read([GATE])[GATE].bfloat16())


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        Weights(tmp_path / "nowhere")
    one_line(error, tmp_path / "nowhere", "no such model folder", "config")


def test_pickled_weights_only(single: Path) -> None:
    (single / SINGLE).rename(single / "pytorch_model.bin")
    with pytest.raises(ModelError) as error:
        Weights(single)
    one_line(error, single, "no safetensors", "pickled weights are never loaded")


def test_a_missing_shard_is_named(sharded: Path) -> None:
    shard_of(sharded, GATE).unlink()
    with pytest.raises(ModelError) as error:
        Weights(sharded)
    one_line(error, sharded, shard_of(sharded, GATE).name, "missing", "fetch")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_shard_is_named_when_opened(sharded: Path, keep: int) -> None:
    """At any length: nothing, in the header's length, in the header, one byte short."""
    shard = shard_of(sharded, GATE)
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(ModelError) as error:
        Weights(sharded)
    one_line(error, shard, "truncated or damaged", "fetch")


def test_a_truncated_single_file(single: Path) -> None:
    (single / SINGLE).write_bytes((single / SINGLE).read_bytes()[:-1])
    with pytest.raises(ModelError) as error:
        Weights(single)
    one_line(error, single / SINGLE, "truncated or damaged")


def test_a_shard_without_the_tensor_that_the_index_promises(sharded: Path) -> None:
    shard = shard_of(sharded, GATE)
    tensors = load_file(shard)
    del tensors[GATE]
    save_file(tensors or {"other": torch.zeros(1)}, shard)
    with pytest.raises(ModelError) as error:
        Weights(sharded).read([GATE])
    one_line(error, shard, GATE)


def test_a_tensor_that_is_nowhere(single: Path) -> None:
    with pytest.raises(ModelError) as error:
        Weights(single).read(["model.layers.7.mlp.up_proj.weight"])
    one_line(error, single, "model.layers.7.mlp.up_proj.weight", "fetch")


def test_an_index_that_is_no_json(sharded: Path) -> None:
    (sharded / INDEX).write_text('{"weight_map": {')
    with pytest.raises(ModelError) as error:
        Weights(sharded)
    one_line(error, sharded / INDEX, "not valid JSON")


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}'])
def test_an_index_without_a_map(sharded: Path, content: str) -> None:
    (sharded / INDEX).write_text(content)
    with pytest.raises(ModelError) as error:
        Weights(sharded)
    one_line(error, sharded / INDEX, "list" if content == "[]" else "weight_map")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_name_the_tensor(single: Path, bad: float) -> None:
    tensors = load_file(single / SINGLE)
    tensors[GATE][3, 5] = bad
    save_file(tensors, single / SINGLE)
    weights = Weights(single)
    with pytest.raises(NumericError) as error:
        weights.read([GATE])
    one_line(error, single / SINGLE, GATE, "NaN or infinite")
    weights.read(["model.layers.0.mlp.gate_proj.weight"])  # the others are fine


def test_overflow_in_float16_says_what_would_hold_it(single: Path) -> None:
    tensors = load_file(single / SINGLE)
    tensors[GATE][0, 0] = 1e5
    save_file(tensors, single / SINGLE)
    with pytest.raises(NumericError) as error:
        Weights(single).read([GATE], torch.float16)
    one_line(error, GATE, "float16", "bfloat16")
    Weights(single).read([GATE], torch.bfloat16)


def test_writing_to_a_tensor_reaches_neither_the_file_nor_later_reads(single: Path) -> None:
    """Safetensors maps the file into memory: a tensor must not be a view of it."""
    weights = Weights(single)
    before, content = weights.read([GATE])[GATE].clone(), (single / SINGLE).read_bytes()
    weights.read([GATE])[GATE].zero_()
    assert torch.equal(weights.read([GATE])[GATE], before)
    assert (single / SINGLE).read_bytes() == content
