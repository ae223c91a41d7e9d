"""Batches of activations: what they share, and where they are kept."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from dass.models import batches
from dass.models.streamed import StreamedModel
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
