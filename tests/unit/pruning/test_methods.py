"""Each method's scores by hand, and SparseGPT against the paper's algorithm with plain inverses."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dass.errors import ConfigError, NumericError, PatternError
from dass.pruning.columns import inverse_factor
from dass.pruning.masks import keep_mask
from dass.pruning.method import Refined, ScoreMethod, Statistics, UpdateMethod
from dass.pruning.method_calls import mask_of
from dass.pruning.methods import built_in, make_method
from dass.pruning.methods.dass import DaSS
from dass.pruning.methods.grouped import Grouped
from dass.pruning.methods.magnitude import Magnitude
from dass.pruning.methods.sparsegpt import SparseGPT
from dass.pruning.methods.wanda import Wanda
from dass.pruning.patterns import NofM, Pattern, parse_pattern
from dass.terms import ROLES, Role

HIDDEN_NORM = torch.tensor([1.0, 2.0, 0.0])
NEURON_NORM = torch.tensor([4.0, 9.0])
NORMS = Statistics(input_norm=HIDDEN_NORM, intermediate_norm=NEURON_NORM)
IN = torch.tensor([[1.0, -3.0, 5.0], [-2.0, 0.5, 0.0]])  # gate or up: [intermediate 2, hidden 3]
OUT = torch.tensor([[1.0, -1.0], [-3.0, 0.5], [0.0, 2.0]])  # down: [hidden 3, intermediate 2]


def check(
    method: ScoreMethod, role: Role, weight: Tensor, statistics: Statistics,
    values: list[list[float]], scope: str, axis: str,
) -> None:  # fmt: skip
    scores = method.score(role, weight, statistics)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, torch.tensor(values, dtype=torch.float32))
    assert method.comparison(role) == (scope, axis)


@pytest.mark.parametrize("role", ROLES)
def test_magnitude_is_absolute_and_needs_nothing(role: Role) -> None:
    assert Magnitude().needs == frozenset()
    check(Magnitude(), role, IN, Statistics(), [[1, 3, 5], [2, 0.5, 0]], "matrix", "input")


@pytest.mark.parametrize("role", ["gate", "up"])
def test_wanda_of_gate_and_up_weighs_by_the_block_input(role: Role) -> None:
    check(Wanda(), role, IN, NORMS, [[1, 6, 0], [2, 1, 0]], "row", "input")


def test_wanda_of_down_weighs_by_the_intermediate_activation() -> None:
    check(Wanda(), "down", OUT, NORMS, [[4, 9], [12, 4.5], [0, 18]], "row", "input")


@pytest.mark.parametrize("role", ["gate", "up"])
@pytest.mark.parametrize(
    ("alpha", "values"),
    [
        (0.0, [[1, 3, 5], [2, 0.5, 0]]),
        (0.5, [[2, 6, 10], [6, 1.5, 0]]),
        (1.0, [[4, 12, 20], [18, 4.5, 0]]),
    ],
)
def test_dass_of_gate_and_up_weighs_rows_within_columns(
    role: Role, alpha: float, values: list[list[float]]
) -> None:
    check(DaSS(alpha), role, IN, NORMS, values, "column", "output")


@pytest.mark.parametrize("role", ROLES)
def test_metric_and_group_together_are_wanda_and_dass(role: Role) -> None:
    weight = OUT if role == "down" else IN
    pairs = [
        (Grouped("input", "row"), Wanda()),
        (Grouped("intermediate", "column", alpha=0.75), DaSS(0.75)),
    ]
    for grouped, method in pairs:
        assert torch.equal(grouped.score(role, weight, NORMS), method.score(role, weight, NORMS))
        assert grouped.comparison(role) == method.comparison(role)


def test_metric_and_group_apart_are_magnitude_within_groups() -> None:
    check(Grouped("input", "column"), "up", IN, NORMS, [[1, 6, 0], [2, 1, 0]], "column", "output")
    check(
        Grouped("intermediate", "row"), "up", IN, NORMS, [[2, 6, 10], [6, 1.5, 0]], "row", "input"
    )
    check(
        Grouped("input", "column"), "down", OUT, NORMS, [[4, 9], [12, 4.5], [0, 18]], "row", "input"
    )


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_dass_of_down_is_wanda_whatever_alpha(alpha: float) -> None:
    check(DaSS(alpha), "down", OUT, NORMS, [[4, 9], [12, 4.5], [0, 18]], "row", "input")


def test_dass_needs_the_intermediate_activation_only_and_half_is_the_default() -> None:
    assert DaSS().needs == {"intermediate_norm"}
    assert DaSS().alpha == 0.5


def test_a_dead_neuron_with_alpha_0_still_scores_by_magnitude() -> None:
    dead = Statistics(intermediate_norm=torch.tensor([0.0, 9.0]))
    assert torch.equal(DaSS(0.0).score("gate", IN, dead), IN.abs())


def test_dass_compares_within_a_column_where_wanda_compares_within_a_row() -> None:
    """Row 0's neuron is quiet: DaSS prunes it in both columns, Wanda half of each row."""
    weight = torch.tensor([[3.0, 2.0], [2.0, 1.5]])
    statistics = Statistics(
        input_norm=torch.tensor([1.0, 1.0]), intermediate_norm=torch.tensor([0.01, 1.0])
    )
    for pattern in (parse_pattern("u50"), NofM(1, 2)):
        masks = {}
        for method in (DaSS(), Wanda()):
            scores = method.score("gate", weight, statistics)
            mask = keep_mask(scores, pattern, *method.comparison("gate"))
            masks[type(method).__name__] = mask.int().tolist()
        assert masks == {"DaSS": [[0, 0], [1, 1]], "Wanda": [[1, 0], [1, 0]]}


