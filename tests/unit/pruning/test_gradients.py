"""Regional gradients and their score, by hand and against autograd through a whole model."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dass.errors import ModelError, NumericError
from dass.models.batches import Batch, batches_of
from dass.models.glu import Projection
from dass.models.streamed import StreamedModel
from dass.models.targets import BlockTargets, find_targets
from dass.pruning import prune as pruning
from dass.pruning.gradients import Gradients, gradient_of, regional_gradients
from dass.pruning.masks import keep_mask
from dass.pruning.method import Need, Statistics
from dass.pruning.methods import make_method
from dass.pruning.methods.wandapp import WandaPP
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned_file import unpack
from dass.terms import ROLES, Role, Targets
from tests.conftest import EXPERTS, MORE, MORE_EXPERTS, SUPPORTED, TinyModel
from tests.unit.pruning.test_experts import whole
from tests.unit.pruning.test_other_methods import SLOW, case, statistics_of

GRADIENT: frozenset[Need] = frozenset({"gradient"})


# By hand -------------------------------------------------------------------------------------


class Line(nn.Module):
    """f(x) = x · (3, 4), so that ∂‖f(x)‖ / ∂W = |x| · (3, 4) / 5."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.line = nn.Linear(1, 2, bias=False, dtype=dtype)
        self.line.weight.data = torch.tensor([[3.0], [4.0]], dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x)  # type: ignore[no-any-return]


def gradients_of(block: Any, values: list[list[float]], needs: frozenset[Need]) -> Gradients:
    """Of sequences of hidden width 1."""
    dtype = block.line.weight.dtype
    with torch.inference_mode():
        batches = [Batch(torch.tensor(x, dtype=dtype).view(1, -1, 1), [((), {})]) for x in values]
    found = BlockTargets((), (Projection("linear", block.line, "line.weight", slice(None)),))
    model: Any = SimpleNamespace(folder=SimpleNamespace(name="m"))
    with torch.inference_mode():
        return regional_gradients(model, block, found, batches, 0, needs)


