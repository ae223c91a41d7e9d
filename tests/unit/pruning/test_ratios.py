"""Ratios per block: OWL and AlphaPruning by hand and in slow float64, and what stays exact."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from dass.errors import ModelError, NumericError, PatternError
from dass.models.glu import find_glu
from dass.models.streamed import StreamedModel
from dass.pruning.activations import activation_norms
from dass.pruning.block_scores import (
    block_sizes,
    eigenvalues,
    hill_exponent,
    outlier_shares,
    tail_exponents,
)
from dass.pruning.methods import make_method
from dass.pruning.patterns import NofM, block_pattern, parse_pattern
from dass.pruning.prune import prune
from dass.pruning.ratios import alpha_ratios, check_listed, owl_ratios, rounded_ratios, steps_of
from tests.conftest import TinyModel

# From scores to ratios --------------------------------------------------------------------------


def test_owl_by_hand() -> None:
    """The distances are 0, 0.08 and 0.16, and their mean is 0.08."""
    assert owl_ratios([0.1, 0.2, 0.3], [1, 1, 1], 0.5, 0.08) == pytest.approx([0.58, 0.5, 0.42])
    # The last block is twice as large: the mean of the distances is 0.1.
    assert owl_ratios([0.1, 0.2, 0.3], [1, 1, 2], 0.5, 0.08) == pytest.approx([0.6, 0.52, 0.44])


def test_alphapruning_by_hand() -> None:
    """Factors 0.7, 1 and 1.3; with the last block twice as large their mean is 1.075."""
    assert alpha_ratios([2.0, 3.0, 4.0], [1, 1, 1], 0.6, 0.3) == pytest.approx([0.42, 0.6, 0.78])
    expected = [0.6 * factor / 1.075 for factor in (0.7, 1, 1.3)]
    assert alpha_ratios([2.0, 3.0, 4.0], [1, 1, 2], 0.6, 0.3) == pytest.approx(expected)


@pytest.mark.parametrize("ratios", [owl_ratios, alpha_ratios])
def test_scores_that_do_not_differ_are_refused(ratios) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PatternError, match=r"^every block has the same [^\n]*leave `ratios` out$"):
        ratios([2.0, 2.0], [1, 1], 0.5, 0.3)


# Rounding ---------------------------------------------------------------------------------------


def test_rounding_by_hand() -> None:
    """Of 4, 1.4, 2 and 2.6 go: 1, 2 and 2, and the one that is left where .6 was cut off."""
    pattern = parse_pattern("2of4")
    shares = rounded_ratios([0.35, 0.5, 0.65], [1, 1, 1], pattern, steps_of([64, 96], pattern))
    assert shares == [0.25, 0.5, 0.75]
    kept = [block_pattern(share, pattern, "") for share in shares]
    assert kept == [NofM(3, 4), NofM(2, 4), NofM(1, 4)]


def test_a_group_keeps_one_of_its_entries_at_least_and_loses_one() -> None:
    pattern = parse_pattern("2of4")
    assert rounded_ratios([0.05, 0.5, 0.95], [1, 1, 1], pattern, 4) == [0.25, 0.5, 0.75]


def test_steps_divide_every_side_of_the_matrices() -> None:
    u50 = parse_pattern("u50")
    assert steps_of([4096, 11008], u50) == 256  # LLaMA2-7B
    assert steps_of([288, 768], u50) == 96
    assert steps_of([32, 64], u50) == 64  # fine enough is worth more than no rounding
    assert steps_of([896, 4864], parse_pattern("4of8")) == 8


@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=40).filter(lambda d: max(d) > min(d)),
    st.sampled_from(["u50", "u70", "u62.5", "u33", "2of4", "4of8", "5of8", "1of3"]),
    st.floats(0.05, 0.12),
    st.integers(1, 3),
)
def test_the_whole_is_what_was_asked_for(
    scores: list[float], text: str, deviation: float, larger: int
) -> None:
    pattern = parse_pattern(text)
    unequal = larger if not isinstance(pattern, NofM) else 1
    sizes = [96 * 960 * (unequal if n == 0 else 1) for n in range(len(scores))]
    wanted = owl_ratios(scores, sizes, pattern.sparsity, deviation)
    steps = steps_of([96, 960], pattern)
    try:
        shares = rounded_ratios(wanted, sizes, pattern, steps)
    except PatternError as error:
        assert "all blocks have the same ratio" in str(error)
        return
    zeros = [share * size for share, size in zip(shares, sizes, strict=True)]
    short = pattern.sparsity * sum(sizes) - sum(zeros)
    assert -1e-3 < short < (1e-3 if isinstance(pattern, NofM) else max(sizes) / steps)
    for share, asked in zip(shares, wanted, strict=True):
        assert 0 < share < 1 and math.isclose(share * steps, round(share * steps), abs_tol=1e-9)
        if unequal == 1 and 1 <= asked * steps <= steps - 1:
            assert abs(share - asked) <= 1 / steps + 1e-9


@pytest.mark.parametrize(
    ("wanted", "sizes", "pattern", "line"),
    [
        (
            [0.1, 1.1],
            [1, 1],
            "u60",
            r"block 1 would lose a share of 1\.1000 of its weights",
        ),
        ([-0.1, 1.1], [1, 1], "u50", r"block 0 would lose a share of -0\.1000 of its weights"),
        ([0.48, 0.52], [1, 1], "2of4", r"rounded to 1/4, all blocks have the same ratio for 2of4"),
        ([0.8, 0.4], [1, 3], "2of4", r"the blocks differ in size, so that 2of4 does not come out"),
        ([0.001, 0.003], [1, 1], "u0.2", r"u0\.2 has too few zeros to share out; ask for more"),
    ],
)
def test_what_is_no_ratio_is_refused(
    wanted: list[float], sizes: list[int], pattern: str, line: str
) -> None:
    parsed = parse_pattern(pattern)
    with pytest.raises(PatternError, match=f"^{line}[^\n]*$"):
        rounded_ratios(wanted, sizes, parsed, steps_of([64], parsed))


def test_a_list_comes_to_the_pattern() -> None:
    check_listed([0.4, 0.6], [1, 1], parse_pattern("u50"))
    check_listed([0.25, 0.75], [1, 1], parse_pattern("2of4"))
    check_listed([0.8, 0.4], [1, 3], parse_pattern("u50"))
    with pytest.raises(PatternError, match=r"mean of the ratios is 0\.5, but u60 asks for 0\.6"):
        check_listed([0.4, 0.6], [1, 1], parse_pattern("u60"))
    with pytest.raises(PatternError, match=r"^2 ratios, but there are 3 blocks"):
        check_listed([0.4, 0.6], [1, 1, 1], parse_pattern("u50"))
    with pytest.raises(PatternError, match=r"^block 0: a share of 0\.4 zeros is no N of 4; give"):
        check_listed([0.4, 0.6], [1, 1], parse_pattern("2of4"))


# Scores of blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_outliers_are_those_that_plain_passes_count(
    architecture: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    """By |W| · ‖X‖ in float64, from hooks on the whole model."""
    folder = tiny_model(architecture)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen: dict[tuple[int, str], Tensor] = {}
    glus = [find_glu(layer, "") for layer in plain.model.layers]
    for index, glu in enumerate(glus):
        for one in (glu.gate, glu.down):
            key = index, "down" if one.role == "down" else "gate"
            one.linear.register_forward_pre_hook(
                lambda _, x, key=key: seen.__setitem__(key, x[0].double().flatten(0, 1))
            )
    with torch.no_grad():
        plain(input_ids=tokens)
    expected = []
    for index, glu in enumerate(glus):
        scores = torch.cat([
            (one.weight.double().abs()
             * seen[index, "down" if one.role == "down" else "gate"].norm(dim=0)).flatten()
            for one in glu.projections
        ])  # fmt: skip
        expected.append(float((scores > 2 * scores.mean()).double().mean()))
    model = StreamedModel(folder, torch.float32)
    found = outlier_shares(model, activation_norms(model, tokens), 2.0)
    assert found == pytest.approx(expected, abs=1e-3)
    assert len(set(found)) > 1 and min(found) > 0.01
    with pytest.raises(ModelError, match=r"has 3 blocks, but norms are given of 2$"):
        outlier_shares(model, activation_norms(model, tokens)[:2], 2.0)


def slow_exponent(values: list[float]) -> float:
    """Hill's estimate, in plain Python: λ_min up to 1.5 times the histogram's peak."""
    logs = [math.log10(value) for value in values]
    low, high = logs[0], logs[-1]
    counts = [0] * 100
    for one in logs:
        counts[min(int((one - low) / (high - low) * 100), 99)] += 1
    peak = 10 ** (low + (high - low) * counts.index(max(counts)) / 100)
    found = []
    for start, least in enumerate(values[:-1]):
        if start and least > 1.5 * peak:
            break
        tail = values[start:]
        alpha = 1 + len(tail) / sum(math.log(value / least) for value in tail)
        distance = max(
            abs(1 - (value / least) ** (1 - alpha) - rank / len(tail))
            for rank, value in enumerate(tail)
        )
        found.append((distance, start, alpha))
    return min(found)[2]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(3, 60), st.floats(1.5, 6))
def test_the_exponent_is_the_slow_one(seed: int, count: int, alpha: float) -> None:
    values = np.sort(np.random.default_rng(seed).pareto(alpha - 1, count) + 1)
    expected = slow_exponent(values.tolist())
    logs = np.log10(values)
    places = (logs - logs[0]) / (logs[-1] - logs[0]) * 100
    peaks = np.sort(np.bincount(np.minimum(places.astype(int), 99)))
    if np.abs(places[1:-1] - places[1:-1].round()).min() < 1e-3 or peaks[-1] == peaks[-2:-1]:
        return  # a value on the edge of a bin, or two peaks: either is right
    assert hill_exponent(torch.from_numpy(values), "w") == pytest.approx(expected)


def test_the_exponent_of_a_power_law_is_its_own() -> None:
    """Quantiles of the law with α = 3."""
    share = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    assert hill_exponent((1 - share) ** -0.5, "w") == pytest.approx(3, abs=0.02)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
def test_eigenvalues_are_squared_singular_values(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.svdvals(weight.double()).square().flip(0)
    torch.testing.assert_close(eigenvalues(weight), expected)


def test_zero_eigenvalues_count_for_nothing_and_equal_ones_have_no_tail() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 7.0, 20.0], dtype=torch.float64)
    padded = torch.cat([torch.zeros(3, dtype=torch.float64), values])
    assert hill_exponent(padded, "w") == hill_exponent(values, "w")
    with pytest.raises(NumericError, match=r"^w: its singular values do not differ"):
        hill_exponent(torch.ones(4, dtype=torch.float64), "w")


def test_a_blocks_exponent_is_the_mean_of_its_matrices(tiny_model: TinyModel) -> None:
    model = StreamedModel(tiny_model("phi3"), torch.float32)
    found = tail_exponents(model)
    with model.block(1) as block:
        own = [
            hill_exponent(torch.linalg.svdvals(p.weight.double()).square().flip(0), "")
            for p in find_glu(block, "").projections
        ]
    assert found[1] == pytest.approx(sum(own) / 3)


# Pruning ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose sides are multiples of 64."""
    folder = tmp_path_factory.mktemp("wide")
    config = LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=4, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("text", ["u50", "u70", "2of4"])
