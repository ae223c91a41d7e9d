"""Perplexity: windows by hand, the formula on a model whose probabilities are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from dass.data.windows import Bos, token_hash
from dass.errors import DataError
from dass.evaluation.perplexity import cut_windows, perplexity, tokenise
from dass.models.streamed import StreamedModel
from tests.conftest import TinyModel


def encode(text: str) -> list[int]:
    """BOS (1), then each character's number."""
    return [1, *map(ord, text)]


def test_rows_are_joined_with_two_newlines_and_tokenised_once() -> None:
    rows = ["ab\n", "", "c"]
    expected = [1, *map(ord, "ab\n\n\n\n\nc")]
    assert tokenise(rows, encode, "text", 1).tolist() == expected
    assert tokenise(rows, encode, "text", 1).dtype == torch.int64


def test_windows_with_a_bos_each_take_the_texts_own_off_first() -> None:
    assert tokenise(["ab"], encode, "window", 1).tolist() == [97, 98]


def test_a_tokenizer_that_puts_no_bos_loses_no_token() -> None:
    assert tokenise(["ab"], lambda text: [97, 98], "window", 1).tolist() == [97, 98]
    assert tokenise(["ab"], lambda text: [], "window", 1).tolist() == []


@pytest.mark.parametrize(
    ("bos", "expected"),
    [
        ("text", [[1, 10, 11, 12], [13, 14, 15, 16]]),
        ("window", [[0, 1, 10, 11], [0, 12, 13, 14], [0, 15, 16, 17]]),
    ],
)
def test_windows_are_whole_and_the_rest_is_dropped(bos: Bos, expected: list[list[int]]) -> None:
    tokens = torch.tensor([1, 10, 11, 12, 13, 14, 15, 16, 17, 18][: 10 if bos == "window" else 9])
    assert cut_windows(tokens, 4, bos, 0, "split").tolist() == expected


@pytest.mark.parametrize(("bos", "enough"), [("text", 8), ("window", 7)])
def test_a_text_of_exactly_one_window_and_one_token_less(bos: Bos, enough: int) -> None:
    assert cut_windows(torch.arange(enough), 8, bos, 1, "x").shape == (1, 8)
    with pytest.raises(DataError) as error:
        cut_windows(torch.arange(enough - 1), 8, bos, 1, "wiki/test.txt")
    line = str(error.value)
    assert line.startswith(f"wiki/test.txt: {enough - 1} tokens")
    assert "one window of 8" in line and "perplexity.length" in line and "\n" not in line


def test_bos_in_each_window_needs_a_bos() -> None:
    with pytest.raises(DataError, match="the tokenizer has no BOS"):
        cut_windows(torch.arange(20), 4, "window", None, "x")
    assert cut_windows(torch.arange(8), 4, "text", None, "x").shape == (2, 4)


def test_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """exp of the mean of the windows' means: not the mean of exponentials."""
    losses = torch.tensor([1.0, 3.0], dtype=torch.float64)
    monkeypatch.setattr("dass.evaluation.perplexity.window_losses", lambda model, windows: losses)
    windows = torch.arange(10).reshape(2, 5)
    result = perplexity(None, windows)  # type: ignore[arg-type]
    assert result.perplexity == pytest.approx(math.e**2)
    assert result.nll == 2.0
    assert (result.tokens, result.windows) == (10, 2)
    assert result.tokens_hash == token_hash(windows)


def test_against_the_loss_of_transformers(tiny_model: TinyModel, tokens: Tensor) -> None:
    folder: Path = tiny_model("mistral")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        loss = float(model(input_ids=tokens, labels=tokens).loss)
    result = perplexity(StreamedModel(folder, torch.float32), tokens)
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
    assert perplexity(model, tokens).perplexity == pytest.approx(128, rel=1e-6)
