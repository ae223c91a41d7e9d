"""RIA, ADMM and the refinements by hand, and against slow float64 computations by definition.

Examples in which two values nearly tie are left out: there float32 may decide otherwise.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dass.errors import ConfigError, NumericError, PatternError
from dass.models.streamed import StreamedModel
from dass.pruning import swaps
from dass.pruning.masks import keep_mask
from dass.pruning.method import Refined, ScoreMethod, Statistics, UpdateMethod
from dass.pruning.method_calls import mask_of
from dass.pruning.method_checks import check_groups, comparison_of
from dass.pruning.methods import classes_of, make_method
from dass.pruning.methods.admm import ADMM
from dass.pruning.methods.dass import DaSS
from dass.pruning.methods.dsnot import DSnoT
from dass.pruning.methods.ria import RIA
from dass.pruning.methods.sparseswaps import SparseSwaps
from dass.pruning.methods.wanda import Wanda
from dass.pruning.patterns import Axis, NofM, Pattern, Unstructured, parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned_file import unpack
from dass.runtime.source_files import class_files
from dass.terms import ROLES, Role
from tests.conftest import TinyModel

SLOW = settings(max_examples=60, deadline=None, derandomize=True)
NEARLY = 1e-4
"""Relative difference of two values below which they count as a tie."""

Pair = tuple[tuple[int, int], tuple[int, int]]


def case(rows: int, columns: int, seed: int, dead: bool = False) -> tuple[Tensor, Tensor]:
    """Weights and correlated inputs whose means are not zero."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=g)
    mixing = torch.randn(columns, columns, generator=g) / 3 + torch.eye(columns)
    x = (torch.randn(3 * columns, columns, generator=g) + 0.3) @ mixing
    if dead:
        x[:, seed % columns] = 0
    return weight, x


def statistics_of(role: Role, x: Tensor) -> Statistics:
    """What the statistics of ``x`` are where the projection of this role reads it."""
    name = "intermediate" if role == "down" else "input"
    x = x.double()
    found = {
        "norm": x.norm(dim=0), "gram": x.t() @ x, "mean": x.mean(0),
        "variance": x.var(0, correction=0),
    }  # fmt: skip
    return Statistics(**{f"{name}_{key}": value.float() for key, value in found.items()})


# RIA -----------------------------------------------------------------------------------------


def test_ria_by_hand() -> None:
    """Columns sum to 3, 4, 5 and rows to 8, 4; the norms' roots are 1, 2, 0."""
    weight = torch.tensor([[1.0, -3.0, 4.0], [-2.0, 1.0, 1.0]])
    norms = Statistics(input_norm=torch.tensor([1.0, 4.0, 0.0]))
    expected = [
        [1 / 3 + 1 / 8, 2 * (3 / 4 + 3 / 8), 0.0],
        [2 / 3 + 2 / 4, 2 * (1 / 4 + 1 / 4), 0.0],
    ]
    score = RIA().score("gate", weight, norms)
    torch.testing.assert_close(score, torch.tensor(expected))
    assert RIA().comparison("up") == ("matrix", "input")
    assert RIA(scope="row").comparison("down") == ("row", "input")
    assert torch.equal(weight[0], torch.tensor([1.0, -3.0, 4.0]))  # not written to


def test_relative_importance_alone_needs_no_tokens() -> None:
    alone = RIA(a=0)
    assert alone.needs == frozenset() and RIA().needs == {"input_norm", "intermediate_norm"}
    weight = torch.tensor([[1.0, -3.0], [-2.0, 1.0]])
    expected = torch.tensor([[1 / 3 + 1 / 4, 3 / 4 + 3 / 4], [2 / 3 + 2 / 3, 1 / 4 + 1 / 3]])
    torch.testing.assert_close(alone.score("down", weight, Statistics()), expected)


