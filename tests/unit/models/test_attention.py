"""Replaying the attention's output gives what computing the block again would have given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dass.models.attention import AttentionMemory, find_attention
from dass.models.batches import Batch, batches_of
from dass.models.glu import find_glu
from dass.models.streamed import StreamedModel
from tests.conftest import SUPPORTED, TinyModel, build_model

HOST = torch.device("cpu")


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_the_attention_is_found(architecture: str) -> None:
    block = build_model(architecture).model.layers[0]
    assert find_attention(block) is block.self_attn


def test_in_doubt_there_is_none() -> None:
    two = nn.ModuleDict({"self_attn": nn.Linear(2, 2), "cross_attn": nn.Linear(2, 2)})
    assert find_attention(two) is None
    assert find_attention(nn.ModuleDict({"attn_norm": nn.LayerNorm(2)})) is None


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_replaying_is_computing_again(
    architecture: str, tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of two windows: each gets its own attention back, after the MLP was changed."""
    monkeypatch.setattr("dass.models.batches.TOKENS_IN_FLIGHT", {"cpu": 40})
    model = StreamedModel(tiny_model(architecture), torch.float32)
    batches = batches_of(model, tokens)
    with torch.inference_mode(), model.block(0) as block:
        memory = AttentionMemory(block, HOST)
        with memory.recording():
            dense = [batch.run(block, 0) for batch in batches]
        find_glu(block, "x").down.weight.mul_(0.5)
        expected = [batch.run(block, 0) for batch in batches]
        attended = 0

        def count(*_: object) -> None:
            nonlocal attended
            attended += 1

        for linear in block.self_attn.modules():
            if isinstance(linear, nn.Linear):
                linear.register_forward_hook(count)
        with memory.replaying():
            replayed = [batch.run(block, 0) for batch in batches]
        assert attended == 0
        again = batches[0].run(block, 0)
        assert attended > 0
    assert len(batches) == 3
    for after, before, played in zip(expected, dense, replayed, strict=True):
        assert torch.equal(played, after)
        assert not torch.allclose(played, before)
    assert torch.equal(again, expected[0])


def test_without_a_recording_the_block_computes(tiny_model: TinyModel, tokens: Tensor) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    batch: Batch = batches_of(model, tokens)[0]
    with torch.inference_mode(), model.block(0) as block:
        expected = batch.run(block, 0)
        with AttentionMemory(block, HOST).replaying():
            assert torch.equal(batch.run(block, 0), expected)


def test_eager_attention_weights_are_not_kept(tiny_model: TinyModel, tokens: Tensor) -> None:
    """[batch, heads, length, length] for every batch would be many times the activations."""
    model = StreamedModel(tiny_model("gemma2"), torch.float32)
    batch = batches_of(model, tokens)[0]
    with torch.inference_mode(), model.block(0) as block:
        memory = AttentionMemory(block, HOST)
        returned: list[object] = []
        block.self_attn.register_forward_hook(lambda _m, _i, output: returned.extend(output[1:]))
        with memory.recording():
            batch.run(block, 0)
    assert any(isinstance(extra, Tensor) for extra in returned)  # else there is nothing to drop
    assert [extra for _, rest in memory._outputs for extra in rest or ()] == [None]
