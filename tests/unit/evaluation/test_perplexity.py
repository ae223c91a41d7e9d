"""Perplexity: windows by hand, the formula on a model whose probabilities are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from dass.data.token_file import token_hash
from dass.evaluation.perplexity import measure_perplexities, measure_perplexity
from dass.models.streamed import StreamedModel
from tests.conftest import TinyModel


def test_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """exp of the mean of the windows' means: not the mean of exponentials."""
    losses = torch.tensor([1.0, 3.0], dtype=torch.float64)
    monkeypatch.setattr("dass.evaluation.perplexity.text_losses", lambda model, texts: [losses])
    windows = torch.arange(10).reshape(2, 5)
    result = measure_perplexity(None, windows)  # type: ignore[arg-type]
    assert result.perplexity == pytest.approx(math.e**2)
    assert result.nll == 2.0
    assert (result.tokens, result.windows) == (10, 2)
    assert result.tokens_hash == token_hash(windows)


def test_against_the_loss_of_transformers(tiny_model: TinyModel, tokens: Tensor) -> None:
    folder: Path = tiny_model("mistral")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        loss = float(model(input_ids=tokens, labels=tokens).loss)
    result = measure_perplexity(StreamedModel(folder, torch.float32), tokens)
    assert result.nll == pytest.approx(loss, rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(loss), rel=1e-4)


def test_a_model_that_knows_nothing_is_as_perplexed_as_its_vocabulary_is_large(
    tiny_model: TinyModel, tokens: Tensor
) -> None:
    """Zero weights in the head make every token equally likely."""
    model = StreamedModel(
        tiny_model("llama"),
        torch.float32,
        overlay=lambda name, dense: dense * 0 if "lm_head" in name else dense,
    )
    assert measure_perplexity(model, tokens).perplexity == pytest.approx(128, rel=1e-6)


@pytest.mark.parametrize(("sweep", "reads"), [(10**6, 1), (5 * 20, 2), (2 * 20, 4)])
def test_blocks_are_read_once_for_as_many_texts_as_there_is_room_for(
    sweep: int, reads: int, tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of 2, 1 and 3 windows of 20 tokens, each with the numbers that it has alone."""
    monkeypatch.setattr("dass.evaluation.likelihood.tokens_in_a_sweep", lambda model: sweep)
    texts = [tokens[:2], tokens[2:3], tokens[3:]]
    model = StreamedModel(tiny_model("llama"), torch.float32)
    read: list[int] = []
    read_block = model._reader.take
    monkeypatch.setattr(
        model._reader, "take", lambda index: read.append(index) or read_block(index)
    )
    together = measure_perplexities(model, texts)
    assert len(read) == reads * model.n_blocks
    assert together == [measure_perplexity(model, windows) for windows in texts]
    resident = StreamedModel(tiny_model("llama"), torch.float32, resident=True)
    assert together == measure_perplexities(resident, texts)
