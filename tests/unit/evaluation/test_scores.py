"""Continuations scored together, against one request at a time through the whole model."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dass.evaluation import likelihood, scores, trees
from dass.evaluation.likelihood import score_apart
from dass.evaluation.requests import LogLikelihood, Request
from dass.evaluation.scores import score_continuations
from dass.evaluation.trees import lay_out, row_length
from dass.models.streamed import StreamedModel
from tests.conftest import MORE, SUPPORTED, TinyModel

from .test_likelihood import assert_same, longrope, plain_score, whole

APART = {
    "does not look back": {
        *("mistral", "gemma2", "gemma3", "cohere2", "cwm", "exaone4", "gemma4_text", "ministral"),
        *("modernbert-decoder", "olmo3", "vaultgemma"),
    },
    "is not given our mask": {"granitemoehybrid", "lfm2", "qwen3_5_text", "recurrent_gemma"},
}
"""Whose sliding windows are shorter than the longest request, and whose blocks are recurrent."""


def questions() -> list[Request]:
    """Choices of one and of several tokens after three contexts; two sentences that begin alike."""
    draw = torch.Generator().manual_seed(5)

    def some(count: int) -> list[int]:
        return torch.randint(3, 128, (count,), generator=draw).tolist()

    found = [(context, some(n)) for context in (some(10), some(12), some(7)) for n in (1, 3, 5, 1)]
    begin, end = some(6), some(3)
    return found + [(begin + some(n), end) for n in (1, 2)] + found[:1]


def together(model: StreamedModel, requests: list[Request]) -> list[LogLikelihood]:
    """Scored in rows, or refused."""
    return scores._score_together(model, lay_out(requests, row_length(model.hidden_size)))


@pytest.fixture(params=["whole", "in pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything at once, or several rows in several sweeps and a few logits at a time."""
    if request.param == "in pieces":
        monkeypatch.setattr(trees, "SHORTEST", 24)
        monkeypatch.setattr(trees, "LONGEST", 24)
        monkeypatch.setattr(scores, "tokens_in_a_sweep", lambda model, more: 48)
        monkeypatch.setattr(scores, "tokens_in_flight", lambda model, offload_to: 24)
        monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 4 * 128)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("architecture", SUPPORTED | MORE)
