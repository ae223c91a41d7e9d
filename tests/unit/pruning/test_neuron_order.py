"""Neurons permuted before they are grouped: the search, and a model from pruning to its export."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from dass.data.model_folder import SINGLE
from dass.errors import ConfigError, DataError, ModelError, NumericError
from dass.models.glu import GLU, find_glu, find_glus
from dass.models.neurons import moved, moves_of
from dass.models.streamed import StreamedModel
from dass.packed.model import pack_model
from dass.pruning import neuron_order
from dass.pruning.export import export_checkpoint
from dass.pruning.masks import keep_mask
from dass.pruning.method import Comparison
from dass.pruning.methods import make_method
from dass.pruning.neuron_order import find_order, gains_of, regroup
from dass.pruning.patterns import NofM, parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned import Pruned
from dass.pruning.pruned_file import PrunedFile, save_pruned, unpack
from dass.terms import NEURON_DIM, Role, Targets
from tests.conftest import EXPERTS, SUPPORTED, TinyModel, streamed_logits, whole_logits

ALONG = {"gate": Comparison("column", "output"), "up": Comparison("column", "output"),
         "down": Comparison("row", "input")}  # fmt: skip
"""As DaSS compares: all groups lie along the neurons."""
NAMES = {role: role for role in ALONG}


def kept_score(scores: Tensor, order: list[int], pattern: NofM) -> float:
    """What each group of consecutive neurons keeps of [neurons, entries], slowly."""
    rows = scores.double().tolist()
    total = 0.0
    for first in range(0, len(order), pattern.group):
        members = [rows[neuron] for neuron in order[first : first + pattern.group]]
        total += sum(sum(sorted(column)[-pattern.kept :]) for column in zip(*members, strict=True))
    return total


def weighed(matrices: list[Tensor], order: list[int], pattern: NofM) -> float:
    return sum(kept_score(one, order, pattern) / float(one.double().sum()) for one in matrices)


def exchanges(order: list[int], pattern: NofM) -> list[list[int]]:
    """Every order in which two neurons of two groups have changed places."""
    found = []
    for one, other in itertools.combinations(range(len(order)), 2):
        if one // pattern.group != other // pattern.group:
            new = list(order)
            new[one], new[other] = new[other], new[one]
            found.append(new)
    return found


@st.composite
def matrices(draw: st.DrawFn, size: int, ties: bool = False) -> list[Tensor]:
    """Up to three matrices [neurons, entries] of some groups, maybe of many equal scores."""
    neurons, seed = size * draw(st.integers(1, 5)), draw(st.integers(0, 999))
    generator = torch.Generator().manual_seed(seed)
    count, entries = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    drawn = [torch.rand(neurons, entries, generator=generator) ** 3 for _ in range(count)]
    return [(4 * one).round() if ties else one * 10.0 ** (4 * n) for n, one in enumerate(drawn)]


PATTERNS = [NofM(2, 4), NofM(1, 4), NofM(3, 4), NofM(4, 8), NofM(1, 2), NofM(2, 3)]


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from(PATTERNS), st.booleans())
def test_the_gain_of_every_exchange(data: st.DataObject, pattern: NofM, ties: bool) -> None:
    """Of two neurons, also where scores are equal, against the sums themselves."""
    scores = data.draw(matrices(pattern.group, ties))[0]
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(1))
    found = gains_of(order.view(1, -1, pattern.group), scores, 1.0, pattern.kept)[0]
    before = kept_score(scores, order.tolist(), pattern)
    for one, other in itertools.combinations(range(len(order)), 2):
        if one // pattern.group != other // pattern.group:
            new = order.clone()
            new[one], new[other] = order[other], order[one]
            gain = kept_score(scores, new.tolist(), pattern) - before
            assert float(found[one, other]) == pytest.approx(gain, abs=1e-4)
            assert found[one, other] == found[other, one]


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(PATTERNS), st.booleans())
def test_an_order_is_a_permutation_that_keeps_no_less(
    data: st.DataObject, pattern: NofM, ties: bool
) -> None:
    found = data.draw(matrices(pattern.group, ties).filter(lambda all_: all(map(torch.any, all_))))
    order = find_order(found, pattern)
    natural = list(range(len(order)))
    assert order.sort().values.tolist() == natural
    kept = weighed(found, order.tolist(), pattern)
    assert kept >= weighed(found, natural, pattern) - 1e-6
    assert torch.equal(find_order(found, pattern), order)
    for new in exchanges(order.tolist(), pattern):  # none is left that would be better
        assert weighed(found, new, pattern) <= kept + 1e-3


@pytest.mark.parametrize("pattern", [NofM(1, 2), NofM(1, 3), NofM(2, 3)], ids=str)
def test_of_two_small_groups_the_best_partition(pattern: NofM) -> None:
    """All partitions are one exchange apart, so that the search is exact."""
    for seed in range(20):
        scores = torch.rand(2 * pattern.group, 7, generator=torch.Generator().manual_seed(seed))
        neurons = set(range(len(scores)))
        partitions = [
            [*first, *sorted(neurons - set(first))]
            for first in itertools.combinations(range(len(scores)), pattern.group)
        ]
        best = max(kept_score(scores, order, pattern) for order in partitions)
        found = kept_score(scores, find_order([scores], pattern).tolist(), pattern)
        assert found == pytest.approx(best, rel=1e-5)


def test_of_eight_neurons_nearly_the_best_partition() -> None:
    """Of the 35 partitions into fours an exchange reaches 16, so that some are not found."""
    short = []
    for seed in range(50):
        scores = torch.rand(8, 7, generator=torch.Generator().manual_seed(seed))
        best = max(
            kept_score(scores, [0, *own, *sorted({*range(1, 8)} - {*own})], NofM(2, 4))
            for own in itertools.combinations(range(1, 8), 3)
        )
        found = kept_score(scores, find_order([scores], NofM(2, 4)).tolist(), NofM(2, 4))
        assert found <= best * (1 + 1e-6)
        short.append(1 - found / best)
    assert sum(one < 1e-6 for one in short) >= 40 and max(short) < 0.02


def test_an_order_by_hand() -> None:
    """Two large and two small neurons in one group leave no choice; one of each pair is better."""
    scores = torch.tensor([[9.0], [9], [1], [1]])
    order = find_order([scores], NofM(1, 2)).tolist()
    assert sorted(scores.flatten().tolist()[neuron] for neuron in order[:2]) == [1, 9]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.rand(256, 5, generator=torch.Generator().manual_seed(0))
    order = find_order([scores], NofM(2, 4))
    monkeypatch.setattr(neuron_order, "CHUNK", 1)
    assert torch.equal(find_order([scores], NofM(2, 4)), order)


def scores_of_glu(neurons: int, hidden: int, seed: int) -> dict[Role, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[Role, tuple[int, int]] = {
        "gate": (neurons, hidden), "up": (neurons, hidden), "down": (hidden, neurons),
    }  # fmt: skip
    return {role: torch.rand(shape, generator=generator) ** 2 for role, shape in shapes.items()}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(0, 99), st.sampled_from(["2of4", "4of8", "2of4x4", "1of4"]))
def test_masks_conform_in_the_order_and_keep_no_less(groups: int, seed: int, text: str) -> None:
    pattern = parse_pattern(text)
    assert isinstance(pattern, NofM)
    scores = scores_of_glu(groups * pattern.group, 8, seed)
    found = regroup(scores, ALONG, pattern, NAMES)
    shares = [0.0, 0.0]
    for role, mask in found.masks.items():
        laid = mask.index_select(NEURON_DIM[role], found.order.long())
        for along in (0, 1) if pattern.both else (NEURON_DIM[role],):
            counts = laid.unflatten(along, (-1, pattern.group)).sum(along + 1)
            assert bool((counts == pattern.kept).all())
        natural = keep_mask(scores[role], pattern, *ALONG[role])
        for place, one in enumerate((natural, mask)):
            share = float(scores[role][one].double().sum() / scores[role].double().sum())
            assert found.kept[role][place] == pytest.approx(share)
            shares[place] += share
    assert shares[1] >= shares[0] - 1e-12


def test_groups_along_the_inputs_stay_as_they_are() -> None:
    """As Wanda's of gate and up."""
    scores, pattern = scores_of_glu(32, 8, 0), NofM(2, 4)
    found = regroup(scores, dict.fromkeys(ALONG, Comparison("row", "input")), pattern, NAMES)
    for role in ("gate", "up"):
        assert torch.equal(found.masks[role], keep_mask(scores[role], pattern, "row", "input"))
        assert found.kept[role][0] == found.kept[role][1]
    assert found.kept["down"][1] > found.kept["down"][0]