@pytest.mark.parametrize("a", [0.0, 0.5])
def test_ria_of_zero_rows_and_columns_is_zero(a: float) -> None:
    weight = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, -2.0]])
    score = RIA(a=a).score("up", weight, Statistics(input_norm=torch.ones(3)))
    torch.testing.assert_close(score, torch.tensor([[0.0, 0.0, 0.0], [0.0, 4 / 3, 5 / 3]]))


@SLOW
@given(
    a=st.sampled_from([0.0, 0.5, 1.0]), role=st.sampled_from(ROLES), seed=st.integers(0, 2**20),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), dead=st.booleans(),
)  # fmt: skip
def test_ria_is_its_formula(a: float, role: Role, seed: int, dtype: Any, dead: bool) -> None:
    weight, x = case(7, 8, seed, dead)
    weight = weight.to(dtype)
    score = RIA(a=a).score(role, weight, statistics_of(role, x))
    w = weight.double().abs()
    for i, j in itertools.product(range(7), range(8)):
        share = w[i, j] / w[:, j].sum() + w[i, j] / w[i].sum()
        expected = share * x[:, j].double().norm() ** a
        assert float(score[i, j]) == pytest.approx(float(expected), rel=1e-5)
    assert score.dtype == torch.float32


# SparseSwaps ---------------------------------------------------------------------------------


def loss(w: Tensor, gram: Tensor, mask: Tensor) -> Tensor:
    """The error of each row, float64 [rows], by definition."""
    v = (w * ~mask).double()
    return ((v @ gram.double()) * v).sum(1)


def legal(mask: Tensor, pattern: Pattern, axis: Axis, unit: int) -> list[Pair]:
    """All exchanges of a kept and a pruned place that the groups of a row or band allow."""
    columns = mask.shape[1]
    if isinstance(pattern, Unstructured):
        groups = [[(unit, j) for j in range(columns)]]
    elif axis == "input":
        starts = range(0, columns, pattern.group)
        groups = [[(unit, j + k) for k in range(pattern.group)] for j in starts]
    else:
        first = unit * pattern.group
        groups = [[(first + k, j) for k in range(pattern.group)] for j in range(columns)]
    return [
        (p, u)
        for group in groups
        for p, u in itertools.product(group, group)
        if mask[p] and not mask[u]
    ]