def test_the_mean_is_that_of_squares_over_sequences() -> None:
    """Of x = 1 and −7, √((1 + 49) / 2) = 5 times (0.6, 0.8); one sequence's tokens are one norm."""
    found = gradients_of(Line(), [[1.0], [-7.0]], GRADIENT)["line.weight"]
    torch.testing.assert_close(found, torch.tensor([[3.0], [4.0]]))
    together = gradients_of(Line(), [[3.0, 4.0]], GRADIENT)["line.weight"]
    torch.testing.assert_close(together, torch.tensor([[3.0], [4.0]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("x", [1e-6, 1e4])
def test_half_precision_neither_overflows_nor_vanishes(dtype: torch.dtype, x: float) -> None:
    """‖f(x)‖² is beyond float16, and the small gradient's square is nothing in it."""
    block = Line(dtype)
    found = gradients_of(block, [[x]], GRADIENT)["line.weight"]
    assert found.dtype == torch.float32
    exact = float(torch.tensor(x, dtype=dtype)) * torch.tensor([[0.6], [0.8]])
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=0)
    assert block.line.weight.dtype == dtype and block.line.weight.grad is None


def test_without_need_nothing_is_run() -> None:
    block: Any = Line()
    block.forward = None
    assert gradients_of(block, [[1.0]], frozenset({"input_norm"})) == {}


def test_what_has_no_gradient_is_refused() -> None:
    block: Any = Line()
    block.forward = lambda x: block.line(x).detach()
    with pytest.raises(ModelError, match=r"^m, block 0 \(Line\): has no gradient \([^\n]*$"):
        gradients_of(block, [[1.0]], GRADIENT)
    with pytest.raises(
        NumericError, match=r"^m, block 0, line\.weight: the gradient is not [^\n]*"
    ):
        gradients_of(Line(), [[math.inf]], GRADIENT)


def test_the_score_by_hand() -> None:
    statistics = Statistics(
        input_norm=torch.tensor([1.0, 2.0]), gradient=torch.tensor([[0.0, 0.01], [0.03, 0.0]])
    )
    weight = torch.tensor([[1.0, -2.0], [-1.0, 0.5]], dtype=torch.bfloat16)
    score = WandaPP().score("up", weight, statistics)
    torch.testing.assert_close(score, torch.tensor([[1.0, 6.0], [4.0, 1.0]]))
    assert statistics.get("gradient")[0, 1] == 0.01  # not written to
    plain = make_method("wanda", {}).score("up", weight, statistics)  # type: ignore[union-attr]
    torch.testing.assert_close(WandaPP(alpha=0).score("up", weight, statistics), plain)
    assert WandaPP().comparison("gate") == ("row", "input")


@SLOW
@given(
    alpha=st.sampled_from([0.0, 1.0, 100.0]), role=st.sampled_from(ROLES),
    seed=st.integers(0, 2**20), dead=st.booleans(),
)  # fmt: skip
def test_the_score_is_its_formula(alpha: float, role: Role, seed: int, dead: bool) -> None:
    weight, x = case(5, 8, seed, dead)
    g = torch.rand(5, 8, generator=torch.Generator().manual_seed(seed))
    given_ = Statistics(**vars(statistics_of(role, x)) | {"gradient": g})
    expected = (alpha * g.double() + x.double().norm(dim=0)) * weight.double().abs()
    score = WandaPP(alpha).score(role, weight, given_)
    torch.testing.assert_close(score.double(), expected, rtol=1e-5, atol=1e-7)


# Whole models --------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [*SUPPORTED, *MORE, *EXPERTS, *MORE_EXPERTS])
def test_gradients_are_those_of_autograd(
    architecture: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    """Of each dense block's output in a whole forward, float64, one sequence at a time."""
    folder = tiny_model(architecture)
    slow, model = whole(folder), StreamedModel(folder, torch.float32)
    targets: Targets = "mlp" if architecture == "recurrent_gemma" else "all"
    layers = next(
        m for m in slow.modules() if isinstance(m, nn.ModuleList) and len(m) == model.n_blocks
    )
    batches = batches_of(model, tokens, one_by_one=True)
    assert len(batches) == len(tokens)
    for index, layer in enumerate(layers):
        kept: list[Any] = []
        hook = layer.register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out))
        own = dict(layer.named_parameters())
        with torch.inference_mode(), model.block(index) as block:
            found = find_targets(block, "here", targets)
            ours = regional_gradients(model, block, found, batches, index, GRADIENT)
            for batch in batches:
                batch.advance(block, index)
        assert set(ours) == {one.parameter for one in found.projections}
        squares = {name: torch.zeros_like(own[name]) for name in ours}
        for sequence in tokens:
            slow(input_ids=sequence[None], use_cache=False)
            loss = kept.pop().square().sum().sqrt()
            for name, g in zip(
                ours, torch.autograd.grad(loss, [own[n] for n in ours], materialize_grads=True),
                strict=True,
            ):  # fmt: skip
                squares[name] += g.square()
        hook.remove()
        for name, total in squares.items():
            exact = (total / len(tokens)).sqrt()
            rounding = 1e-4 * float(exact.max())
            torch.testing.assert_close(ours[name].double(), exact, rtol=1e-3, atol=rounding)
        for one in found.projections:
            assert gradient_of(one, ours).shape == one.weight.shape  # type: ignore[union-attr]
            assert one.whole.grad is None


@pytest.mark.parametrize("text", ["u50", "2of4", "2of4x4"])
@pytest.mark.parametrize("architecture", ["phi3", "mixtral"])
def test_each_matrix_is_scored_with_its_own_part(
    architecture: str, text: str, tiny_model: TinyModel, tokens: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With gradients that count alone, and say at once which rows and expert they are of."""
    model, pattern = StreamedModel(tiny_model(architecture), torch.bfloat16), parse_pattern(text)

    def marked(_model: Any, _block: Any, found: BlockTargets, *_: Any) -> Gradients:
        g = torch.Generator().manual_seed(len(made))
        wholes = {
            one.parameter: one.holder.get_parameter(one.parameter.rpartition(".")[2])
            for one in found.projections
        }
        made.append({name: 1e6 * torch.rand(w.shape, generator=g) for name, w in wholes.items()})
        weights.append({one.matrix: one.whole.clone() for one in found.projections})
        of.append(found)
        return made[-1]

    made: list[Any] = []
    weights: list[dict[str, Tensor]] = []
    of: list[BlockTargets] = []
    monkeypatch.setattr(pruning, "regional_gradients", marked)
    pruned = prune(model, tokens, make_method("wandapp", {"alpha": 1e6}), pattern)
    for index, found in enumerate(of):
        for one in found.projections:
            g = made[index][one.parameter]
            g = (g if one.expert is None else g[one.expert])[one.rows]
            name = model.parameter_name(index, one.matrix)
            mask = unpack(pruned.masks[name], pruned.shapes[name])[one.rows]
            scores = g * weights[index][one.matrix][one.rows].float().abs()
            expected = keep_mask(scores, pattern, "row", "input")
            assert (mask == expected).float().mean() > 0.995, name


@pytest.mark.parametrize("targets", ["mlp", "attention", "all"])
@pytest.mark.parametrize("architecture", ["llama", "phi3", "mixtral", "qwen2_moe"])
def test_a_model_is_pruned_twice_to_the_same_bits(
    architecture: str, targets: Targets, tiny_model: TinyModel, tokens: Tensor
) -> None:
    model, pattern = StreamedModel(tiny_model(architecture), torch.bfloat16), parse_pattern("2of4")
    method = make_method("wandapp", {})
    one, two = (prune(model, tokens, method, pattern, targets=targets) for _ in range(2))
    assert one.hash == two.hash and set(one.sparsity.values()) == {0.5}
    assert one.hash != prune(model, tokens, make_method("wanda", {}), pattern, targets=targets).hash
