"""ALPS against its definition in float64: eigenvectors, sorting, and least squares by row."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from dass.errors import NumericError, PatternError
from dass.pruning import penalty
from dass.pruning.method import Statistics
from dass.pruning.methods.alps import ALPS
from dass.pruning.patterns import NofM, Pattern, parse_pattern
from dass.terms import ROLES, Role
from tests.unit.pruning.test_other_methods import SLOW, case, statistics_of

NEARLY = 1e-5
"""Relative difference of two values below which they count as a tie."""


def best(v: Tensor, pattern: Pattern, clear: bool = True) -> Tensor:
    """The mask of the highest |V|; ``clear``: examples with near ties are left out."""
    group = pattern.group if isinstance(pattern, NofM) else v.numel()
    size, order = v.abs().reshape(-1, group).sort(dim=1)
    gone = round(group * pattern.sparsity)
    if clear:
        assume(bool((size[:, gone] - size[:, gone - 1] > NEARLY * size[:, gone]).all()))
    mask = torch.ones_like(size, dtype=torch.bool).scatter_(1, order[:, :gone], False)
    return mask.reshape(v.shape)


def slow_alps(
    w: Tensor, x: Tensor, pattern: Pattern, steps: int, clear: bool = True
) -> tuple[Tensor, list[str]]:
    """The scaled V of the last step, and what became of ρ, by the public code's own recursion."""
    gram = x.double().t() @ x.double()
    gram += 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
    scale = gram.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(gram / scale / scale[:, None])
    v0 = w.double() * scale
    target = v0 @ (gram / scale / scale[:, None])
    before = best(v0, pattern, clear)
    z, dual, v = v0 * before, torch.zeros_like(v0), v0
    rho, grown, events = 0.1, False, []
    for step in range(1, steps + 1):
        v = (target - dual + rho * z) @ ((vectors / (values + rho)) @ vectors.t())
        mask = best(v + dual / rho, pattern, clear)
        z = (v + dual / rho) * mask
        dual = dual + rho * (v - z)
        if step % 3:
            continue
        moved = int((mask != before).sum())
        share, before = moved / int(mask.sum()), mask
        if share > 0.1:
            grown, event, rho = True, "1.3", rho * 1.3
        elif share > 0.005:
            grown, event, rho = True, "1.2", rho * 1.2
        elif moved and grown:
            event, rho = "1.1", rho * 1.1
        elif moved:
            event, rho = "again", rho / 5
            v, z, dual = v0, v0 * best(v0, pattern, clear), torch.zeros_like(v0)
        elif grown:
            return v, [*events, "still"]
        else:
            event, rho = "0.2", rho / 5
        events.append(event)
        if step - 1 >= 30 and share < 0.0003:
            return v, [*events, "settled"]
    return v, events