def slow_swaps(
    w: Tensor, gram: Tensor, mask: Tensor, pattern: Pattern, axis: Axis, limit: int
) -> Tensor:
    """Try every exchange, compute the error of the matrix afresh, take the best."""
    mask = mask.clone()
    across = isinstance(pattern, NofM) and axis == "output"
    for unit in range(len(w) // pattern.group if across else len(w)):  # type: ignore[union-attr]
        first = float(loss(w, gram, mask).sum())
        for _ in range(limit):
            now, found = float(loss(w, gram, mask).sum()), []
            for p, u in legal(mask, pattern, axis, unit):
                other = mask.clone()
                other[p], other[u] = False, True
                found.append((float(loss(w, gram, other).sum()) - now, p, u))
            best = sorted(found)[:2]
            if not best or best[0][0] > -NEARLY * first:
                assume(not best or best[0][0] > 0 or best[0][0] < -NEARLY * first)
                break
            assume(len(best) < 2 or best[1][0] - best[0][0] > NEARLY * abs(best[0][0]))
            mask[best[0][1]], mask[best[0][2]] = False, True
    return mask


@SLOW
@given(
    text=st.sampled_from(["u50", "u30", "2of4", "1of4"]), axis=st.sampled_from(["input", "output"]),
    role=st.sampled_from(ROLES), limit=st.sampled_from([1, 2, 50]),
    chunk=st.sampled_from([1, 9999]), seed=st.integers(0, 2**20), dead=st.booleans(),
)  # fmt: skip
def test_swaps_are_the_best_there_are(
    text: str, axis: Axis, role: Role, limit: int, chunk: int, seed: int, dead: bool
) -> None:
    weight, x = case(4, 8, seed, dead)
    pattern, statistics = parse_pattern(text), statistics_of(role, x)
    scope = "row" if axis == "input" else "column"
    start = keep_mask(weight.abs(), pattern, scope, axis)
    across = isinstance(pattern, NofM) and axis == "output"
    gram = statistics.get("intermediate_gram" if role == "down" else "input_gram")
    expected = slow_swaps(weight, gram, start, pattern, axis, 2 * limit if across else limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swaps, "PAIRS", {"cpu": chunk})
        before = start.clone()
        found = SparseSwaps(limit).refine(role, weight, statistics, start, pattern, axis, "m")
    assert torch.equal(start, before)
    assert torch.equal(found, expected)


def test_a_swap_by_hand() -> None:
    """G = [[1, .9], [.9, 1]] twice, apart. Pruned 0 and 2 of (1, 1, 1, -1): e = (1, .9, 1, .9).

    Pruning 1 and restoring 2 changes the error by 2 · .9 + 1 − 2 + 1 = 1.8, pruning 3 and restoring
    2 by −1.8 + 1 − 2 + 1 + 1.8 = 0; pruning 3 and restoring 0 by −1.8 + 1 − 2 + 1 = −1.8: it goes.
    """
    gram = torch.block_diag(*[torch.tensor([[1.0, 0.9], [0.9, 1.0]])] * 2)
    weight = torch.tensor([[1.0, 1.0, 1.0, -1.0]])
    start = torch.tensor([[False, True, False, True]])
    found = SparseSwaps().refine(
        "up", weight, Statistics(input_gram=gram), start, Unstructured(50), "input", "m"
    )
    assert found.int().tolist() == [[1, 1, 0, 0]]
    held = SparseSwaps().refine(
        "up", weight, Statistics(input_gram=gram), start, NofM(1, 2), "input", "m"
    )
    assert torch.equal(held, start)  # within the pairs each swap costs nothing and gains nothing


@pytest.mark.parametrize("text", ["u50", "2of4"])
def test_weights_of_dead_channels_are_pruned_for_nothing(text: str) -> None:
    """Independent inputs: the largest w² G_jj are kept in the end, and none that is zero."""
    weight, diagonal = case(5, 16, 3)[0], torch.ones(16)
    diagonal[[1, 10]] = 0
    start = torch.tensor([False, True, True, False] * 4).expand(5, 16)
    statistics, pattern = Statistics(input_gram=torch.diag(diagonal)), parse_pattern(text)
    found = SparseSwaps().refine("up", weight, statistics, start, pattern, "input", "m")
    assert torch.equal(found, keep_mask(weight.square() * diagonal, pattern, "row", "input"))
    assert not found[:, [1, 10]].any()


def test_groups_along_the_output_stay_and_the_error_falls() -> None:
    weight, x = case(16, 12, 5)
    statistics = statistics_of("gate", x)
    start = keep_mask(weight.abs(), NofM(2, 4), "column", "output")
    found = SparseSwaps().refine("gate", weight, statistics, start, NofM(2, 4), "output", "m")
    assert (found.unflatten(0, (-1, 4)).sum(1) == 2).all()
    gram = statistics.get("input_gram")
    assert loss(weight, gram, found).sum() < 0.8 * loss(weight, gram, start).sum()


def test_a_gram_matrix_that_is_not_finite_is_refused() -> None:
    gram = torch.full((4, 4), math.inf)
    mask = torch.tensor([[True, True, False, False]])
    with pytest.raises(NumericError, match=r"^m: [^\n]*not finite[^\n]*$"):
        SparseSwaps().refine(
            "up", torch.ones(1, 4), Statistics(input_gram=gram), mask, NofM(2, 4), "input", "m"
        )


# DSnoT ---------------------------------------------------------------------------------------


def slow_exchanges(
    w: Tensor, x: Tensor, mask: Tensor, pattern: Pattern, cycles: int, threshold: float
) -> Tensor:
    """Row by row, one exchange after the other, in float64."""
    x, w = x.double(), w.double()
    mean, variance, norm = x.mean(0), x.var(0, correction=0), x.norm(dim=0)
    found = mask.clone()
    for i, row in enumerate(w):
        shift = [float(row[j] * mean[j]) for j in range(len(row))]
        gain = [shift[j] / float(variance[j]) if variance[j] > 0 else 0.0 for j in range(len(row))]
        score = [abs(float(row[j])) * float(norm[j]) for j in range(len(row))]
        pruned = [j for j in range(len(row)) if not mask[i, j]]
        kept = [j for j in range(len(row)) if mask[i, j]]
        error = sum(shift[j] for j in pruned)
        sign = math.copysign(1, error)
        for _ in range(cycles):
            assume(abs(abs(error) * 2048 - threshold) > NEARLY * threshold)
            assume(abs(error) > NEARLY * max(map(abs, shift)))
            if abs(error) * 2048 <= threshold:
                break
            wanted = 1 if error > 0 else -1
            back = max(pruned, key=lambda j: wanted * gain[j], default=None)
            if back is None or wanted * gain[back] <= 0:
                break
            pruned.remove(back)
            if isinstance(pattern, NofM):
                candidates = [j for j in kept if j // pattern.group == back // pattern.group]
                if not candidates:
                    continue
            else:
                candidates = [j for j in kept if wanted * shift[j] < 0]
                if not candidates:
                    break
            out = min(candidates, key=lambda j: score[j])
            after = error + shift[out] - shift[back]
            assume(abs(after) > NEARLY * max(map(abs, shift)))
            if isinstance(pattern, NofM) and math.copysign(1, after) != sign:
                break
            kept.remove(out)
            found[i, back], found[i, out] = True, False
            error = after
    return found


@SLOW
@given(
    text=st.sampled_from(["u50", "u75", "2of4", "1of4", "3of8"]), role=st.sampled_from(ROLES),
    cycles=st.sampled_from([1, 3, 50]), threshold=st.sampled_from([0.1, 300.0]),
    seed=st.integers(0, 2**20), dead=st.booleans(),
)  # fmt: skip
def test_dsnot_is_its_definition(
    text: str, role: Role, cycles: int, threshold: float, seed: int, dead: bool
) -> None:
    weight, x = case(3, 16, seed, dead)
    pattern = parse_pattern(text)
    start = keep_mask(weight.abs(), pattern, "row", "input")
    expected = slow_exchanges(weight, x, start, pattern, cycles, threshold)
    method, statistics = DSnoT(cycles, threshold), statistics_of(role, x)
    found = method.refine(role, weight, statistics, start, pattern, "input", "m")
    assert torch.equal(found, expected)


def test_an_exchange_by_hand() -> None:
    """μ = (1, 1, 2, 1), σ² = (1, 4, 1, 1), w = (2, -4, 1, 3); pruned are 0 and 2: ε = 2 + 2 = 4.

    Of 0 and 2 (2/1 and 2/1: a tie, the last) 2 returns; of 1 and 3 only 1 has the other sign:
    ε = 4 − 4 − 2 = −2. Now of none that were pruned at first W_j μ_j is negative: it ends.
    """
    statistics = Statistics(
        input_norm=torch.ones(4), input_mean=torch.tensor([1.0, 1.0, 2.0, 1.0]),
        input_variance=torch.tensor([1.0, 4.0, 1.0, 1.0]),
    )  # fmt: skip
    weight = torch.tensor([[2.0, -4.0, 1.0, 3.0]])
    start = torch.tensor([[False, True, False, True]])
    found = DSnoT().refine("up", weight, statistics, start, Unstructured(50), "input", "m")
    assert found.int().tolist() == [[0, 0, 1, 1]]
    held = DSnoT(threshold=4 * 2048).refine(
        "up", weight, statistics, start, Unstructured(50), "input", "m"
    )
    assert torch.equal(held, start)


def test_channels_that_are_dead_or_never_vary_give_no_nan() -> None:
    statistics = Statistics(
        input_norm=torch.tensor([0.0, 1.0, 1.0, 1.0]),
        input_mean=torch.tensor([0.0, 1.0, 1.0, 1.0]),
        input_variance=torch.tensor([0.0, 0.0, 1.0, 1.0]),
    )  # fmt: skip
    weight = torch.tensor([[9.0, 1.0, 5.0, -2.0]])
    start = torch.tensor([[False, False, False, True]])
    found = DSnoT(cycles=1).refine("up", weight, statistics, start, Unstructured(75), "input", "m")
    assert found.int().tolist() == [[0, 1, 0, 0]]  # 1/0 comes before 5/1, and the dead one never


# ADMM ----------------------------------------------------------------------------------------


def slow_admm(
    w: Tensor, x: Tensor, pattern: Pattern, damping: float, steps: int, mask_steps: int
) -> tuple[Tensor, Tensor]:
    """With plain inverses and sorting, in float64."""
    gram = x.double().t() @ x.double()
    scale = gram.diagonal().sqrt()
    unit = torch.where(scale > 0, 1 / scale, 0)
    c = torch.diag(unit) @ gram @ torch.diag(unit)
    c += damping * c.diagonal().mean() * torch.eye(len(c), dtype=torch.float64)
    inverse = torch.linalg.inv(c + torch.eye(len(c), dtype=torch.float64))
    v = v0 = w.double() * scale
    u = torch.zeros_like(v)
    mask = torch.ones_like(w, dtype=torch.bool)
    places = list(itertools.product(range(w.shape[0]), range(w.shape[1])))
    for step in range(1, steps + 1):
        size = (v + u).abs()
        if step <= mask_steps:
            spared = set()
            count = math.floor(len(places) * pattern.sparsity + 1e-9)
            if isinstance(pattern, NofM):
                for i, j in itertools.product(range(len(w)), range(0, w.shape[1], pattern.group)):
                    group = sorted((float(size[i, j + k]), k) for k in range(pattern.group))
                    last, first = group[-pattern.kept - 1][0], group[-pattern.kept][0]
                    assume(first - last > NEARLY * first)
                    spared |= {(i, j + k) for _, k in group[-pattern.kept :]}
                count = math.floor(count * (1 - (1 - step / mask_steps) ** 3) + 1e-9)
            ordered = sorted((at for at in places if at not in spared), key=lambda at: size[at])
            if 0 < count < len(ordered):
                last, first = float(size[ordered[count - 1]]), float(size[ordered[count]])
                assume(first == 0 or first - last > NEARLY * first)
            mask = torch.ones_like(mask)
            for at in ordered[:count]:
                mask[at] = False
        z = (v + u) * mask
        u = u + v - z
        v = (v0 @ c + z - u) @ inverse
    return (v + u) * mask * unit, mask


@SLOW
@given(
    text=st.sampled_from(["u50", "u30", "2of4", "1of4", "3of8"]), role=st.sampled_from(ROLES),
    steps=st.sampled_from([(1, 1), (5, 3), (20, 15)]), damping=st.sampled_from([0.01, 0.1]),
    seed=st.integers(0, 2**20), dead=st.booleans(),
)  # fmt: skip
def test_admm_is_its_definition(
    text: str, role: Role, steps: tuple[int, int], damping: float, seed: int, dead: bool
) -> None:
    weight, x = case(5, 16, seed, dead)
    pattern = parse_pattern(text)
    expected, keep = slow_admm(weight, x, pattern, damping, *steps)
    method, statistics = ADMM(damping, *steps), statistics_of(role, x)
    updated, mask = method.update(role, weight, statistics, pattern, "m")
    assert torch.equal(mask, keep)
    torch.testing.assert_close(updated.double(), expected, rtol=2e-3, atol=2e-4)


def test_a_step_of_admm_by_hand() -> None:
    """G = diag(4, 1): V = (2, 3), Ĝ = I with damping 1 is 2 I, (Ĝ + I)⁻¹ = I / 3.

    Pruning 0: Z = (0, 3), U = (2, 0), V = (4 + 0 − 2, 6 + 3 − 0) / 3 = (2/3, 3): the result (0, 3).
    """
    statistics = Statistics(input_gram=torch.diag(torch.tensor([4.0, 1.0])))
    method = ADMM(damping=1.0, steps=1, mask_steps=1)
    weight = torch.tensor([[1.0, 3.0]], dtype=torch.bfloat16)
    updated, mask = method.update("up", weight, statistics, NofM(1, 2), "m")
    assert mask.int().tolist() == [[0, 1]]
    assert updated.dtype == torch.bfloat16 and updated.tolist() == [[0.0, 3.0]]


def test_admm_beats_masking_alone_in_the_output() -> None:
    weight, x = case(8, 32, 1)
    updated, mask = ADMM().update("up", weight, statistics_of("up", x), NofM(2, 4), "m")
    dense = x @ weight.t()
    lost = (x @ updated.t() - dense).norm()
    assert lost < 0.8 * (x @ (weight * mask).t() - dense).norm()


def test_admm_refuses_what_it_cannot_prune() -> None:
    weight, x = case(4, 6, 0)
    with pytest.raises(PatternError, match=r"^m: [^\n]*multiple of 4, but it is 6[^\n]*$"):
        ADMM().update("up", weight, statistics_of("up", x), NofM(2, 4), "m")
    with pytest.raises(NumericError, match=r"^m: [^\n]*not finite[^\n]*$"):
        gram = torch.full((6, 6), math.nan)
        ADMM().update("up", weight, Statistics(input_gram=gram), NofM(1, 2), "m")


# Refinements of other methods ----------------------------------------------------------------


def test_a_refinement_reads_what_it_and_its_start_need() -> None:
    assert make_method("sparseswaps", {"swaps": 3}) == Refined(SparseSwaps(3), Wanda())
    start = {"function": "dass", "alpha": 0.25}
    method = make_method("dsnot", {"start": start})
    assert method == Refined(DSnoT(), DaSS(0.25))
    assert method.needs == DSnoT().needs | DaSS().needs
    assert comparison_of(method, "gate") == DaSS().comparison("gate")
    chain = make_method("sparseswaps", {"start": {"function": "dsnot", "start": start}})
    assert chain == Refined(SparseSwaps(), method)
    assert chain.needs == SparseSwaps().needs | method.needs


def test_the_files_of_the_start_are_the_refinements_too() -> None:
    arguments = {"start": {"function": "dsnot", "start": {"function": "dass"}}}
    classes = classes_of("sparseswaps", arguments)
    assert classes == [SparseSwaps, DSnoT, DaSS]
    names = {Path(file).name for file in class_files(*classes)}
    assert {"sparseswaps.py", "swaps.py", "dsnot.py", "regrowing.py", "dass.py"} <= names
    assert "wanda.py" not in names
    assert [cls.__name__ for cls in classes_of("dsnot", {})] == ["DSnoT", "Wanda"]


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ("wanda", "`start` is 'wanda'; write it as a method, as in {function: wanda}"),
        ({"alpha": 1.0}, "`start` is {'alpha': 1.0}; write it as a method"),
        ({"function": "wandb"}, "did you mean wanda?"),
        ({"function": "wanda", "alpha": 1.0}, "does not take {'alpha': 1.0}"),
    ],
)
def test_a_start_that_is_no_method_is_refused(start: Any, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_method("sparseswaps", {"start": start})
    assert says in str(error.value) and "\n" not in str(error.value)


def test_dsnot_refuses_groups_across_rows() -> None:
    method = make_method("dsnot", {"start": {"function": "dass"}})
    check_groups(method, parse_pattern("u50"))
    for one in (method, Refined(SparseSwaps(), method)):
        with pytest.raises(PatternError) as error:
            check_groups(one, NofM(2, 4))
        assert str(error.value) == (
            "dass.pruning.methods.dsnot:DSnoT cannot refine 2of4 groups along the output, as "
            "dass.pruning.methods.dass:DaSS lays those of gate; choose another start, or an "
            "unstructured pattern"
        )


def test_of_an_update_method_the_mask_is_refined() -> None:
    weight, x = case(4, 16, 2)
    statistics = statistics_of("up", x)
    method = make_method("sparseswaps", {"swaps": 4, "start": {"function": "sparsegpt"}})
    assert isinstance(method, Refined) and isinstance(method.start, UpdateMethod)
    _, start = method.start.update("up", weight, statistics, NofM(2, 4), "m")
    expected = SparseSwaps(4).refine("up", weight, statistics, start, NofM(2, 4), "input", "m")
    assert torch.equal(mask_of(method, "up", weight, statistics, NofM(2, 4), "m"), expected)
    assert not torch.equal(expected, start)


NEW: list[tuple[str, dict[str, Any]]] = [
    ("ria", {}), ("admm", {}), ("alps", {}), ("dsnot", {}), ("sparseswaps", {}),
    ("sparseswaps", {"start": {"function": "dass"}}),
    ("sparseswaps", {"start": {"function": "dsnot"}}),
    ("sparseswaps", {"start": {"function": "sparsegpt"}}),
]  # fmt: skip


@pytest.mark.parametrize("text", ["u50", "4of8", "2of4"])
@pytest.mark.parametrize(("function", "arguments"), NEW)
def test_a_model_is_pruned(
    function: str, arguments: dict[str, Any], text: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    """In bfloat16, and exactly to the pattern; twice the same bits."""
    method, pattern = make_method(function, arguments), parse_pattern(text)
    runs = [
        prune(StreamedModel(tiny_model("phi3"), torch.bfloat16), tokens, method, pattern)
        for _ in range(2)
    ]
    assert runs[0].hash == runs[1].hash
    assert set(runs[0].sparsity.values()) == {0.5}
    assert bool(runs[0].values) == (function in ("admm", "alps"))
    for name, packed in runs[0].masks.items():
        mask = unpack(packed, runs[0].shapes[name])
        if isinstance(pattern, NofM):
            across = arguments.get("start") == {"function": "dass"} and "down" not in name
            groups = mask.t() if across else mask
            assert (groups.unflatten(1, (-1, pattern.group)).sum(2) == pattern.kept).all(), name


@pytest.mark.parametrize("function", ["dsnot", "sparseswaps"])
def test_a_refined_mask_is_another(function: str, tiny_model: TinyModel, tokens: Tensor) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    pattern = parse_pattern("2of4")
    hashes = {prune(model, tokens, make_method(f, {}), pattern).hash for f in ("wanda", function)}
    assert len(hashes) == 2


def test_ria_without_norms_runs_no_token(tiny_model: TinyModel) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    nothing = torch.zeros(0, 8, dtype=torch.int64)
    method = make_method("ria", {"a": 0.0})
    assert isinstance(method, ScoreMethod)
    assert set(prune(model, nothing, method, parse_pattern("2of4")).sparsity.values()) == {0.5}


def test_a_refinement_that_does_not_fit_is_refused_before_any_work(
    tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    monkeypatch.setattr(model, "block_inputs", None)
    with pytest.raises(PatternError, match="cannot refine 2of4 groups along the output"):
        method = make_method("dsnot", {"start": {"function": "dass"}})
        prune(model, tokens, method, parse_pattern("2of4"))