def test_no_better_order_leaves_the_natural_one() -> None:
    scores = {role: torch.ones_like(one) for role, one in scores_of_glu(16, 8, 0).items()}
    scores["up"].zero_()  # of a sum of which there is no share
    found = regroup(scores, ALONG, NofM(2, 4), NAMES)
    assert found.order.tolist() == list(range(16))
    assert found.kept == {"gate": (0.5, 0.5), "up": (1, 1), "down": (0.5, 0.5)}


def test_scores_below_zero_are_refused() -> None:
    scores = scores_of_glu(8, 8, 0)
    scores["up"][3, 3] = -1
    with pytest.raises(NumericError, match=r"^up: has scores below zero, of which no share can be"):
        regroup(scores, ALONG, NofM(2, 4), NAMES)


# The same function ---------------------------------------------------------------------------


class MLP(nn.Module):
    """With biases, and a norm between, whose weights are per neuron."""

    def __init__(self, hidden: int, neurons: int, norm: bool) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(hidden, neurons), nn.Linear(hidden, neurons)
        self.down_proj = nn.Linear(neurons, hidden)
        self.norm = nn.RMSNorm(neurons) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.silu(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(self.norm(inner))  # type: ignore[no-any-return]


def block_of(mlp: nn.Module) -> tuple[nn.Module, GLU]:
    block = nn.ModuleDict({"mlp": mlp})
    return block, find_glu(block, "block 0")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.booleans(), st.integers(0, 99))