def fitted(v: Tensor, mask: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """Least squares of each row on its kept columns, with the ridge."""
    gram = x.double().t() @ x.double()
    gram += 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
    found = torch.zeros_like(v)
    for row, keep in enumerate(mask):
        own = gram[keep][:, keep]
        found[row, keep] = torch.linalg.solve(own, gram[keep] @ w[row].double())
    return found


@SLOW
@given(
    text=st.sampled_from(["u50", "u70", "2of4", "1of4", "3of8"]), role=st.sampled_from(ROLES),
    steps=st.sampled_from([3, 10, 36, 300]), rows=st.sampled_from([5, 30]),
    seed=st.integers(0, 2**20), dead=st.booleans(),
)  # fmt: skip
def test_alps_is_its_definition(
    text: str, role: Role, steps: int, rows: int, seed: int, dead: bool
) -> None:
    weight, x = case(rows, 32, seed, dead)
    pattern = parse_pattern(text)
    v, _ = slow_alps(weight, x, pattern, steps)
    keep = best(v, pattern)
    updated, mask = ALPS(steps=steps, gradient_steps=60).update(
        role, weight, statistics_of(role, x), pattern, "m"
    )
    assert torch.equal(mask, keep)
    exact = fitted(v, keep, x, weight)
    torch.testing.assert_close(updated.double(), exact, rtol=1e-2, atol=2e-3)
    few, same = ALPS(steps=steps).update(role, weight, statistics_of(role, x), pattern, "m")
    assert torch.equal(same, mask)
    assert loss(few, weight, x) <= 1.05 * loss(exact, weight, x)


def loss(new: Tensor, weight: Tensor, x: Tensor) -> float:
    return float((x.double() @ (new.double() - weight.double()).t()).square().sum())


FACTORS = {"1.3": 1.3, "1.2": 1.2, "1.1": 1.1, "0.2": 0.2, "again": 0.2}


@pytest.mark.parametrize(
    ("faint", "close", "mixing", "first", "last", "settles"),
    [
        (0.3, 1, 0.1, ["again", "again", "again", "0.2", "1.3"], "1.1", "still"),
        (0.1, 2, 1.0, ["again", "again", "1.2", "1.1"], "1.1", "still"),
        (0.03, 1, 1.0, ["0.2", "again", "again", "again", "again", "0.2"], "0.2", "settled"),
        (0.01, 0, 0.0, ["0.2", "0.2", "0.2", "1.3"], "1.3", "still"),
    ],
)
def test_the_penalty_follows_the_mask(
    faint: float, close: int, mixing: float, first: list[str], last: str, settles: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Half of the weights, but for a few, are much smaller: ρ starts out too large."""
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(30, 32, generator=g)
    x = torch.randn(400, 32, generator=g)
    x = x @ (mixing * torch.randn(32, 32, generator=g) / 3 + torch.eye(32))
    lowest = (weight * x.norm(dim=0)).abs().flatten().argsort()[: 480 - close]
    weight.view(-1)[lowest] *= faint
    v, events = slow_alps(weight, x, parse_pattern("u50"), 300, clear=False)
    assert events[: len(first)] == first and events[-2:] == [last, settles]
    wanted = [0.1]
    for event in events[:-1] if settles == "still" else events[:-2]:
        wanted.append(wanted[-1] * FACTORS[event])

    found: list[float] = []
    inverse = penalty.shifted_inverse

    def note(correlation: Tensor, rho: float, name: str) -> Tensor:
        found.append(rho)
        return inverse(correlation, rho, name)

    monkeypatch.setattr(penalty, "shifted_inverse", note)
    _, mask = ALPS().update("up", weight, statistics_of("up", x), parse_pattern("u50"), "m")
    assert found == pytest.approx(wanted)
    assert torch.equal(mask, best(v, parse_pattern("u50"), clear=False))


def test_a_step_of_alps_by_hand() -> None:
    """G = diag(4, 1), with damping 0.4 diag(5, 2), scaled to I: V₀ = (√5, 3√2), Z = (0, 3√2).

    V = (V₀ + 0.1 Z) / 1.1 = (√5 / 1.1, 3√2): the first goes, and the other is as it was.
    """
    statistics = Statistics(input_gram=torch.diag(torch.tensor([4.0, 1.0])))
    weight = torch.tensor([[1.0, 3.0]], dtype=torch.bfloat16)
    method = ALPS(damping=0.4, steps=1)
    updated, mask = method.update("up", weight, statistics, NofM(1, 2), "m")
    assert mask.int().tolist() == [[0, 1]]
    assert updated.dtype == torch.bfloat16 and updated.tolist() == [[0.0, 3.0]]


def test_conjugate_gradients_by_hand() -> None:
    """G = [[1, c], [c, 1]] with c = 0.5: a row's one kept weight is fitted in one step.

    Pruning w₁ = 1 beside w₂ = 3 leaves w₂ + c · w₁ / (1 + damping).
    """
    gram = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    weight = torch.tensor([[1.0, 3.0]])
    method = ALPS(damping=1e-6, steps=1, gradient_steps=1)
    updated, mask = method.update("up", weight, Statistics(input_gram=gram), NofM(1, 2), "m")
    assert mask.int().tolist() == [[0, 1]]
    assert updated.tolist() == [[0.0, pytest.approx(3.5, rel=1e-5)]]


def test_alps_of_a_layer_without_inputs_or_of_any_constant_is_finite() -> None:
    weight, _ = case(4, 8, 0)
    for gram in (torch.zeros(8, 8), torch.ones(8, 8), 1e-12 * torch.eye(8)):
        updated, mask = ALPS().update("up", weight, Statistics(input_gram=gram), NofM(2, 4), "m")
        assert updated.isfinite().all() and int(mask.sum()) == 16
    assert torch.equal(updated[mask], weight[mask])  # channels are unrelated


def test_alps_leaves_what_it_is_given() -> None:
    weight, x = case(4, 16, 3)
    statistics = statistics_of("up", x)
    before = weight.clone(), statistics.get("input_gram").clone()
    ALPS().update("up", weight, statistics, NofM(2, 4), "m")
    assert torch.equal(weight, before[0])
    assert torch.equal(statistics.get("input_gram"), before[1])


def test_alps_beats_masking_alone_in_the_output() -> None:
    weight, x = case(8, 32, 1)
    updated, mask = ALPS().update("up", weight, statistics_of("up", x), NofM(2, 4), "m")
    assert loss(updated, weight, x) < 0.6 * loss(weight * mask, weight, x)


def test_alps_refuses_what_it_cannot_prune() -> None:
    weight, x = case(4, 6, 0)
    with pytest.raises(PatternError, match=r"^m: [^\n]*multiple of 4, but it is 6[^\n]*$"):
        ALPS().update("up", weight, statistics_of("up", x), NofM(2, 4), "m")
    for gram in (torch.full((6, 6), math.nan), torch.eye(6) - 2 * torch.ones(6, 6).tril(-1)):
        gram = gram + gram.t()
        with pytest.raises(NumericError, match=r"^m: [^\n]*not finite or not positive[^\n]*$"):
            ALPS().update("up", weight, Statistics(input_gram=gram), NofM(1, 2), "m")
    weight[0, 0] = math.inf
    with pytest.raises(NumericError, match=r"^m: the weights are not finite[^\n]*$"):
        ALPS().update("up", weight, statistics_of("up", x), NofM(1, 2), "m")
