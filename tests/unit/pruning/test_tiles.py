"""Groups along both dimensions, against a search over all 65536 masks of a tile and by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dass.errors import NumericError, PatternError
from dass.models.streamed import StreamedModel
from dass.pruning import tiles
from dass.pruning.given_masks import check_pattern
from dass.pruning.masks import keep_mask
from dass.pruning.method_checks import check_groups
from dass.pruning.methods import make_method
from dass.pruning.patterns import NofM, block_pattern, check_fit, parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned_file import unpack
from tests.conftest import TinyModel

BOTH = NofM(2, 4, both=True)


def keep(scores: Tensor, kept: int = 2) -> Tensor:
    return keep_mask(scores, NofM(kept, 4, both=True), "row", "input", "layer 1")


def masks_by_counting(kept: int) -> list[tuple[int, ...]]:
    """Of all masks of a tile, those with so many in each row and column; the first prunes first."""
    return [
        bits
        for bits in itertools.product((0, 1), repeat=16)
        if all(sum(bits[4 * i : 4 * i + 4]) == kept for i in range(4))
        and all(sum(bits[j::4]) == kept for j in range(4))
    ]


MASKS = {kept: masks_by_counting(kept) for kept in (1, 2, 3)}


def oracle(scores: list[list[float]], kept: int) -> list[list[bool]]:
    """The first of the best masks of each tile; sums are exact."""
    mask = [[False] * len(row) for row in scores]
    for top, left in itertools.product(range(0, len(scores), 4), range(0, len(scores[0]), 4)):
        places = list(itertools.product(range(top, top + 4), range(left, left + 4)))
        own = [scores[i][j] for i, j in places]
        sums = [math.fsum(itertools.compress(own, bits)) for bits in MASKS[kept]]
        for (i, j), bit in zip(places, MASKS[kept][sums.index(max(sums))], strict=True):
            mask[i][j] = bool(bit)
    return mask


def test_there_are_ninety_masks_of_two() -> None:
    assert [len(tiles.masks_of(kept)) for kept in (1, 2, 3)] == [24, 90, 24]


def test_a_tile_by_hand() -> None:
    """The third row by itself would keep 5 and 4, so that column 0 would have three entries."""
    scores = torch.tensor([[9, 8, 1, 0], [7, 6, 2, 0], [5, 1, 4, 3], [1, 1, 0, 2.0]])
    # 9 + 8 + 7 + 6 + 4 + 3 + 0 + 2 = 39. To keep 5 costs 7 in column 0, and gains 5 - 3 there.
    assert keep(scores).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_among_equal_scores_the_earlier_go() -> None:
    assert keep(torch.ones(4, 4)).int().tolist() == [
        [0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0],
    ]  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, int]:
    """Whole numbers, whose sums float32 has exactly: many ties, or few; negative ones, too."""
    rows, columns = 4 * draw(st.integers(1, 3)), 4 * draw(st.integers(1, 3))
    largest = draw(st.sampled_from([0, 1, 3, 2**20]))
    values = st.integers(-largest, largest).map(float)
    listed = draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(listed).reshape(rows, columns), draw(st.sampled_from([1, 2, 3]))


@settings(max_examples=200, deadline=None)
@given(cases())
def test_a_mask_is_the_first_of_the_best(case: tuple[Tensor, int]) -> None:
    scores, kept = case
    assert keep(scores, kept).tolist() == oracle(scores.tolist(), kept)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
def test_of_random_scores_none_keeps_more(seed: int, dtype: torch.dtype) -> None:
    scores = torch.rand(8, 12, generator=torch.Generator().manual_seed(seed)).to(dtype)
    mask, wide = keep(scores), scores.double()
    best = torch.tensor(oracle(wide.tolist(), 2))
    torch.testing.assert_close(wide[mask].sum(), wide[best].sum(), rtol=1e-6, atol=0)
    assert (mask.unflatten(1, (-1, 4)).sum(2) == 2).all()
    assert (mask.unflatten(0, (-1, 4)).sum(1) == 2).all()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.rand(16, 28, generator=torch.Generator().manual_seed(0))
    whole = keep(scores)
    monkeypatch.setattr(tiles, "CHUNK", 3)
    assert torch.equal(keep(scores), whole)


def test_sums_beyond_the_largest_number_are_refused() -> None:
    with pytest.raises(NumericError, match=r"^layer 1: scores of a tile add up [^\n]*$"):
        keep(torch.full((4, 4), 3e38))


@pytest.mark.parametrize("text", ["1of4x4", "2of4x4", "3of4x4"])
def test_the_pattern_is_written_as_it_is_read(text: str) -> None:
    pattern = parse_pattern(text)
    assert isinstance(pattern, NofM)
    assert (pattern.both, pattern.group, str(pattern)) == (True, 4, text)
    assert pattern.sparsity == 1 - int(text[0]) / 4
    assert str(block_pattern(0.25, pattern, "block 0")) == "3of4x4"


@pytest.mark.parametrize("text", ["2of4x2", "4of8x8", "2of4x8", "1of2x2"])
def test_other_tiles_are_refused(text: str) -> None:
    with pytest.raises(PatternError) as error:
        parse_pattern(text)
    line = f"pattern {text!r}: tiles are 4 by 4 only; write 2of4x4"
    assert str(error.value) == line


def test_both_dimensions_must_fit() -> None:
    check_fit((8, 12), BOTH, "input", "m")
    for shape, axis in (((8, 6), "input"), ((6, 8), "output")):
        with pytest.raises(PatternError, match=f"2of4x4 needs the {axis} dimension .* but it is 6"):
            check_fit(shape, BOTH, "input", "m")


UPDATES = ("sparsegpt", "admm", "alps")
REFINEMENTS = ("sparseswaps", "dsnot")


@pytest.mark.parametrize("function", [*UPDATES, *REFINEMENTS])
def test_methods_that_lay_groups_themselves_are_refused(
    function: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    """By the library before any work; by a config before the first job (tests/unit/bad_inputs)."""
    model, method = StreamedModel(tiny_model("llama"), torch.float32), make_method(function, {})
    with pytest.raises(PatternError) as error:
        prune(model, tokens, method, BOTH)
    does = "lay" if function in UPDATES else "refine"
    line = str(error.value)
    assert line.startswith(f"dass.pruning.methods.{function}:") and "\n" not in line
    assert f"cannot {does} groups along both dimensions (2of4x4); choose" in line
    check_groups(method, NofM(2, 4))


@pytest.mark.parametrize("function", ["magnitude", "wanda", "dass", "ria"])
def test_every_method_that_scores_gives_such_masks(
    function: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    """Of all three projections of every block, also where gate and up are one matrix."""
    for architecture in ("llama", "phi3"):
        model = StreamedModel(tiny_model(architecture), torch.float32)
        pruned = prune(model, tokens, make_method(function, {}), BOTH)
        assert set(pruned.sparsity.values()) == {0.5}
        for name, packed in pruned.masks.items():
            mask = unpack(packed, pruned.shapes[name])
            assert (mask.unflatten(1, (-1, 4)).sum(2) == 2).all(), name
            assert (mask.unflatten(0, (-1, 4)).sum(1) == 2).all(), name


def test_given_masks_must_have_groups_along_both() -> None:
    scores = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    check_groups(make_method("given", {"path": "masks"}), BOTH)
    check_pattern(keep(scores), BOTH, 0, "m")
    along_one = keep_mask(scores, NofM(2, 4), "row", "input")
    check_pattern(along_one, NofM(2, 4), 0, "m")
    with pytest.raises(PatternError, match="m: the given mask is not 2of4x4: 0 groups along the"):
        check_pattern(along_one, BOTH, 0, "m")