@pytest.mark.parametrize("method", [Magnitude(), Wanda(), DaSS()])
def test_half_precision_weights_are_scored_in_float32(method: ScoreMethod) -> None:
    """1 + 2⁻⁷ in bfloat16 times a norm near 1 is no bfloat16 number."""
    weight = torch.tensor([[1.0078125, -1.0], [1.0, 2.0]], dtype=torch.bfloat16)
    norm = torch.tensor([1.001, 0.999])
    score = method.score("down", weight, Statistics(norm, norm))
    factor = torch.ones(2) if isinstance(method, Magnitude) else norm
    assert score.dtype == torch.float32
    assert torch.equal(score, weight.float().abs() * factor)


@pytest.mark.parametrize("method", [Wanda(), DaSS(), SparseGPT()])
def test_statistics_that_were_not_collected_are_named(method: Any) -> None:
    with pytest.raises(LookupError, match="intermediate_"):
        if isinstance(method, ScoreMethod):
            method.score("down", OUT, Statistics())
        else:
            method.update("down", OUT, Statistics(), parse_pattern("u50"), "m")


# SparseGPT -----------------------------------------------------------------------------------


def hessian(inputs: Tensor, damping: float) -> Tensor:
    """Damped XᵀX in float64; a channel that is always zero gets a one on the diagonal."""
    h = inputs.double().t() @ inputs.double()
    for j in range(len(h)):
        if h[j, j] == 0:
            h[j, j] = 1.0
    return h + damping * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)


def smallest(error: Tensor, count: int) -> list[tuple[int, int]]:
    """Places of the ``count`` smallest entries, by stable sorting in Python."""
    places = [(i, j) for i in range(error.shape[0]) for j in range(error.shape[1])]
    return sorted(places, key=lambda p: float(error[p]))[:count]


def obs(
    weight: Tensor, inputs: Tensor, pattern: Pattern, damping: float, block: int
) -> tuple[Tensor, Tensor]:
    """Column by column, with the inverse Hessian of the columns that are left, computed afresh.

    Removing w_ij costs w_ij² / [H_F⁻¹]_jj and moves the weights that are left by
    -w_ij / [H_F⁻¹]_jj · [H_F⁻¹]_j, where F are the columns from j on.
    """
    h = hessian(inputs, damping)
    w = weight.double().clone()
    w[:, (inputs == 0).all(0)] = 0
    columns = w.shape[1]
    inverses = [torch.linalg.inv(h[j:, j:]) for j in range(columns)]
    cost = torch.stack([inverse[0, 0] for inverse in inverses])
    keep = torch.ones_like(w, dtype=torch.bool)
    for j in range(columns):
        if isinstance(pattern, NofM):
            if j % pattern.group == 0:
                for i in range(w.shape[0]):
                    group = slice(j, j + pattern.group)
                    error = (w[i, group] ** 2 / cost[group]).unsqueeze(0)
                    for _, k in smallest(error, pattern.group - pattern.kept):
                        keep[i, j + k] = False
        elif j % block == 0:
            part = slice(j, min(j + block, columns))
            error = w[:, part] ** 2 / cost[part]
            for i, k in smallest(error, math.floor(error.numel() * pattern.percent / 100)):
                keep[i, j + k] = False
        for i in range(w.shape[0]):
            if not keep[i, j]:
                w[i, j:] -= w[i, j] / cost[j] * inverses[j][0]
                w[i, j] = 0
    return w, keep