def test_permuted_neurons_compute_the_same(neurons: int, norm: bool, seed: int) -> None:
    torch.manual_seed(seed)
    block, glu = block_of(MLP(24, neurons, norm).double())
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    inputs, order = torch.randn(5, 24, dtype=torch.float64), torch.randperm(neurons)
    with torch.no_grad():
        wanted = block["mlp"](inputs)
        moves = moves_of(glu, block, order, "block 0")
        state = {n: moved(moves, n, tensor, None) for n, tensor in block.state_dict().items()}
        block.load_state_dict(state)
        torch.testing.assert_close(block["mlp"](inputs), wanted, rtol=1e-9, atol=1e-9)
    assert torch.equal(glu.down.weight, state["mlp.down_proj.weight"])


def test_neurons_of_unknown_parameters_are_refused() -> None:
    mlp = MLP(24, 16, norm=False)
    mlp.mixing = nn.Linear(16, 3)
    block, glu = block_of(mlp)
    with pytest.raises(
        ModelError, match=r"^block 0: how neurons lie in mlp\.mixing\.weight is not"
    ):
        moves_of(glu, block, torch.arange(16), "block 0")
    block, glu = block_of(MLP(16, 16, norm=True))  # a norm of which of the two?
    with pytest.raises(ModelError, match=r"mlp\.norm\.weight is not understood"):
        moves_of(glu, block, torch.arange(16), "block 0")


# Whole models --------------------------------------------------------------------------------

