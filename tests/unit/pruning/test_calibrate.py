"""Norms and Gram matrices by hand and against one plain pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dass.models import batches
from dass.models.batches import batches_of
from dass.models.glu import find_glu
from dass.models.streamed import StreamedModel
from dass.pruning import calibrate
from dass.pruning.calibrate import Gram, collect, sum_of_squares
from dass.pruning.method import Need, Statistics
from tests.conftest import TinyModel

X = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
NORMS: frozenset[Need] = frozenset({"input_norm", "intermediate_norm"})
GRAMS: frozenset[Need] = frozenset({"input_gram", "intermediate_gram"})
MOMENTS: frozenset[Need] = frozenset(
    {"input_mean", "intermediate_mean", "input_variance", "intermediate_variance"}
)
ALL = NORMS | GRAMS | MOMENTS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_by_hand(dtype: torch.dtype) -> None:
    squares = sum_of_squares(X.to(dtype))
    assert squares.dtype == torch.float64
    assert squares.tolist() == pytest.approx([10.0, 5.0], rel=1e-6)
    for times in (1, 2):
        gram = Gram()
        for _ in range(times):
            gram.add(X.to(dtype))
        matrix = gram.matrix()
        assert matrix.dtype == torch.float32
        assert matrix.tolist() == [[10.0 * times, -1.0 * times], [-1.0 * times, 5.0 * times]]


@pytest.mark.parametrize("panel", [1, 3, 4, 7, 100])
def test_panels_make_up_the_whole_gram_matrix(panel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "PANEL", panel)
    x = torch.randint(-4, 5, (9, 7), generator=torch.Generator().manual_seed(0)).float()
    gram = Gram()
    gram.add(x[:4])
    gram.add(x[4:])
    assert torch.equal(gram.matrix(), x.t() @ x)  # small integers: exact in any order


def test_squares_do_not_overflow_in_half_precision() -> None:
    x = torch.full((300, 1), 300.0, dtype=torch.float16)  # 300² is more than float16 holds
    assert sum_of_squares(x).item() == pytest.approx(300**3, rel=1e-6)


def test_moments_by_hand() -> None:
    """(1, 2), (3, −1) is one sequence, of variances 1 and 2.25; in the other nothing varies."""
    sums = calibrate._Sums("input", frozenset({"input_mean", "input_variance"}))
    sums.add(X.unsqueeze(0))
    sums.add(torch.full((1, 2, 2), 4.0).half())
    found = sums.statistics()
    assert set(found) == {"input_mean", "input_variance"}
    assert found["input_mean"].tolist() == [3.0, 2.25]
    assert found["input_variance"].tolist() == pytest.approx([0.5, 1.125], rel=1e-5)


def test_the_variance_of_what_never_varies_is_not_negative() -> None:
    sums = calibrate._Sums("input", frozenset({"input_variance"}))
    sums.add(torch.full((2, 7, 3), 0.1))
    variance = sums.statistics()["input_variance"]
    assert (variance >= 0).all() and variance.max() < 1e-8


def statistics_of(model: StreamedModel, tokens: Tensor, needs: frozenset[Need]) -> Statistics:
    batches = batches_of(model, tokens)
    before = [batch.hidden.clone() for batch in batches]
    with torch.inference_mode(), model.block(0) as block:
        found = collect(block, find_glu(block, "x"), batches, 0, needs)
        assert not any(module._forward_pre_hooks for module in block.modules())
    assert all(torch.equal(b.hidden, h) for b, h in zip(batches, before, strict=True))
    return found


@pytest.mark.parametrize("architecture", ["llama", "phi3", "gemma"])
@pytest.mark.parametrize("in_flight", [4096, 50, 1])
def test_against_the_inputs_of_the_mlp(
    architecture: str,
    in_flight: int,
    tiny_model: TinyModel,
    tokens: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "TOKENS_IN_FLIGHT", {"cpu": in_flight})
    model = StreamedModel(tiny_model(architecture), torch.float32)
    found = statistics_of(model, tokens, ALL)
    seen: dict[str, Tensor] = {}
    inputs = model.block_inputs(tokens)
    args, kwargs = inputs.arguments[0]
    with torch.inference_mode(), model.block(0) as block:
        for name, linear in (("x", block.mlp), ("z", block.mlp.down_proj)):
            linear.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.__setitem__(name, inputs[0].flatten(0, 1))
            )
        block(inputs.hidden, *args, **kwargs)
    for name, which in (("x", "input"), ("z", "intermediate")):
        rows = seen[name].double()
        assert len(rows) == tokens.numel()
        norm, gram = found.get(f"{which}_norm"), found.get(f"{which}_gram")  # type: ignore[arg-type]
        assert norm.dtype == gram.dtype == torch.float32
        torch.testing.assert_close(norm.double(), rows.norm(dim=0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gram.double(), rows.t() @ rows, rtol=1e-4, atol=1e-4)
        mean, variance = found.get(f"{which}_mean"), found.get(f"{which}_variance")  # type: ignore[arg-type]
        assert mean.dtype == variance.dtype == torch.float32
        torch.testing.assert_close(mean.double(), rows.mean(0), rtol=1e-4, atol=1e-6)
        expected = seen[name].double().unflatten(0, tokens.shape).var(1, correction=0).mean(0)
        torch.testing.assert_close(variance.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("need", sorted(ALL))
def test_only_what_is_needed_is_collected(
    need: Need, tiny_model: TinyModel, tokens: Tensor
) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    found = statistics_of(model, tokens, frozenset({need}))
    collected = {name: getattr(found, name) for name in ALL}
    assert [name for name, value in collected.items() if value is not None] == [need]


def test_the_product_with_down_is_not_computed(tiny_model: TinyModel, tokens: Tensor) -> None:
    """It is of no use before `down` is pruned; the block's own forward ends there."""
    model = StreamedModel(tiny_model("llama"), torch.float32)
    batches = batches_of(model, tokens)
    with torch.inference_mode(), model.block(0) as block:
        block.mlp.down_proj.forward = None
        found = collect(block, find_glu(block, "x"), batches, 0, NORMS)
    assert found.get("intermediate_norm").min() > 0


def test_nothing_is_run_where_nothing_is_needed(tiny_model: TinyModel, tokens: Tensor) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    batches = batches_of(model, tokens)
    with model.block(0) as block:
        glu = find_glu(block, "x")
        block.forward = None  # type: ignore[assignment]
        assert collect(block, glu, batches, 0, frozenset()) == Statistics()