def test_as_one_request_at_a_time(
    architecture: str, tiny_model: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    folder, requests = tiny_model(architecture), questions()
    caplog.set_level(logging.INFO, "dass")
    logging.getLogger("dass").propagate = True
    found = score_continuations(StreamedModel(folder, torch.float32), requests)
    model = whole(folder)
    assert_same(found, [plain_score(model, request) for request in requests])
    assert found[0] == found[-1]  # asked twice
    said = " ".join(record.message for record in caplog.records if "scored apart" in record.message)
    reasons = [reason for reason, names in APART.items() if architecture in names]
    assert bool(said) == bool(reasons) and all(reason in said for reason in reasons), said


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_reason_to_score_apart(
    dtype: torch.dtype, tiny_model: TinyModel
) -> None:
    for architecture in ("llama", "gemma", "qwen3", "granite"):
        model = StreamedModel(tiny_model(architecture), dtype)
        shared = together(model, questions())
        apart = score_apart(model, questions())
        assert [s for s, _ in shared] == pytest.approx([s for s, _ in apart], rel=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_log_probabilities_are_taken_in_float32(dtype: torch.dtype) -> None:
    """Of logits of whichever dtype: half precision has no third digit of a sum of them."""
    rows = lay_out(questions(), 64)
    states = torch.randn(*rows.tokens.shape, 128, generator=torch.Generator().manual_seed(3))
    logits = (8 * states).to(dtype)
    model: Any = SimpleNamespace(
        vocabulary=128, device=torch.device("cpu"), logits=lambda some: some
    )
    targets = scores._Targets(rows)
    targets.score(model, slice(0, len(logits)), logits)
    each = logits.double().log_softmax(-1).flatten(0, 1)[rows.places, rows.targets]
    expected = [part.sum().item() for part in each.split(rows.counts)]
    assert [s for s, _ in targets.by_request()] == pytest.approx(expected, rel=1e-5)


def test_each_beginning_is_computed_once(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten choices of one token after a context of 20: its tokens, and no others."""
    monkeypatch.setattr(trees, "SHORTEST", 8)
    monkeypatch.setattr(trees, "LONGEST", 8)
    model = StreamedModel(tiny_model("llama"), torch.float32)
    shapes = []
    inner = model.block_inputs

    def seen(tokens: Tensor, **more: Tensor) -> object:
        shapes.append((tuple(tokens.shape), bool(more)))
        return inner(tokens, **more)

    monkeypatch.setattr(model, "block_inputs", seen)
    score_continuations(model, [(list(range(20)), [n]) for n in range(10)])
    assert [shape for shape, together in shapes if together] == [(1, 24)]


def test_positions_that_change_with_the_length_are_a_reason(tmp_path: Path) -> None:
    folder = longrope(tmp_path)
    model, requests = StreamedModel(folder, torch.float32), questions()
    with pytest.raises(scores._Apart, match="positions change with the length"):
        together(model, requests)
    short = [([5, 6, 7], [n, n + 1]) for n in range(20, 24)]
    assert_same(together(model, short), score_apart(model, short))


@pytest.mark.parametrize(("reads", "shared"), [(12, True), (13, False)])
def test_positions_change_beyond_that_length_and_not_at_it(
    reads: int, shared: bool, tmp_path: Path
) -> None:
    model = StreamedModel(longrope(tmp_path), torch.float32)
    requests = [([5, 6, 7], [20, 21]), (list(range(10, 8 + reads)), [30, 31, 32])]
    if shared:
        assert_same(together(model, requests), score_apart(model, requests))
    else:
        with pytest.raises(scores._Apart, match="positions change with the length"):
            together(model, requests)


def test_the_same_tokens_may_be_another_request(tiny_model: TinyModel) -> None:
    """Where the continuation begins decides what is scored."""
    folder, tokens = tiny_model("llama"), [5, 9, 17, 33, 65]
    requests = [(tokens[:cut], tokens[cut:]) for cut in (1, 4, 2, 3)]
    found = score_continuations(StreamedModel(folder, torch.float32), requests)
    model = whole(folder)
    assert_same(found, [plain_score(model, request) for request in requests])
    assert len({score for score, _ in found}) == 4


@pytest.mark.parametrize("fault", ["leaks", "ignores positions"])
def test_blocks_are_tried_on_the_model_itself(fault: str, tiny_model: TinyModel) -> None:
    """A block that sees more than its mask says, or that counts places, is found out."""
    model = StreamedModel(tiny_model("llama"), torch.float32)

    def leak(_block: nn.Module, _args: object, output: Tensor) -> Tensor:
        return output + 0.01 * output.cumsum(1) / torch.arange(1, output.shape[1] + 1)[:, None]

    def count_places(_block: nn.Module, args: object, kw: dict[str, Any]) -> tuple[object, Any]:
        cos, sin = kw["position_embeddings"]
        angle = torch.arange(cos.shape[1])[:, None] * torch.rand(cos.shape[2] // 2).repeat(2)
        turned = (cos * angle.cos() - sin * angle.sin(), sin * angle.cos() + cos * angle.sin())
        return args, kw | {"position_embeddings": turned}

    if fault == "leaks":
        model.layers[1].register_forward_hook(leak)
    else:
        model.layers[1].register_forward_pre_hook(count_places, with_kwargs=True)
    with pytest.raises(scores._Apart, match="block 1 differs by"):
        together(model, questions())


def test_a_block_that_is_given_no_mask_is_found_out(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    inner = model.model.forward

    def forward(*args: object, attention_mask: object = None, **more: object) -> nn.Module:
        return inner(*args, **more)

    monkeypatch.setattr(model.model, "forward", forward)
    with pytest.raises(scores._Apart, match="block 0 is not given our mask"):
        together(model, questions())