OTHER_NAMES = ["lfm2", "modernbert-decoder", "granitemoehybrid"]
"""Architectures whose projections are not called as most are."""


def permuted(
    folder: Path, tokens: Tensor, out: Path, method: str = "dass", pattern: str = "2of4",
    targets: Targets = "mlp", dtype: torch.dtype = torch.float32,
) -> tuple[Pruned, PrunedFile]:  # fmt: skip
    model, own = StreamedModel(folder, dtype), make_method(method, {})
    found = prune(model, tokens, own, parse_pattern(pattern), targets=targets, permute=True)
    save_pruned(out, found.masks, found.values, found.shapes, {"targets": targets}, found.orders)
    return found, PrunedFile(out)


def in_groups(folder: Path, pattern: NofM, axes: dict[Role, int]) -> bool:
    """Whether a folder's zeros lie in groups as they stand, along these dimensions."""
    model = StreamedModel(folder, torch.float32)
    fits = []
    for index in range(model.n_blocks):
        with model.block(index) as block:
            for projection in (one for glu in find_glus(block, "") for one in glu.projections):
                dim = axes[projection.role]
                groups = (projection.weight != 0).unflatten(dim, (-1, pattern.group))
                fits.append(bool((groups.sum(dim + 1) <= pattern.kept).all()))
    return all(fits)


