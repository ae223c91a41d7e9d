"""Batches of activations: what they share, and where they are kept."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from dass.models import batches
from dass.models.streamed import StreamedModel
from dass.runtime.memory import ASKED
from tests.conftest import SUPPORTED, TinyModel


def test_batches_of_one_size_share_what_blocks_are_given(
    tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks and rotary embeddings once for all batches, not once for each."""
    monkeypatch.setattr(batches, "TOKENS_IN_FLIGHT", {"cpu": 80})
    for architecture in SUPPORTED:
        model = StreamedModel(tiny_model(architecture), torch.float32)
        first, second, last = batches.batches_of(model, torch.cat([tokens, tokens])[:10])
        assert first.arguments is second.arguments, architecture
        assert last.arguments is not first.arguments


@pytest.mark.parametrize(
    ("card", "workspace", "where"),
    [
        # 128 × 2048 hidden states of 8192 half-precision numbers, twice: 8.6 GB.
        (24, 0, "cuda"),
        (24, 13, "cpu"),  # SparseGPT's Gram matrices of LLaMA2-70B's `down`
        (80, 13, "cuda"),
        (16, 0, "cpu"),
    ],
)
def test_activations_stay_on_the_card_where_half_of_what_is_left_holds_them(
    card: int, workspace: int, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "free_memory", lambda device: card * 10**9)
    model = SimpleNamespace(
        offload_to=None, device=torch.device("cuda"), hidden_size=8192, dtype=torch.float16
    )
    assert batches.choose_offload(model, 128 * 2048, workspace * 10**9).type == where


@pytest.mark.parametrize(
    ("device", "card", "host", "tokens"),
    [
        # A hidden state of LLaMA2-70B takes 16 kB, and two of its blocks 3.4 GB.
        ("cpu", 0, 64, 1 << 20),  # 0.8 · 64 - 3.4 GB are 2.9 million states
        ("cpu", 0, 20, 1 << 19),  # 12.6 GB are 769,000: the next power of two below
        ("cpu", 0, 5, 1 << 15),
        ("cpu", 0, 1, 4096),  # no room at all: the weights are read as often as it takes
        ("cuda", 80, 5, 1 << 20),  # the card keeps them: a quarter of it holds 1.2 million
        ("cuda", 24, 20, 1 << 19),  # the host keeps them
        ("cuda", 24, 5, 1 << 18),  # the card holds more than the host
    ],
)
def test_a_sweep_has_as_many_tokens_as_there_is_room_for(
    device: str, card: int, host: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "free_memory", lambda device: card * 10**9)
    monkeypatch.setattr(batches, "free_host_memory", lambda: host * 10**9)
    model = SimpleNamespace(
        offload_to=None, device=torch.device(device), hidden_size=8192, dtype=torch.float16,
        block_bytes=1_700_000_000,
    )  # fmt: skip
    assert batches.tokens_in_a_sweep(model) == tokens


def test_a_model_is_kept_only_within_what_the_job_asked_for(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ASKED, "60000")
    assert StreamedModel(tiny_model("llama"), torch.float32, resident=None).resident
    monkeypatch.setenv(ASKED, "1")
    assert not StreamedModel(tiny_model("llama"), torch.float32, resident=None).resident
