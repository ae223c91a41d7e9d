"""Losses and log-likelihoods through streamed blocks against the plain whole model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from dass.data.model_folder import SINGLE
from dass.errors import ModelError, NumericError
from dass.evaluation import likelihood
from dass.evaluation.likelihood import score_apart, window_losses
from dass.evaluation.requests import Request
from dass.models import batches
from dass.models.streamed import StreamedModel
from tests.conftest import COMMON, SUPPORTED, TinyModel


def whole(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def log_probabilities(model: Any, tokens: list[int]) -> Tensor:
    """float64 [length, vocabulary] of one sequence on its own."""
    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0]
    return logits.double().log_softmax(-1)


def plain_losses(model: Any, windows: Tensor) -> list[float]:
    """Each window on its own, each token picked by hand."""
    losses = []
    for window in windows.tolist():
        log_p = log_probabilities(model, window)
        losses.append(-sum(float(log_p[i - 1, t]) for i, t in enumerate(window) if i > 0))
    return [loss / (windows.shape[1] - 1) for loss in losses]


def plain_score(model: Any, request: Request) -> tuple[float, bool]:
    context, continuation = request
    log_p = log_probabilities(model, context + continuation)
    places = range(len(context) - 1, len(context) + len(continuation) - 1)
    picked = [(log_p[i], t) for i, t in zip(places, continuation, strict=True)]
    return sum(float(p[t]) for p, t in picked), all(int(p.argmax()) == t for p, t in picked)


def some_requests(model: Any) -> list[Request]:
    """Lengths mixed, contexts of one token, continuations that the model itself would write."""
    draw = torch.Generator().manual_seed(11)

    def some(length: int) -> list[int]:
        return [int(t) for t in torch.randint(3, 128, (length,), generator=draw)]

    lengths = [(1, 1), (14, 3), (2, 9), (1, 6), (7, 1), (20, 2), (3, 3), (14, 3), (5, 12)]
    requests = [(some(context), some(continuation)) for context, continuation in lengths]
    for length in (1, 5, 13):
        context, continuation = some(length), list[int]()
        for _ in range(3):
            log_p = log_probabilities(model, context + continuation)
            continuation.append(int(log_p[-1].argmax()))
        requests.append((context, continuation))
        requests.append((context, [*continuation[:2], (continuation[2] + 1) % 128]))
    return requests


def assert_same(scores: list[tuple[float, bool]], expected: list[tuple[float, bool]]) -> None:
    assert [greedy for _, greedy in scores] == [greedy for _, greedy in expected]
    assert [s for s, _ in scores] == pytest.approx([s for s, _ in expected], rel=1e-5, abs=1e-5)


@pytest.fixture(params=["whole", "in pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything at once, or several batches in several sweeps and a few logits at a time."""
    if request.param == "in pieces":
        monkeypatch.setattr(batches, "TOKENS_IN_FLIGHT", {"cpu": 45})
        monkeypatch.setattr(likelihood, "tokens_in_a_sweep", lambda model: 80)
        monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 14 * 128)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("architecture", SUPPORTED)
def test_window_losses(architecture: str, tiny_model: TinyModel, tokens: Tensor) -> None:
    folder = tiny_model(architecture)
    windows = torch.cat([tokens, tokens[:1]])  # in pieces: 4 and 3 windows, 2 at a time, 1 left
    losses = window_losses(StreamedModel(folder, torch.float32), windows)
    assert losses.dtype == torch.float64
    expected = plain_losses(whole(folder), windows)
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    assert len(set(expected)) == 6


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("architecture", SUPPORTED)
def test_continuations(architecture: str, tiny_model: TinyModel) -> None:
    folder = tiny_model(architecture)
    model = whole(folder)
    requests = some_requests(model)
    expected = [plain_score(model, request) for request in requests]
    assert 3 <= sum(greedy for _, greedy in expected) < len(expected)
    assert_same(score_apart(StreamedModel(folder, torch.float32), requests), expected)


@pytest.mark.usefixtures("pieces")
def test_answers_come_in_the_order_of_the_questions_also_of_repeated_ones(
    tiny_model: TinyModel,
) -> None:
    folder = tiny_model("llama")
    model = whole(folder)
    requests = some_requests(model)
    expected = [plain_score(model, request) for request in requests]
    order = [5, 0, 5, 14, 3, 5, 3]
    streamed = StreamedModel(folder, torch.float32)
    scores = score_apart(streamed, [requests[i] for i in order])
    assert_same(scores, [expected[i] for i in order])
    assert scores[0] == scores[2] == scores[5]


