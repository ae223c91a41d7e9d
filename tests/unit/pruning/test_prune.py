"""Pruning block by block against plain passes over the whole model, and what must not change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from dass.data.model_folder import SINGLE
from dass.errors import ConfigError, ModelError, NumericError, PatternError
from dass.models import batches
from dass.models.glu import find_glu
from dass.models.streamed import StreamedModel
from dass.pruning.export import export_checkpoint
from dass.pruning.masks import keep_mask
from dass.pruning.method import Comparison, Method, Need, Statistics
from dass.pruning.methods import make_method
from dass.pruning.methods.sparsegpt import SparseGPT
from dass.pruning.patterns import Axis, NofM, Pattern, Unstructured, parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned import Pruned
from dass.pruning.pruned_file import mask_hash, save_pruned, unpack
from dass.terms import Propagation, Role
from tests.conftest import SUPPORTED, TinyModel

METHODS = ["magnitude", "wanda", "dass", "sparsegpt"]


def pruned_by(
    folder: Path, tokens: Tensor, method: str, pattern: str, dtype: torch.dtype = torch.float32,
    propagation: Propagation = "pruned",
) -> Pruned:  # fmt: skip
    model = StreamedModel(folder, dtype)
    chosen = make_method(method, {}), parse_pattern(pattern)
    return prune(model, tokens, *chosen, propagation=propagation)


def masks_of(pruned: Pruned) -> dict[str, Tensor]:
    return {name: unpack(packed, pruned.shapes[name]) for name, packed in pruned.masks.items()}


# The plain way -------------------------------------------------------------------------------


def record_inputs(model: Any, tokens: Tensor, gate: Any, down: Any) -> tuple[Tensor, Tensor]:
    """One pass of all windows through the whole model: X and Z of one block, float64."""
    seen: dict[str, Tensor] = {}
    hooks = [
        gate.register_forward_pre_hook(lambda _, args: seen.__setitem__("x", args[0])),
        down.register_forward_pre_hook(lambda _, args: seen.__setitem__("z", args[0])),
    ]
    with torch.no_grad():
        model(input_ids=tokens)
    for hook in hooks:
        hook.remove()
    return seen["x"].flatten(0, 1).double(), seen["z"].flatten(0, 1).double()


def plain_score(method: str, role: Role, weight: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """The table of the methods, literally, in float64; DaSS of gate and up is transposed."""
    w = weight.double().abs()
    if method == "wanda" or role == "down":
        return w * (z if role == "down" else x).norm(dim=0)
    return (w * z.norm(dim=0).sqrt().unsqueeze(1)).t()


def plain_keep(scores: Tensor, pattern: Pattern) -> Tensor:
    """Sort within each row, or within each M of a row, and drop the lowest."""
    if isinstance(pattern, NofM):
        groups = scores.reshape(-1, pattern.group)
        drop = pattern.group - pattern.kept
    else:
        groups, drop = scores, int(scores.shape[1] * pattern.percent / 100)
    keep = torch.ones_like(groups, dtype=torch.bool)
    keep.scatter_(1, groups.argsort(dim=1, stable=True)[:, :drop], False)
    return keep.reshape(scores.shape)


def plain_mask(
    method: str, role: Role, weight: Tensor, x: Tensor, z: Tensor, pattern: Pattern
) -> Tensor:
    """Mask one projection in place. (SparseGPT's own steps have their oracle in test_methods.)"""
    if method == "sparsegpt":
        statistics = Statistics(
            input_gram=(x.t() @ x).float(), intermediate_gram=(z.t() @ z).float()
        )
        updated, keep = SparseGPT().update(role, weight, statistics, pattern, role)
        weight.copy_(updated)
        return keep
    scores = plain_score(method, role, weight, x, z)
    keep = plain_keep(scores, pattern)
    if method == "dass" and role != "down":
        keep = keep.t()
    weight.mul_(keep)
    return keep


def plain_prune(
    folder: Path, tokens: Tensor, method: str, pattern: Pattern, propagation: Propagation
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """For each block: run the whole model, already pruned below it or not, and prune it.

    Returns:
        (masks, all weights afterwards), by parameter name.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    masks: dict[str, Tensor] = {}

    def inputs(mlp: Any) -> tuple[Tensor, Tensor]:
        first = mlp.gate_up_proj if hasattr(mlp, "gate_up_proj") else mlp.gate_proj
        return record_inputs(model, tokens, first, mlp.down_proj)

    of_dense = [inputs(layer.mlp) for layer in model.model.layers]
    for index, layer in enumerate(model.model.layers):
        mlp, name = layer.mlp, f"model.layers.{index}.mlp"
        fused = hasattr(mlp, "gate_up_proj")
        x, z = inputs(mlp) if propagation == "pruned" else of_dense[index]
        if fused:
            gate, up = mlp.gate_up_proj.weight.data.chunk(2)
        else:
            gate, up = mlp.gate_proj.weight.data, mlp.up_proj.weight.data
        keep = [
            plain_mask(method, role, weight, x, z, pattern)
            for role, weight in (("gate", gate), ("up", up), ("down", mlp.down_proj.weight.data))
        ]  # type: ignore[arg-type]
        if fused:
            masks[f"{name}.gate_up_proj.weight"] = torch.cat(keep[:2])
        else:
            masks[f"{name}.gate_proj.weight"], masks[f"{name}.up_proj.weight"] = keep[:2]
        masks[f"{name}.down_proj.weight"] = keep[2]
    return masks, model.state_dict()


@pytest.mark.parametrize("pattern", ["u50", "u30", "2of4", "4of8"])
@pytest.mark.parametrize("method", ["wanda", "dass", "sparsegpt"])
@pytest.mark.parametrize("architecture", ["llama", "gemma", "phi3", "mistral"])
def test_pruning_is_what_plain_passes_over_the_whole_model_give(
    architecture: str, method: str, pattern: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    folder = tiny_model(architecture)
    # Of patterns that are alike, one is propagated the other way.
    propagation: Propagation = "dense" if pattern in ("u30", "4of8") else "pruned"
    expected, weights = plain_prune(folder, tokens, method, parse_pattern(pattern), propagation)
    pruned = pruned_by(folder, tokens, method, pattern, propagation=propagation)
    masks = masks_of(pruned)
    assert set(masks) == set(expected)
    for name, mask in expected.items():
        assert torch.equal(masks[name], mask), name
    assert set(pruned.values) == (set(masks) if method == "sparsegpt" else set())
    for name, values in pruned.values.items():
        torch.testing.assert_close(values, weights[name][masks[name]], rtol=1e-3, atol=1e-4)


def test_the_order_of_pruning_matters_here(tiny_model: TinyModel, tokens: Tensor) -> None:
    """Scoring every block on the dense model's activations gives other masks (else the test above
    proves nothing about being sequential)."""
    folder = tiny_model("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    mlp = model.model.layers[2].mlp
    x, z = record_inputs(model, tokens, mlp.gate_proj, mlp.down_proj)
    dense = plain_keep(plain_score("wanda", "down", mlp.down_proj.weight.data, x, z), NofM(2, 4))
    masks = masks_of(pruned_by(folder, tokens, "wanda", "2of4"))
    assert not torch.equal(masks["model.layers.2.mlp.down_proj.weight"], dense)


@pytest.mark.parametrize("pattern", ["u50", "2of4"])
def test_magnitude_by_sorting(pattern: str, tiny_model: TinyModel, tokens: Tensor) -> None:
    folder = tiny_model("phi3")
    masks = masks_of(pruned_by(folder, tokens, "magnitude", pattern))
    weights = load_file(folder / SINGLE)
    for name, mask in masks.items():
        parts = weights[name].chunk(2) if "gate_up" in name else [weights[name]]
        shaped = [w.abs().reshape(1, -1) if pattern == "u50" else w.abs() for w in parts]
        keep = [plain_keep(scores, parse_pattern(pattern)) for scores in shaped]
        expected = [k.reshape(w.shape) for k, w in zip(keep, parts, strict=True)]
        assert torch.equal(mask, torch.cat(expected)), name


def test_magnitude_runs_no_token(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a token was run")

    model = StreamedModel(tiny_model("llama"), torch.float32)
    for layer in model.layers:
        monkeypatch.setattr(type(layer), "forward", never)
    monkeypatch.setattr(model, "block_inputs", never)
    windows = torch.zeros(0, 8, dtype=torch.int64)
    pruned = prune(model, windows, make_method("magnitude", {}), parse_pattern("2of4"))
    assert set(pruned.sparsity.values()) == {0.5}
    with pytest.raises(AssertionError, match="a token was run"):
        prune(model, windows + 5, make_method("wanda", {}), parse_pattern("2of4"))


# What a pruned model is ----------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["u50", "2of4"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [(architecture, torch.float32) for architecture in SUPPORTED]
    + [(architecture, torch.bfloat16) for architecture in ("llama", "gemma", "phi3")],
)
def test_only_the_glu_changes_and_only_as_the_mask_says(
    architecture: str,
    method: str,
    pattern: str,
    dtype: torch.dtype,
    tiny_model: TinyModel,
    tokens: Tensor,
    tmp_path: Path,
) -> None:
    """Every tensor of the exported checkpoint against the dense one, bit by bit."""
    folder = tiny_model(architecture)
    model = StreamedModel(folder, dtype)
    glu = {model.parameter_name(i, name) for i in range(3) for name in model.glu_parameters}
    pruned = prune(model, tokens, make_method(method, {}), parse_pattern(pattern))
    masks = masks_of(pruned)
    save_pruned(tmp_path / "pruned", pruned.masks, pruned.values, pruned.shapes, {})
    export_checkpoint(folder, tmp_path / "pruned", tmp_path / "out", dtype)
    dense = {name: t.to(dtype) for name, t in load_file(folder / SINGLE).items()}
    sparse = load_file(tmp_path / "out" / SINGLE)
    assert set(sparse) == set(dense)
    assert set(masks) == glu and len(glu) == (6 if architecture == "phi3" else 9)
    for name, tensor in dense.items():
        if name not in glu:
            assert torch.equal(sparse[name], tensor), name
            continue
        assert (sparse[name][~masks[name]] == 0).all()
        kept = sparse[name][masks[name]]
        if method == "sparsegpt":
            assert torch.equal(kept, pruned.values[name])
            assert not torch.equal(kept, tensor[masks[name]])
        else:
            assert torch.equal(kept, tensor[masks[name]])


@pytest.mark.parametrize("method", METHODS)
def test_pruning_again_gives_the_same_bits(
    method: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    """On the same streamed model, whose weights the first time must not have changed, and anew."""
    model = StreamedModel(tiny_model("llama"), torch.float32)
    made = make_method(method, {})
    first = prune(model, tokens, made, parse_pattern("2of4"))
    second = prune(model, tokens, made, parse_pattern("2of4"))
    third = pruned_by(tiny_model("llama"), tokens, method, "2of4")
    for again in (second, third):
        assert again.hash == first.hash
        assert set(again.masks) == set(first.masks)
        assert all(torch.equal(again.masks[n], m) for n, m in first.masks.items())
        assert all(torch.equal(again.values[n], v) for n, v in first.values.items())


@pytest.mark.parametrize("method", ["wanda", "dass", "sparsegpt"])
@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma2"])
def test_the_batch_size_does_not_change_masks(
    architecture: str,
    method: str,
    tiny_model: TinyModel,
    tokens: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All six windows at once; four and two; one by one."""
    masks = []
    for in_flight in (4096, 80, 1):
        monkeypatch.setattr(batches, "TOKENS_IN_FLIGHT", {"cpu": in_flight})
        masks.append(masks_of(pruned_by(tiny_model(architecture), tokens, method, "2of4")))
    for name, mask in masks[0].items():
        assert torch.equal(masks[1][name], mask), name
        assert torch.equal(masks[2][name], mask), name


@pytest.mark.parametrize(
    ("pattern", "shares"),
    [("2of4", {0.5}), ("1of4", {0.75}), ("u50", {0.5}), ("u30", {9 / 32, 19 / 64})],
)
def test_sparsity_is_exact(
    pattern: str, shares: set[float], tiny_model: TinyModel, tokens: Tensor
) -> None:
    """DaSS: 64 entries in a column of gate and up, and in a row of down; Wanda: 32 and 64."""
    pruned = pruned_by(tiny_model("llama"), tokens, "wanda", pattern)
    assert set(pruned.sparsity.values()) == shares
    assert set(pruned_by(tiny_model("llama"), tokens, "dass", pattern).sparsity.values()) <= shares
    ungrouped = [1 - float(mask.float().mean()) for mask in masks_of(pruned).values()]
    assert pruned.mean_sparsity == pytest.approx(sum(ungrouped) / len(ungrouped))
    assert pruned.hash == mask_hash(pruned.masks, pruned.masks.__getitem__)
    assert set(pruned.shapes) == set(pruned.masks) == set(pruned.sparsity)


def test_dass_groups_lie_along_the_output_of_gate_and_up(
    tiny_model: TinyModel, tokens: Tensor
) -> None:
    masks = masks_of(pruned_by(tiny_model("llama"), tokens, "dass", "2of4"))
    for name, mask in masks.items():
        along_in = (mask.unflatten(1, (-1, 4)).sum(2) == 2).all()
        along_out = (mask.unflatten(0, (-1, 4)).sum(1) == 2).all()
        assert bool(along_in) == ("down_proj" in name), name
        assert bool(along_out) == ("down_proj" not in name), name


def test_the_means_weigh_matrices_by_their_size() -> None:
    pruned = Pruned(shapes={"a": (2, 2), "b": (4, 3)}, sparsity={"a": 1.0, "b": 0.5})
    assert pruned.mean_sparsity == (4 + 6) / 16


def test_seconds_are_of_every_stage(tiny_model: TinyModel, tokens: Tensor) -> None:
    seconds = pruned_by(tiny_model("llama"), tokens, "wanda", "2of4").seconds
    assert set(seconds) == {"loading", "statistics", "masks", "replay", "saving", "total"}
    parts = sum(value for stage, value in seconds.items() if stage != "total")
    assert 0 < parts <= seconds["total"] + 0.01


# What goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "pattern", "says"),
    [
        *(
            (method, pattern, "the input dimension to be a multiple of {}, but it is 32")
            for method in METHODS if method != "dass" for pattern in ("2of5", "16of64")
        ),
        ("dass", "2of5", "the output dimension to be a multiple of {}, but it is 64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_groups_that_do_not_fit_are_refused_before_any_work(
    architecture: str,
    method: str,
    pattern: str,
    says: str,
    tiny_model: TinyModel,
    tokens: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 divides the intermediate size but not the hidden size, which DaSS need not ask for."""
    model = StreamedModel(tiny_model(architecture), torch.float32)
    monkeypatch.setattr(model, "block", None)
    monkeypatch.setattr(model, "block_inputs", None)
    with pytest.raises(PatternError) as error:
        prune(model, tokens, make_method(method, {}), parse_pattern(pattern))
    line = str(error.value)
    assert line.startswith(f"{architecture}, block 0, mlp.gate_")
    assert f"{pattern} needs {says.format(pattern.partition('of')[2])};" in line
    assert "\n" not in line


@pytest.mark.parametrize("change", ["experts", "narrower"])
def test_a_later_block_that_cannot_be_pruned_is_noticed_before_any_work(
    change: str, tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some models begin with a dense block and go on with experts, or vary in size."""
    model = StreamedModel(tiny_model("llama"), torch.float32)
    monkeypatch.setattr(model, "block", None)
    if change == "experts":
        model.layers[2].mlp = torch.nn.ModuleDict({"experts": torch.nn.Linear(2, 2)})
    else:
        model.layers[2].mlp.gate_proj = torch.nn.Linear(32, 62)
        model.layers[2].mlp.up_proj = torch.nn.Linear(32, 62)
        model.layers[2].mlp.down_proj = torch.nn.Linear(62, 32)
    error = ModelError if change == "experts" else PatternError
    with pytest.raises(error, match=r"^llama, block 2"):
        prune(model, tokens, make_method("dass", {}), parse_pattern("2of4"))


def damaged(source: Path, target: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """A copy of a model folder whose tensors were changed."""
    folder = Path(shutil.copytree(source, target))
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["mlp.up_proj", "self_attn.q_proj", "input_layernorm"])
def test_weights_that_are_not_finite_are_refused(
    method: str, where: str, tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    name = f"model.layers.1.{where}.weight"

    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[7] = float("nan")

    folder = damaged(tiny_model("llama"), tmp_path / "broken", change)
    with pytest.raises(NumericError, match=rf"{name} holds NaN") as error:
        pruned_by(folder, tokens, method, "2of4")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["wanda", "dass", "sparsegpt"])
@pytest.mark.parametrize("where", ["self_attn.o_proj", "mlp.down_proj"])
def test_activations_that_overflow_are_refused(
    method: str, where: str, tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[f"model.layers.0.{where}.weight"].fill_(3e38)

    folder = damaged(tiny_model("llama"), tmp_path / "broken", change)
    with pytest.raises(NumericError) as error:
        pruned_by(folder, tokens, method, "2of4")
    assert "\n" not in str(error.value)


@dataclass(frozen=True)
class Custom:
    """An update method that returns what it is told to."""

    mask: Callable[[Tensor], Tensor]
    change: Callable[[Tensor], Tensor] = lambda weight: weight

    needs: ClassVar[frozenset[Need]] = frozenset()

    def comparison(self, role: Role) -> Comparison:
        return Comparison("matrix", "input")

    def update(
        self, role: Role, weight: Tensor, statistics: Statistics, pattern: Pattern, name: str
    ) -> tuple[Tensor, Tensor]:
        return self.change(weight), self.mask(weight)


def half(weight: Tensor) -> Tensor:
    return torch.arange(weight.numel()).reshape(weight.shape) % 4 < 2


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (Custom(lambda w: torch.ones_like(w, dtype=torch.bool)), "sparsity 0.0000"),
        (Custom(lambda w: torch.zeros_like(w, dtype=torch.bool)), "sparsity 1.0000"),
        (Custom(half, lambda w: w * float("nan")), "not finite"),
    ],
)
def test_a_method_that_does_not_do_its_work_is_noticed(
    method: Method, says: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    with pytest.raises(NumericError, match=rf"^model\.layers\.0\.mlp\.gate_proj.*{says}"):
        prune(model, tokens, method, parse_pattern("2of4"))


def test_weights_that_an_update_leaves_behind_the_mask_are_not_used(
    tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next blocks must see what the pruned file will hold: zeros."""
    seen: list[Tensor] = []
    monkeypatch.setattr(
        "dass.pruning.prune._advance",
        lambda _, block, *__: seen.extend(
            p.weight.clone() for p in find_glu(block, "").projections
        ),
    )
    model = StreamedModel(tiny_model("llama"), torch.float32)
    prune(model, tokens, Custom(half, lambda w: w + 1), parse_pattern("2of4"))
    assert len(seen) == 9
    assert all(((w != 0) == half(w)).all() for w in seen)


def test_statistics_that_a_score_lacks_are_a_fault_of_the_method(
    tiny_model: TinyModel, tokens: Tensor
) -> None:
    class Greedy:
        needs: ClassVar[frozenset[Need]] = frozenset({"input_norm"})

        def comparison(self, role: Role) -> Comparison:
            return Comparison("row", "input")

        def score(self, role: Role, weight: Tensor, statistics: Statistics) -> Tensor:
            return weight.abs() * statistics.get("intermediate_norm")

    model = StreamedModel(tiny_model("llama"), torch.float32)
    said = r"score\(\) of method .*Greedy failed \(LookupError: intermediate_norm was not collected"
    with pytest.raises(ConfigError, match=said):
        prune(model, tokens, Greedy(), Unstructured(parse_pattern("u50").percent))  # type: ignore[union-attr]


def odd_model(folder: Path) -> None:
    """Hidden 36, intermediate 64: groups of 8 fit gate and up along their output only."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128, hidden_size=36, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=3, num_key_value_heads=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("method", "fits"),
    [("dass", True), ("wanda", False), ("magnitude", False), ("sparsegpt", False)],
)
def test_m_has_to_divide_what_the_methods_groups_lie_along(
    method: str, fits: bool, tmp_path: Path, tokens: Tensor
) -> None:
    odd_model(tmp_path / "odd")
    if fits:
        pruned = pruned_by(tmp_path / "odd", tokens, method, "4of8")
        assert set(pruned.sparsity.values()) == {0.5}
        return
    with pytest.raises(PatternError) as error:
        pruned_by(tmp_path / "odd", tokens, method, "4of8")
    assert str(error.value).startswith(
        "odd, block 0, mlp.gate_proj.weight: pattern 4of8 needs the input dimension to be a "
        "multiple of 8, but it is 36"
    )
    pruned_by(tmp_path / "odd", tokens, method, "2of4")


@pytest.mark.parametrize("axis", ["output", "input"])
def test_an_update_method_declares_its_axis_too(axis: Axis, tmp_path: Path, tokens: Tensor) -> None:
    """Of gate and up; down's groups lie along its input of 64 in both cases."""

    class Across:
        needs: ClassVar[frozenset[Need]] = frozenset()

        def comparison(self, role: Role) -> Comparison:
            return Comparison("matrix", "input" if role == "down" else axis)

        def update(
            self, role: Role, weight: Tensor, statistics: Statistics, pattern: Pattern, name: str
        ) -> tuple[Tensor, Tensor]:
            mask = keep_mask(weight.abs(), pattern, *self.comparison(role))
            return weight * 2, mask

    odd_model(tmp_path / "odd")
    model = StreamedModel(tmp_path / "odd", torch.float32)
    if axis == "input":
        with pytest.raises(PatternError, match="needs the input dimension to be a multiple of 8"):
            prune(model, tokens, Across(), parse_pattern("4of8"))
        return
    pruned = prune(model, tokens, Across(), parse_pattern("4of8"))
    assert set(pruned.sparsity.values()) == {0.5}
