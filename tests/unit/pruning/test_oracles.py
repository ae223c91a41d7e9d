"""Each method from inputs to mask and weights, against slow float64 computations by definition.

Examples in which two scores nearly tie are left out: there float32 may decide otherwise.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dass.pruning.masks import keep_mask
from dass.pruning.method import Statistics, UpdateMethod
from dass.pruning.method_calls import scores_of
from dass.pruning.method_checks import comparison_of
from dass.pruning.methods import make_method
from dass.pruning.methods.sparsegpt import SparseGPT
from dass.pruning.patterns import NofM, Pattern, parse_pattern
from dass.terms import ROLES, Role

SLOW = settings(max_examples=60, deadline=None, derandomize=True)
PATTERNS = ["u50", "u30", "u87.5", "2of4", "1of4", "3of8"]
NEARLY = 1e-4
"""Relative difference of two scores below which they count as a tie."""

Places = list[tuple[int, int]]


def weight_of(role: Role, hidden: int, neurons: int, generator: torch.Generator) -> Tensor:
    shape = (hidden, neurons) if role == "down" else (neurons, hidden)
    return torch.randn(shape, generator=generator)


def loss(
    function: str, alpha: float, role: Role, w: Tensor, x: Tensor, z: Tensor, at: tuple[int, int]
) -> float:
    """The score of one weight, by the formula of its paper."""
    row, column = at
    size = abs(float(w[row, column]))
    if function == "magnitude":
        return size
    if role == "down":
        return size * math.sqrt(sum(float(value) ** 2 for value in z[:, column].double()))
    if function == "wanda":
        return size * math.sqrt(sum(float(value) ** 2 for value in x[:, column].double()))
    return size * math.sqrt(sum(float(value) ** 2 for value in z[:, row].double())) ** alpha


def compared(function: str, role: Role, pattern: Pattern, shape: torch.Size) -> list[Places]:
    """The groups of weights that are compared with one another, by the definition of the method."""
    rows, columns = shape
    along_output = function == "dass" and role != "down"
    lines: list[Places] = [[(i, j) for j in range(columns)] for i in range(rows)]
    if along_output:
        lines = [[(i, j) for i in range(rows)] for j in range(columns)]
    if isinstance(pattern, NofM):
        m = pattern.group
        return [line[k : k + m] for line in lines for k in range(0, len(line), m)]
    return [sum(lines, [])] if function == "magnitude" else lines  # noqa: RUF017


def goes(pattern: Pattern, size: int) -> int:
    if isinstance(pattern, NofM):
        return pattern.group - pattern.kept
    return math.floor(size * pattern.percent / 100)


@SLOW
@given(
    function=st.sampled_from(["magnitude", "wanda", "dass"]),
    alpha=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]),
    role=st.sampled_from(ROLES),
    text=st.sampled_from(PATTERNS),
    hidden=st.sampled_from([8, 16, 24]),
    neurons=st.sampled_from([8, 16, 32]),
    seed=st.integers(0, 2**20),
)
def test_masks_are_those_of_the_formula(
    function: str, alpha: float, role: Role, text: str, hidden: int, neurons: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = weight_of(role, hidden, neurons, generator)
    x = torch.randn(5, hidden, generator=generator) * torch.rand(hidden, generator=generator) * 9
    z = torch.randn(5, neurons, generator=generator) * torch.rand(neurons, generator=generator) * 9
    pattern = parse_pattern(text)
    keep = torch.ones_like(w, dtype=torch.bool)
    for group in compared(function, role, pattern, w.shape):
        scores = {at: loss(function, alpha, role, w, x, z, at) for at in group}
        ordered = sorted(group, key=lambda at: scores[at])
        count = goes(pattern, len(group))
        if 0 < count < len(group):
            last, first = scores[ordered[count - 1]], scores[ordered[count]]
            assume(first - last > NEARLY * first)
        for at in ordered[:count]:
            keep[at] = False
    method = make_method(function, {"alpha": alpha} if function == "dass" else {})
    assert not isinstance(method, UpdateMethod)
    norms = Statistics(input_norm=x.norm(dim=0), intermediate_norm=z.norm(dim=0))
    found = keep_mask(scores_of(method, role, w, norms, "w"), pattern, *comparison_of(method, role))
    assert torch.equal(found, keep)


def sparsegpt(
    weight: Tensor, inputs: Tensor, pattern: Pattern, damping: float, block: int
) -> tuple[Tensor, Tensor]:
    """OBS in float64, one weight after the other, each inverse Hessian computed afresh."""
    h = inputs.double().t() @ inputs.double()
    dead = [j for j in range(len(h)) if h[j, j] == 0]
    for j in dead:
        h[j, j] = 1.0
    h += damping * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    w = weight.double().clone()
    w[:, dead] = 0
    rows, columns = w.shape
    keep = torch.ones_like(w, dtype=torch.bool)
    inverse = {j: torch.linalg.inv(h[j:, j:]) for j in range(columns)}
    width = pattern.group if isinstance(pattern, NofM) else block
    for j in range(columns):
        if j % width == 0:
            part = range(j, min(j + width, columns))
            cost = {
                (i, k): float(w[i, k] ** 2 / inverse[k][0, 0]) for i in range(rows) for k in part
            }
            groups = [[at for at in cost if at[0] == i] for i in range(rows)]
            for group in groups if isinstance(pattern, NofM) else [list(cost)]:
                ordered = sorted(group, key=lambda at: cost[at])
                count = goes(pattern, len(group))
                if 0 < count < len(group):
                    last, first = cost[ordered[count - 1]], cost[ordered[count]]
                    assume(first - last > 100 * NEARLY * first)
                for at in ordered[:count]:
                    keep[at] = False
        for i in range(rows):
            if not keep[i, j]:
                w[i, j:] -= w[i, j] / inverse[j][0, 0] * inverse[j][0]
                w[i, j] = 0.0
    return w, keep


@pytest.mark.parametrize("role", ROLES)
@SLOW
@given(
    text=st.sampled_from(PATTERNS), rows=st.integers(1, 5), columns=st.sampled_from([8, 16, 24]),
    damping=st.sampled_from([0.003, 0.01, 0.1, 1.0]), block=st.integers(1, 30),
    dead=st.booleans(), seed=st.integers(0, 2**20),
)  # fmt: skip
def test_sparsegpt_is_obs_in_float64(
    role: Role,
    text: str,
    rows: int,
    columns: int,
    damping: float,
    block: int,
    dead: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    mixing = torch.randn(columns, columns, generator=generator) / 3 + torch.eye(columns)
    inputs = torch.randn(3 * columns, columns, generator=generator) @ mixing
    pattern = parse_pattern(text)
    if dead:
        inputs[:, seed % columns] = 0
    expected, keep = sparsegpt(weight, inputs, pattern, damping, block)
    gram = inputs.t() @ inputs
    statistics = Statistics(input_gram=gram if role != "down" else None,
                            intermediate_gram=gram if role == "down" else None)  # fmt: skip
    method = SparseGPT(damping=damping, block=block)
    updated, mask = method.update(role, weight, statistics, pattern, "w")
    assert torch.equal(mask, keep)
    torch.testing.assert_close(updated.double(), expected, rtol=2e-3, atol=2e-4)