@pytest.mark.parametrize("architecture", [*SUPPORTED, *OTHER_NAMES, *EXPERTS])
def test_from_pruning_to_a_reloaded_export(
    architecture: str, tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    """Separate, fused, with biases, experts of their own and as slices: the same logits."""
    folder = tiny_model(architecture)
    pruned, file = permuted(folder, tokens, tmp_path / "pruned")
    assert file.orders == pruned.orders.keys() == pruned.kept_shares.keys()
    for kept in pruned.kept_shares.values():
        natural, new = (sum(one[place] for one in kept.values()) for place in (0, 1))
        assert new > natural
    sparse = StreamedModel(folder, torch.float32, overlay=file)
    file.check_fits(sparse, {"weights": ""})
    export_checkpoint(folder, tmp_path / "pruned", tmp_path / "out", torch.float32)
    logits = whole_logits(tmp_path / "out", tokens)
    torch.testing.assert_close(logits, streamed_logits(sparse, tokens), rtol=1e-4, atol=1e-4)
    assert in_groups(tmp_path / "out", NofM(2, 4), NEURON_DIM)
    shapes = (
        {n: t.shape for n, t in load_file(f / SINGLE).items()} for f in (folder, tmp_path / "out")
    )
    assert next(shapes) == next(shapes)


@pytest.mark.parametrize(
    ("method", "pattern"), [("wanda", "2of4"), ("magnitude", "2of4x4"), ("ria", "4of8")]
)
def test_other_methods_and_patterns(
    method: str, pattern: str, tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    """All linear layers; attention has the masks that it has without."""
    folder, parsed = tiny_model("phi3"), parse_pattern(pattern)
    assert isinstance(parsed, NofM)
    pruned, file = permuted(folder, tokens, tmp_path / "pruned", method, pattern, "all")
    model = StreamedModel(folder, torch.float32)
    plain = prune(model, tokens, make_method(method, {}), parsed, targets="all")
    first = {name for name in plain.masks if ".layers.0." in name}
    differ = {n for n in first if not torch.equal(plain.masks[n], pruned.masks[n])}
    assert differ <= {n for n in first if ".mlp." in n} and any("down" in name for name in differ)
    export_checkpoint(folder, tmp_path / "pruned", tmp_path / "out", torch.float32)
    logits = whole_logits(tmp_path / "out", tokens)
    sparse = StreamedModel(folder, torch.float32, overlay=file)
    torch.testing.assert_close(logits, streamed_logits(sparse, tokens), rtol=1e-4, atol=1e-4)
    assert in_groups(tmp_path / "out", parsed, {"gate": 1, "up": 1, "down": 1})


def test_a_rerun_is_the_same_to_the_bit_and_unstructured_masks_stay(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    for place in "ab":
        permuted(tiny_model("qwen2_moe"), tokens, tmp_path / place)
    first, second = (load_file(tmp_path / place) for place in "ab")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    found, _ = permuted(tiny_model("llama"), tokens, tmp_path / "u50", pattern="u50")
    model = StreamedModel(tiny_model("llama"), torch.float32)
    plain = prune(model, tokens, make_method("dass", {}), parse_pattern("u50"))
    assert (found.orders, found.kept_shares, found.hash) == ({}, {}, plain.hash)


def test_an_export_can_be_packed(tiny_model: TinyModel, tokens: Tensor, tmp_path: Path) -> None:
    folder = tiny_model("mistral")
    permuted(folder, tokens, tmp_path / "pruned", dtype=torch.bfloat16)
    export_checkpoint(folder, tmp_path / "pruned", tmp_path / "out", torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16).eval()
    wanted = whole_logits(tmp_path / "out", tokens, torch.bfloat16)
    assert pack_model(model) == {}
    with torch.inference_mode():
        assert torch.equal(model(input_ids=tokens, use_cache=False).logits, wanted)


@pytest.mark.parametrize(
    ("method", "arguments", "line"),
    [
        (
            "sparsegpt",
            {},
            r"sparsegpt:SparseGPT does not only score weights, so that neurons cannot",
        ),
        (
            "sparseswaps",
            {"start": {"function": "dass"}},
            r"SparseSwaps does not only score weights",
        ),
    ],
)
def test_methods_that_do_not_only_score_are_refused(
    method: str, arguments: dict[str, object], line: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    """By the library before any work; by a config before the first job (tests/unit/bad_inputs)."""
    model = StreamedModel(tiny_model("llama"), torch.float32)
    with pytest.raises(ConfigError, match=line):
        prune(model, tokens, make_method(method, arguments), NofM(2, 4), permute=True)


def test_a_damaged_order(tiny_model: TinyModel, tokens: Tensor, tmp_path: Path) -> None:
    folder = tiny_model("llama")
    found, _ = permuted(folder, tokens, tmp_path / "pruned")
    name = min(found.orders)

    def lying(order: Tensor, glu: str = name) -> PrunedFile:
        orders = {glu: order}
        save_pruned(tmp_path / "lying", found.masks, {}, found.shapes, {}, orders)
        return PrunedFile(tmp_path / "lying")

    order = found.orders[name]
    with pytest.raises(DataError, match=rf"damaged pruned file \(order of {name}\); prune again"):
        lying(order.clone().index_fill_(0, torch.tensor([3]), 0)).order(name)
    with pytest.raises(DataError, match=rf"damaged pruned file \(order of {name}\); prune again"):
        lying(order.long())
    layers, prefix = (model := StreamedModel(folder, torch.float32)).layers, model.prefix
    assert lying(order).moves(layers, prefix).keys() >= {f"{name}.down_proj.weight"}
    for wrong in (lying(order, "model.layers.9.mlp"), lying(torch.arange(8, dtype=torch.int32))):
        with pytest.raises(
            ModelError, match=r"orders the neurons of model\.layers\.\d\.mlp, which"
        ):
            wrong.moves(layers, prefix)


def test_masks_are_kept_in_the_models_own_order(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    found, file = permuted(tiny_model("llama"), tokens, tmp_path / "pruned")
    for glu, stored in found.orders.items():
        order = file.order(glu)
        assert order is not None and torch.equal(order, stored.long())
        for role, dim in NEURON_DIM.items():
            name = f"{glu}.{role}_proj.weight"
            own = unpack(found.masks[name], found.shapes[name])
            grouped = own.index_select(dim, order).unflatten(dim, (-1, 4)).sum(dim + 1)
            assert bool((grouped == 2).all())