def test_repeated_questions_are_computed_once(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    seen: list[int] = []

    def counted(inner: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        def block_inputs(tokens: Tensor) -> Any:
            seen.append(len(tokens))
            return inner(tokens)

        return block_inputs

    monkeypatch.setattr(model, "block_inputs", counted(model.block_inputs))
    score_apart(model, [([5, 6], [7])] * 4 + [([5, 6], [8])])
    assert sum(seen) == 2


def test_no_questions_have_no_answers(tiny_model: TinyModel) -> None:
    assert score_apart(StreamedModel(tiny_model("llama"), torch.float32), []) == []


@pytest.mark.parametrize("poisoned", [0, 1, 2])
def test_a_window_that_overflows_is_noticed_in_whichever_batch(
    poisoned: int,
    tiny_model: TinyModel,
    tmp_path: Path,
    tokens: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Token 5's embedding is finite, but three times it is not."""
    folder = Path(shutil.copytree(tiny_model("granite"), tmp_path / "granite"))
    tensors = load_file(folder / SINGLE)
    tensors["model.embed_tokens.weight"][5] = 3e38
    save_file(tensors, folder / SINGLE)
    monkeypatch.setattr(batches, "TOKENS_IN_FLIGHT", {"cpu": 20})
    windows = tokens[:3].where(tokens[:3] != 5, 6)
    model = StreamedModel(folder, torch.float32)
    assert window_losses(model, windows).isfinite().all()
    windows[poisoned, 3] = 5
    with pytest.raises(NumericError, match="granite, block 0: its output is not finite"):
        window_losses(model, windows)


@pytest.mark.parametrize("in_flight", [4096, 40])
def test_blocks_that_look_at_the_tokens_again_get_those_of_their_own_batch(
    in_flight: int, tmp_path: Path, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma 4 hands each block an embedding of the tokens, and keys and values of earlier ones."""
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "Gemma4TextConfig"):
        pytest.skip("this transformers has no Gemma 4")
    config = transformers.Gemma4TextConfig(
        **COMMON | {"num_hidden_layers": 4}, head_dim=8, global_head_dim=8, sliding_window=8,
        layer_types=["sliding_attention", "full_attention"] * 2, num_kv_shared_layers=2,
        hidden_size_per_layer_input=8, vocab_size_per_layer_input=128,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).float().save_pretrained(tmp_path)
    monkeypatch.setattr(batches, "TOKENS_IN_FLIGHT", {"cpu": in_flight})
    losses = window_losses(StreamedModel(tmp_path, torch.float32), tokens)
    assert losses.tolist() == pytest.approx(plain_losses(whole(tmp_path), tokens), rel=1e-5)


def longrope(folder: Path) -> Path:
    """A model whose positions all change with a sequence longer than 12 tokens (Phi-3)."""
    transformers = pytest.importorskip("transformers")
    rope = {
        "rope_type": "longrope", "rope_theta": 100.0, "short_factor": [1.0] * 4,
        "long_factor": [3.0, 5.0, 7.0, 9.0], "original_max_position_embeddings": 12,
    }  # fmt: skip
    config = transformers.Phi3Config(
        **COMMON, rope_parameters=rope, original_max_position_embeddings=12
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) / parameter.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("pieces")
def test_no_request_is_padded_beyond_the_length_at_which_positions_change(tmp_path: Path) -> None:
    folder = longrope(tmp_path)
    model = whole(folder)
    lengths = [(1, 2), (10, 2), (10, 3), (11, 3), (30, 5), (12, 1), (3, 40)]  # 11 to 13 tokens read
    requests = [(list(range(3, 3 + c)), list(range(60, 60 + t))) for c, t in lengths]
    streamed = StreamedModel(folder, torch.float32)
    assert streamed.rope_changes == [12]
    # What is scored last is not read, as in lm-eval: 12 tokens are read of 13.
    expected = [plain_score(lambda t: model(t[:, :-1]), request) for request in requests]
    assert_same(score_apart(streamed, requests), expected)
    alone = [score_apart(streamed, [request])[0] for request in requests]
    assert_same(alone, expected)
    # It matters: padded to 40 tokens, the first would have another score.
    padded = requests[0][0] + requests[0][1] + [0] * 40
    log_p = log_probabilities(model, padded)
    assert abs(sum(float(log_p[i, 60 + i]) for i in range(2)) - expected[0][0]) > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_losses_are_taken_in_float32(dtype: torch.dtype) -> None:
    """A mean of a thousand losses of two digits each would be off by a percent of perplexity."""
    logits = (8 * torch.randn(40, 128, generator=torch.Generator().manual_seed(3))).to(dtype)
    rows, tokens = torch.arange(40).repeat(2), torch.arange(80)
    logs, likeliest = likelihood.log_probabilities(logits, rows, tokens)
    assert logs.dtype == torch.float32
    expected = logits.double().log_softmax(-1)[rows, tokens]
    assert logs.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert torch.equal(likeliest, logits.argmax(-1)[rows] == tokens)


def test_batches_end_where_positions_change() -> None:
    requests = [((5,) * length, (7,)) for length in (20, 13, 12, 11, 5, 4)]

    def lengths(changes: list[int]) -> list[list[int]]:
        found = likelihood._padded_batches(requests, 1000, changes)
        return [[len(context) for context, _ in batch] for batch in found]

    assert lengths([]) == [[20, 13, 12, 11, 5, 4]]
    assert lengths([12]) == [[20, 13], [12, 11, 5, 4]]
    assert lengths([4, 12]) == [[20, 13], [12, 11, 5], [4]]
    assert lengths([100]) == lengths([])


def test_a_token_that_the_model_does_not_know_is_refused(tiny_model: TinyModel) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    with pytest.raises(ModelError, match=r"knows 128 tokens \(vocab_size\), but was given .* 128"):
        score_apart(model, [([5, 128], [7])])
