"""Norms of activations by block: against plain transformers, and by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from dass.errors import DassError, DataError, NumericError
from dass.models.glu import find_glu
from dass.models.streamed import StreamedModel
from dass.pruning.activations import PERCENTILES, Norms, activation_norms, spread_of
from dass.pruning.masks import keep_mask
from dass.pruning.methods import make_method
from dass.pruning.norms_file import load_norms, norms_hash, save_norms
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned_file import unpack
from tests.conftest import MORE, SUPPORTED, TinyModel, damaged


def by_transformers(folder: Path, tokens: Tensor, dtype: torch.dtype) -> list[Norms]:
    """The same norms, by hooks on the whole model."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    seen: dict[tuple[int, str], list[Tensor]] = {}
    layers = model.model.layers
    for index, layer in enumerate(layers):
        glu = find_glu(layer, "layer")
        for name, linear in (("input", glu.gate.linear), ("intermediate", glu.down.linear)):
            key = index, name
            linear.register_forward_pre_hook(
                lambda _, inputs, key=key: seen.setdefault(key, []).append(inputs[0])
            )
    with torch.inference_mode():
        model(input_ids=tokens, use_cache=False)
    return [
        Norms(*(
            torch.cat(seen[index, name]).double().flatten(0, 1).norm(dim=0)
            for name in ("input", "intermediate")
        ))
        for index in range(len(layers))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [(one, torch.float32) for one in ("llama", "gemma2", "phi3", "qwen3")]
    + [("llama", torch.bfloat16)],
)
def test_norms_are_those_of_the_whole_model(
    tiny_model: TinyModel, tokens: Tensor, architecture: str, dtype: torch.dtype
) -> None:
    folder = tiny_model(architecture)
    found = activation_norms(StreamedModel(folder, dtype), tokens)
    for ours, theirs in zip(found, by_transformers(folder, tokens, dtype), strict=True):
        torch.testing.assert_close(ours.input.double(), theirs.input, rtol=1e-5, atol=0)
        torch.testing.assert_close(
            ours.intermediate.double(), theirs.intermediate, rtol=1e-5, atol=0
        )


def test_norms_are_what_a_method_is_given(tiny_model: TinyModel, tokens: Tensor) -> None:
    """To the bit, with `propagation: dense`: Wanda on `down` scores by them."""
    folder = tiny_model("llama")
    norms = activation_norms(StreamedModel(folder, torch.float32), tokens)
    again = activation_norms(StreamedModel(folder, torch.float32), tokens)
    assert norms_hash(norms) == norms_hash(again)
    model = StreamedModel(folder, torch.float32)
    pruned = prune(
        model, tokens, make_method("wanda", {}), parse_pattern("2of4"), propagation="dense"
    )
    for index, own in enumerate(norms):
        name = f"model.layers.{index}.mlp.down_proj.weight"
        with model.block(index) as block:
            scores = find_glu(block, "b").down.weight.abs() * own.intermediate
        wanted = keep_mask(scores, parse_pattern("2of4"), "row", "input")
        assert torch.equal(unpack(pruned.masks[name], pruned.shapes[name]), wanted)


@pytest.mark.parametrize("architecture", [*SUPPORTED, *MORE])
def test_every_architecture_has_norms(
    tiny_model: TinyModel, tokens: Tensor, architecture: str
) -> None:
    model = StreamedModel(tiny_model(architecture), torch.float32)
    norms = activation_norms(model, tokens)
    assert [len(own.intermediate) for own in norms] == [model.intermediate_size] * model.n_blocks
    assert [len(own.input) for own in norms] == [model.hidden_size] * model.n_blocks


def test_the_spread_by_hand() -> None:
    """1, 2, ..., 19, and 980: the median is 10.5, the mean 58.5, and one channel is above 292.5."""
    spread = spread_of(torch.tensor([*range(1, 20), 980.0]), "x")
    assert spread.median == 10.5
    assert list(spread.percentiles) == [str(one) for one in PERCENTILES]
    assert spread.percentiles["100"] == pytest.approx(980 / 10.5)
    assert spread.percentiles["50"] == 1
    assert spread.percentiles["25"] == pytest.approx(5.75 / 10.5)  # a quarter of 19 steps
    assert spread.outliers == 1 / 20


def test_equal_norms_have_no_outlier() -> None:
    spread = spread_of(torch.full((7,), 3.0), "x")
    assert (spread.median, spread.outliers) == (3, 0)
    assert set(spread.percentiles.values()) == {1.0}


@pytest.mark.parametrize(("loud", "outliers"), [(95.0, 0), (96.0, 0.05)])
def test_an_outlier_is_above_five_times_the_mean(loud: float, outliers: float) -> None:
    """Of 15 nineteen times and 95 the mean is 19, and 95 is five times that: not above it."""
    norms = torch.tensor([*[15.0] * 19, loud])
    assert spread_of(norms, "x").outliers == pytest.approx(outliers)


def test_silent_channels_are_named_in_one_line() -> None:
    with pytest.raises(NumericError, match=r"^m, block 1, input: half of its channels .*`blocks`$"):
        spread_of(torch.tensor([0.0, 0.0, 0.0, 1.0]), "m, block 1, input")


# --- The file ---------------------------------------------------------------------------------

NORMS = [Norms(torch.tensor([1.0, 2.0]), torch.tensor([3.0 + n, 4, 5])) for n in range(12)]


def test_norms_are_read_as_they_were_written(tmp_path: Path) -> None:
    save_norms(tmp_path / "n", NORMS)
    found = load_norms(tmp_path / "n")
    assert len(found) == 12
    for ours, theirs in zip(found, NORMS, strict=True):
        assert torch.equal(ours.input, theirs.input)
        assert torch.equal(ours.intermediate, theirs.intermediate)
    assert norms_hash(found) == norms_hash(NORMS) != norms_hash(NORMS[:11])
    written = (tmp_path / "n").read_bytes()
    save_norms(tmp_path / "n", NORMS)
    assert (tmp_path / "n").read_bytes() == written


def test_what_is_no_file_of_norms_is_named(tmp_path: Path) -> None:
    save_file({"0.input": torch.ones(2), "0.intermediate": torch.ones(3)}, tmp_path / "n")
    for path in (tmp_path / "n", tmp_path / "gone"):
        with pytest.raises(DataError, match=r"^[^\n]*: no usable file of norms \(.*run again$"):
            load_norms(path)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_says_the_same(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("norms") / "n"
    save_norms(path, NORMS)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        assert norms_hash(load_norms(path)) == norms_hash(NORMS)
    except DassError as error:
        assert "\n" not in str(error)