@pytest.mark.parametrize("method", ["magnitude", "wanda", "dass", "sparsegpt"])
def test_as_many_weights_go_as_without_ratios(
    wide: Path, tokens: Tensor, method: str, text: str
) -> None:
    """Exactly the sum of what the ratios say, whatever a method compares."""
    model, pattern = StreamedModel(wide, torch.float32), parse_pattern(text)
    sizes, steps = block_sizes(model), steps_of([64, 128], pattern)
    assert (sizes.weights, sizes.sides) == ([3 * 64 * 128] * 4, [64, 128])
    wanted = alpha_ratios([2.0, 3.5, 3.1, 5.0], sizes.weights, pattern.sparsity, 0.3)
    shares = rounded_ratios(wanted, sizes.weights, pattern, steps)
    patterns = [block_pattern(share, pattern, "") for share in shares]
    pruned = prune(model, tokens, make_method(method, {}), patterns)
    for name, sparsity in pruned.sparsity.items():
        assert sparsity == pytest.approx(shares[int(name.split(".")[2])], abs=1e-12), name
    whole = math.floor(pattern.sparsity * steps * 4 + 1e-9) / (4 * steps)
    assert pruned.mean_sparsity == pytest.approx(whole, abs=1e-12)
    assert len(set(shares)) > 2


def test_there_is_a_pattern_for_each_block(wide: Path, tokens: Tensor) -> None:
    with pytest.raises(PatternError, match=r"3 patterns for 4 blocks; give one for each$"):
        prune(StreamedModel(wide, torch.float32), tokens, make_method("wanda", {}),
              [parse_pattern("u50")] * 3)  # fmt: skip
    mixed = [parse_pattern("u50")] * 3 + [parse_pattern("2of5")]
    with pytest.raises(PatternError, match=r"block 3, mlp\.gate_proj\.weight: pattern 2of5 needs"):
        prune(StreamedModel(wide, torch.float32), tokens, make_method("wanda", {}), mixed)