def random_case(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights and strongly correlated inputs, so that updates matter."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=g)
    mixing = torch.randn(columns, columns, generator=g)
    inputs = torch.randn(4 * columns, columns, generator=g) @ mixing
    return weight, inputs


def gram_of(role: Role, inputs: Tensor) -> Statistics:
    gram = inputs.float().t() @ inputs.float()
    return Statistics(intermediate_gram=gram) if role == "down" else Statistics(input_gram=gram)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("text", ["u50", "u30", "2of4", "4of8", "1of4"])
@pytest.mark.parametrize("block", [128, 8, 10])
def test_sparsegpt_is_the_papers_algorithm(role: Role, text: str, block: int) -> None:
    """24 columns: one block; whole blocks; a last block that is cut (10 does not divide 24)."""
    weight, inputs = random_case(6, 24, seed=block)
    pattern = parse_pattern(text)
    expected, keep = obs(weight, inputs, pattern, 0.01, block)
    updated, mask = SparseGPT(block=block).update(role, weight, gram_of(role, inputs), pattern, "m")
    assert torch.equal(mask, keep)
    torch.testing.assert_close(updated.double(), expected, rtol=1e-3, atol=1e-4)
    assert (updated[~mask] == 0).all()
    moved = (updated - weight)[mask].abs()
    assert moved.max() > 0.05  # the comparison is not with weights that stay where they are


def test_sparsegpt_groups_wider_than_a_block() -> None:
    weight, inputs = random_case(3, 32)
    expected, keep = obs(weight, inputs, NofM(8, 16), 0.01, 4)
    updated, mask = SparseGPT(block=4).update("up", weight, gram_of("up", inputs), NofM(8, 16), "m")
    assert torch.equal(mask, keep)
    torch.testing.assert_close(updated.double(), expected, rtol=1e-3, atol=1e-4)


def test_sparsegpt_beats_masking_alone_in_the_output() -> None:
    weight, inputs = random_case(8, 32)
    updated, mask = SparseGPT().update("up", weight, gram_of("up", inputs), NofM(2, 4), "m")
    dense = inputs @ weight.t()
    lost = (inputs @ updated.t() - dense).norm()
    assert lost < 0.9 * (inputs @ (weight * mask).t() - dense).norm()


def test_sparsegpt_with_independent_inputs_moves_nothing() -> None:
    """H = diag(4, 1): costs are w²·h; row 0 loses 1·√h=1 < 1·2, row 1 loses 0.5·2 < 3·1."""
    weight = torch.tensor([[1.0, 1.0], [0.5, 3.0]])
    statistics = Statistics(input_gram=torch.diag(torch.tensor([4.0, 1.0])))
    updated, mask = SparseGPT(damping=0.0).update("up", weight, statistics, NofM(1, 2), "m")
    assert mask.int().tolist() == [[1, 0], [0, 1]]
    torch.testing.assert_close(updated, torch.tensor([[1.0, 0.0], [0.0, 3.0]]))


def test_two_columns_by_hand() -> None:
    """H = [[2, 1], [1, 2]], H⁻¹ = [[2, -1], [-1, 2]] / 3.

    Costs: column 0 w²/(2/3), column 1 (alone) w²/(1/2). With w = (1, 3) column 0 goes and
    column 1 moves by -1 / (2/3) · (-1/3) = 0.5.
    """
    statistics = Statistics(input_gram=torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    method = SparseGPT(damping=0.0)
    updated, mask = method.update("gate", torch.tensor([[1.0, 3.0]]), statistics, NofM(1, 2), "m")
    assert mask.int().tolist() == [[0, 1]]
    torch.testing.assert_close(updated, torch.tensor([[0.0, 3.5]]))


def test_damping_is_a_share_of_the_mean_diagonal() -> None:
    """diag(1, 3) + 0.5 · 2 = diag(2, 4); the factor of its inverse is diag(2, 4)^-1/2."""
    factor = inverse_factor(torch.diag(torch.tensor([1.0, 3.0])), 0.5, "m")
    torch.testing.assert_close(factor, torch.diag(torch.tensor([2.0, 4.0]).rsqrt()))


@pytest.mark.parametrize("damping", [0.001, 0.1, 1.0])
def test_damping_against_the_oracle(damping: float) -> None:
    weight, inputs = random_case(6, 16, seed=3)
    expected, keep = obs(weight, inputs, NofM(2, 4), damping, 128)
    method = SparseGPT(damping=damping)
    updated, mask = method.update("up", weight, gram_of("up", inputs), NofM(2, 4), "m")
    assert torch.equal(mask, keep)
    torch.testing.assert_close(updated.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("text", ["u50", "2of4"])
def test_weights_of_dead_channels_go_to_zero_and_first(text: str) -> None:
    weight, inputs = random_case(6, 16, seed=4)
    inputs[:, [1, 10]] = 0
    pattern = parse_pattern(text)
    expected, keep = obs(weight, inputs, pattern, 0.01, 128)
    updated, mask = SparseGPT().update("up", weight, gram_of("up", inputs), pattern, "m")
    assert torch.equal(mask, keep)
    torch.testing.assert_close(updated.double(), expected, rtol=1e-3, atol=1e-4)
    assert not mask[:, [1, 10]].any()
    assert (updated[:, [1, 10]] == 0).all()


def test_sparsegpt_changes_neither_weight_nor_statistics() -> None:
    weight, inputs = random_case(4, 16)
    statistics = gram_of("up", inputs)
    before = weight.clone(), statistics.get("input_gram").clone()
    SparseGPT().update("up", weight, statistics, NofM(2, 4), "m")
    assert torch.equal(weight, before[0])
    assert torch.equal(statistics.get("input_gram"), before[1])


def test_projections_that_share_statistics_do_not_disturb_one_another() -> None:
    """gate and up of a block share one Gram matrix, down has its own; dampings do not mix."""
    (gate, x), (down, z) = random_case(4, 16, seed=1), random_case(4, 16, seed=2)
    shared = Statistics(input_gram=x.t() @ x, intermediate_gram=z.t() @ z)
    calls: list[tuple[Role, Tensor, Tensor, float]] = [
        ("gate", gate, x, 0.01), ("down", down, z, 0.01), ("up", down, x, 0.01),
        ("up", gate, x, 1.0), ("down", gate, z, 1.0),
    ]  # fmt: skip
    for role, weight, inputs, damping in calls:
        method = SparseGPT(damping=damping)
        together = method.update(role, weight, shared, NofM(2, 4), "m")
        alone = method.update(role, weight, gram_of(role, inputs), NofM(2, 4), "m")
        assert torch.equal(together[0], alone[0])
        assert torch.equal(together[1], alone[1])


def test_the_factor_is_the_upper_cholesky_factor_of_the_inverse() -> None:
    _, x = random_case(1, 24)
    gram = x.t() @ x
    factor = inverse_factor(gram, 0.01, "m").double()
    assert torch.equal(factor, factor.triu())
    assert (factor.diagonal() > 0).all()
    inverse = torch.linalg.inv(hessian(x, 0.01))
    torch.testing.assert_close(factor.t() @ factor, inverse, rtol=1e-3, atol=1e-6)


def test_sparsegpt_keeps_the_dtype() -> None:
    weight, inputs = random_case(4, 16)
    half = weight.bfloat16()
    updated, mask = SparseGPT().update("up", half, gram_of("up", inputs), NofM(2, 4), "m")
    exact, same = SparseGPT().update("up", half.float(), gram_of("up", inputs), NofM(2, 4), "m")
    assert updated.dtype == torch.bfloat16
    assert torch.equal(mask, same)
    assert torch.equal(updated, exact.bfloat16())


@pytest.mark.parametrize(
    "gram", [torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.full((2, 2), math.nan)]
)
def test_a_gram_matrix_that_is_not_positive_definite_is_refused(gram: Tensor) -> None:
    with pytest.raises(NumericError, match=r"^block 2, up: .*not positive definite[^\n]*$"):
        SparseGPT().update("up", torch.ones(2, 2), Statistics(input_gram=gram), NofM(1, 2),
                           "block 2, up")  # fmt: skip


def test_sparsegpt_refuses_groups_that_do_not_divide() -> None:
    weight, inputs = random_case(4, 6)
    with pytest.raises(PatternError, match=r"^m: [^\n]*multiple of 4, but it is 6[^\n]*$"):
        SparseGPT().update("up", weight, gram_of("up", inputs), NofM(2, 4), "m")


# The registry --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        ("magnitude", {}, Magnitude()),
        ("wanda", {}, Wanda()),
        ("dass", {"alpha": 0.25}, DaSS(alpha=0.25)),
        ("sparsegpt", {"damping": 0.1, "block": 64}, SparseGPT(damping=0.1, block=64)),
        ("dass.pruning.methods.wanda:Wanda", {}, Wanda()),
    ],
)
def test_methods_are_made_by_name(function: str, arguments: dict[str, Any], expected: Any) -> None:
    assert make_method(function, arguments) == expected


def test_every_built_in_is_of_exactly_one_kind() -> None:
    assert set(built_in()) >= {
        "admm", "alps", "dass", "dsnot", "given", "grouped", "magnitude", "ria", "sparsegpt",
        "sparseswaps", "wanda", "wandapp",
    }  # fmt: skip
    for function in built_in():
        method = make_method(function, {"path": "masks"} if function == "given" else {})
        kinds = [isinstance(method, kind) for kind in (ScoreMethod, UpdateMethod, Refined)]
        assert sum(kinds) == 1


OWN = """
from dataclasses import dataclass
from dass.pruning.method import Comparison

@dataclass(frozen=True)
class Sign:
    sign: int = 1
    needs = frozenset()

    def __post_init__(self):
        if self.sign not in (1, -1):
            raise ValueError("sign must be 1 or -1")

    def comparison(self, role):
        return Comparison("row", "input")

    def score(self, role, weight, statistics):
        return self.sign * weight

class NoNeeds:
    def comparison(self, role): ...
    def score(self, role, weight, statistics): ...

class NoComparison:
    needs = frozenset()
    def score(self, role, weight, statistics): ...

class Nothing:
    needs = frozenset()
    def comparison(self, role): ...

class NoAxes:
    needs = frozenset()
    def refine(self, role, weight, statistics, mask, pattern, axis, name): ...

class WrongAxes(NoAxes):
    axes = frozenset({"row"})

class WrongCall(NoAxes):
    axes = frozenset({"input"})
    def refine(self, role, weight, statistics, mask): ...

class Refines(NoAxes):
    axes = frozenset({"input"})
    def refine(self, role, weight, statistics, mask, pattern, axis, name):
        return mask.float()

number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_methods.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_own_methods", raising=False)


@pytest.mark.usefixtures("own")
def test_a_custom_method_needs_no_registration() -> None:
    method = make_method("my_own_methods:Sign", {"sign": -1})
    assert isinstance(method, ScoreMethod)
    assert method.score("up", IN, Statistics()).tolist() == (-IN).tolist()


@pytest.mark.usefixtures("own")
def test_a_custom_refinement_gives_a_bool_mask() -> None:
    method = make_method("my_own_methods:Refines", {"start": {"function": "magnitude"}})
    assert isinstance(method, Refined) and method.start == Magnitude()
    says = (
        "m: refine() of method my_own_methods:Refines gives float32 [2, 3], not a bool mask of the "
        "weight's shape [2, 3]; correct the method"
    )
    with pytest.raises(ConfigError) as error:
        mask_of(method, "up", IN, Statistics(), parse_pattern("u50"), "m")
    assert str(error.value) == says


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [
        ("wandas", {}, "no built-in method 'wandas'; did you mean wanda"),
        (
            "a:b:c",
            {},
            f"no built-in method 'a:b:c'; available: {', '.join(built_in())} ",
        ),
        (":Sign", {}, "':Sign'"),
        ("my_own_methods:", {}, "'my_own_methods:'"),
        (".my_own_methods:Sign", {}, "'.my_own_methods:Sign'"),
        (
            "no_such_module:Sign",
            {},
            r"cannot be imported \(ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("my_own_methods:Sing", {}, "cannot be imported .*'Sing'"),
        ("my_own_methods:Sign", {"alpha": 1}, r"does not take \{'alpha': 1\}"),
        ("my_own_methods:Sign", {"sign": 0}, "sign must be 1 or -1"),
        ("my_own_methods:NoNeeds", {}, "is no method: it needs `needs`"),
        ("my_own_methods:NoComparison", {}, "is no method: it needs .*comparison"),
        ("my_own_methods:Nothing", {}, "is no method: it needs .*score"),
        ("my_own_methods:number", {}, "is no method"),
        ("my_own_methods:NoAxes", {}, "is no method: it needs .*`axes` and refine"),
        ("my_own_methods:WrongAxes", {}, "its `axes` are .*any of input, output"),
        ("my_own_methods:WrongCall", {}, r"refine\(\) cannot be called as \(role, .*, name\)"),
        ("dass", {"alpa": 0.5}, r"does not take \{'alpa': 0.5\}"),
    ],
)
def test_what_is_no_method_is_refused_in_one_line(
    function: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        make_method(function, arguments)
    assert "\n" not in str(error.value)
