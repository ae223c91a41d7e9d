"""Pruning attention: against transformers' own modules and hooks, and what must not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from dass.data.model_folder import SINGLE
from dass.errors import ConfigError, ModelError, PatternError
from dass.evaluation.block_errors import block_errors, kept_shares
from dass.models import batches
from dass.models.attention import AttentionMemory
from dass.models.batches import batches_of
from dass.models.streamed import StreamedModel
from dass.models.targets import BlockTargets, find_attention_layers, find_targets, targets_of
from dass.pruning import prune as pruning
from dass.pruning.block_statistics import BlockStatistics
from dass.pruning.export import export_checkpoint
from dass.pruning.given_masks import given_masks
from dass.pruning.method import Comparison, Need, Statistics, UpdateMethod
from dass.pruning.method_calls import mask_of, update_of
from dass.pruning.methods import make_method
from dass.pruning.patterns import NofM, Pattern, parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned import Pruned
from dass.pruning.pruned_file import PrunedFile, save_pruned, unpack
from dass.pruning.resume import BlockCheckpoints
from dass.terms import Propagation, Role, Targets
from tests.conftest import (
    SUPPORTED,
    TinyModel,
    build_model,
    streamed_logits,
    whole_logits,
)
from tests.unit.pruning.test_methods import obs

SEPARATE = ["q_proj", "k_proj", "v_proj", "o_proj"]
NAMES: dict[str, list[str]] = {"phi3": ["o_proj", *["qkv_proj"] * 3]}
"""The linear layers of attention where they are not four, in their order."""


def pruned_by(
    folder: Path, tokens: Tensor, method: str, pattern: str, targets: Targets,
    propagation: Propagation = "pruned", checkpoints: BlockCheckpoints | None = None,
    arguments: dict[str, Any] | None = None,
) -> Pruned:  # fmt: skip
    chosen = make_method(method, arguments or {}), parse_pattern(pattern)
    model = StreamedModel(folder, torch.float32)
    return prune(model, tokens, *chosen, checkpoints, propagation, targets)


def masks_of(pruned: Pruned) -> dict[str, Tensor]:
    return {name: unpack(packed, pruned.shapes[name]) for name, packed in pruned.masks.items()}


# What is found -----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_the_layers_of_attention(architecture: str) -> None:
    """Views of q, k, v and o that make up all linear layers of attention, and nothing else."""
    block = build_model(architecture).model.layers[1]
    found = find_attention_layers(block, "here")
    names = [one.parameter.split(".")[1] for one in found]
    assert sorted(names) == sorted(NAMES.get(architecture, SEPARATE))
    assert {one.role for one in found} == {"linear"}
    weights = {n: p for n, p in block.self_attn.named_parameters() if p.dim() == 2}
    assert sum(one.weight.numel() for one in found) == sum(p.numel() for p in weights.values())
    for one in found:
        assert one.weight.untyped_storage().data_ptr() == (
            block.get_parameter(one.parameter).untyped_storage().data_ptr()
        )


def test_a_fused_layer_is_parted_as_the_model_parts_it() -> None:
    """Four heads of 8 are q's rows, and two each k's and v's."""
    block = build_model("phi3").model.layers[0]
    rows = {one.name: one.rows for one in find_attention_layers(block, "here")}
    assert rows == {
        "self_attn.o_proj.weight": slice(None),
        "self_attn.qkv_proj.weight (rows 0 to 31)": slice(0, 32),
        "self_attn.qkv_proj.weight (rows 32 to 47)": slice(32, 48),
        "self_attn.qkv_proj.weight (rows 48 to 63)": slice(48, 64),
    }


def test_a_fused_layer_of_another_form_is_one_matrix() -> None:
    attention = nn.ModuleDict({"qkv_proj": nn.Linear(8, 24), "out_proj": nn.Linear(8, 8)})
    block = nn.ModuleDict({"self_attn": attention})
    assert [one.rows for one in find_attention_layers(block, "b")] == [slice(None)] * 2


@pytest.mark.parametrize(
    ("architecture", "with_attention"),
    [("lfm2", [1]), ("qwen3_5_text", [1]), ("granitemoehybrid", [1]), ("minicpm3", [0, 1, 2])],
)
def test_blocks_of_another_kind_have_nothing(architecture: str, with_attention: list[int]) -> None:
    """Convolutions, recurrences and linear attention are no self attention."""
    layers = list(build_model(architecture).model.layers)
    found = targets_of(layers, "m", "attention")
    assert [n for n, one in enumerate(found) if one.linears] == with_attention
    assert all(not one.glus for one in found)
    both = targets_of(layers, "m", "all")
    assert [one.linears for one in both] == [one.linears for one in found]
    assert all(len(one.glus) == 1 for one in both)


def test_a_model_without_attention_is_refused_before_any_work(
    tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dass.pruning.prune.batches_of", lambda *_: pytest.fail("work"))
    folder = tiny_model("recurrent_gemma")
    for targets in ("attention", "all"):
        said = (
            r"^recurrent_gemma \(RecurrentGemmaDecoderLayer\): no block has a self attention of "
            rf"linear layers that `targets: {targets}` could prune; set `targets: mlp`$"
        )
        with pytest.raises(ModelError, match=said):
            pruned_by(folder, tokens, "wanda", "u50", targets)  # type: ignore[arg-type]


def test_several_attentions_are_refused() -> None:
    two = nn.ModuleDict({"self_attn": nn.Linear(2, 2), "cross_attn": nn.Linear(2, 2)})
    with pytest.raises(ModelError, match=r"^b: has several attentions \(self_attn, cross_attn\)"):
        find_targets(two, "b", "attention")
    assert find_targets(two, "b", "mlp") == BlockTargets((), ())


# Against plain passes over the whole model -------------------------------------------------------


def parts_of(layer: nn.Linear, name: str, block: Any) -> list[Tensor]:
    """The matrices that a layer's rows are, by the sizes of the config."""
    if name.endswith("qkv_proj"):
        heads = block.self_attn.config
        size = block.self_attn.head_dim
        keys = heads.num_key_value_heads * size
        return list(layer.weight.data.split([heads.num_attention_heads * size, keys, keys]))
    return (
        list(layer.weight.data.chunk(2)) if name.endswith("gate_up_proj") else [layer.weight.data]
    )


def is_wanted(name: str, targets: Targets) -> bool:
    kinds = {"mlp": ("mlp",), "attention": ("self_attn",), "all": ("mlp", "self_attn")}
    return any(kind in name for kind in kinds[targets])


def keep_rows(scores: Tensor, pattern: Pattern) -> Tensor:
    """Sort within each row, or within each M of a row, and drop the lowest."""
    drop = int(scores.shape[1] * (0 if isinstance(pattern, NofM) else pattern.percent) / 100)
    groups = scores
    if isinstance(pattern, NofM):
        groups, drop = scores.reshape(-1, pattern.group), pattern.group - pattern.kept
    keep = torch.ones_like(groups, dtype=torch.bool)
    return keep.scatter_(1, groups.argsort(dim=1, stable=True)[:, :drop], False).reshape(
        scores.shape
    )


def flat(x: Tensor) -> Tensor:
    """float64 [tokens, channels]."""
    return x.flatten(0, -2).double()


def wanda(weight: Tensor, x: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    keep = keep_rows(weight.double().abs() * x.norm(dim=0), pattern)
    return weight * keep, keep


def magnitude(weight: Tensor, _x: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    scores = weight.abs() if isinstance(pattern, NofM) else weight.abs().reshape(1, -1)
    keep = keep_rows(scores, pattern).reshape(weight.shape)
    return weight * keep, keep


def sparsegpt(weight: Tensor, x: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    updated, keep = obs(weight, x, pattern, 0.01, 128)
    return updated.to(weight), keep


def inputs_of(model: Any, part: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    """One forward of the whole model: what went into each linear layer of a part of it, by name."""
    seen: dict[str, Tensor] = {}

    def noting(name: str) -> Callable[..., None]:
        return lambda _layer, args: seen.__setitem__(name, args[0])

    layers = [(name, one) for name, one in part.named_modules() if isinstance(one, nn.Linear)]
    hooks = [one.register_forward_pre_hook(noting(name)) for name, one in layers]
    with torch.no_grad():
        model(input_ids=tokens, use_cache=False)
    for hook in hooks:
        hook.remove()
    return seen


Rule = Callable[[Tensor, Tensor, Pattern], tuple[Tensor, Tensor]]


def plain_prune(
    folder: Path, tokens: Tensor, rule: Rule, pattern: str, targets: Targets,
    propagation: Propagation = "pruned",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # fmt: skip
    """For each block: hooks on its linear layers, one forward of the whole model, then prune it.

    Returns:
        (masks, all weights afterwards), by parameter name.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    dense = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    masks = {}
    for index, layer in enumerate(model.model.layers):
        source = layer if propagation == "pruned" else dense.model.layers[index]
        seen = inputs_of(model if propagation == "pruned" else dense, source, tokens)
        for name, one in layer.named_modules():
            if isinstance(one, nn.Linear) and is_wanted(name, targets):
                keeps = []
                for part in parts_of(one, name, layer):
                    updated, keep = rule(part.clone(), flat(seen[name]), parse_pattern(pattern))
                    part.copy_(updated)
                    keeps.append(keep)
                masks[f"model.layers.{index}.{name}.weight"] = torch.cat(keeps)
    return masks, model.state_dict()


RULES: dict[str, Rule] = {"wanda": wanda, "magnitude": magnitude, "sparsegpt": sparsegpt}


@pytest.mark.parametrize("targets", ["attention", "all"])
@pytest.mark.parametrize(
    ("method", "pattern", "propagation"),
    [
        ("wanda", "u50", "pruned"),
        ("wanda", "2of4", "pruned"),
        ("wanda", "u30", "dense"),
        ("magnitude", "u50", "pruned"),
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma2", "qwen3", "phi3", "cohere"])
def test_masks_are_those_of_plain_passes_over_the_whole_model(
    architecture: str,
    method: str,
    pattern: str,
    propagation: Propagation,
    targets: Targets,
    tiny_model: TinyModel,
    tokens: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches of two windows. A later block sees what pruned attention gives, or dense."""
    monkeypatch.setattr(batches, "TOKENS_IN_FLIGHT", {"cpu": 40})
    folder = tiny_model(architecture)
    expected, _ = plain_prune(folder, tokens, RULES[method], pattern, targets, propagation)
    pruned = pruned_by(folder, tokens, method, pattern, targets, propagation)
    masks = masks_of(pruned)
    assert set(masks) == set(expected)
    for name, mask in expected.items():
        assert torch.equal(masks[name], mask), name
    assert pruned.hash != pruned_by(folder, tokens, method, pattern, "mlp", propagation).hash


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
@pytest.mark.parametrize("pattern", ["u50", "2of4"])
def test_sparsegpt_of_attention_is_obs_on_each_layers_own_inputs(
    architecture: str, pattern: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    folder = tiny_model(architecture)
    expected, weights = plain_prune(folder, tokens, sparsegpt, pattern, "attention")
    pruned = pruned_by(folder, tokens, "sparsegpt", pattern, "attention")
    masks = masks_of(pruned)
    assert set(masks) == set(expected) == set(pruned.values)
    for name, mask in expected.items():
        assert torch.equal(masks[name], mask), name
        torch.testing.assert_close(pruned.values[name], weights[name][mask], rtol=2e-3, atol=2e-4)


def test_replaying_dense_attention_would_be_seen(
    tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mistake that the tests above are there for changes masks from the second block on."""
    folder = tiny_model("llama")
    right = masks_of(pruned_by(folder, tokens, "wanda", "u50", "all"))

    class Always(AttentionMemory):
        def __init__(self, _block: Any, *args: Any) -> None:
            super().__init__(current[-1], *args)

    current: list[Any] = []
    find = pruning.find_targets

    def note(block: nn.Module, *args: Any) -> BlockTargets:
        current.append(block)
        return find(block, *args)

    monkeypatch.setattr(pruning, "AttentionMemory", Always)
    monkeypatch.setattr(pruning, "find_targets", note)
    wrong = masks_of(pruned_by(folder, tokens, "wanda", "u50", "all"))
    same = {name: torch.equal(mask, wrong[name]) for name, mask in right.items()}
    assert all(equal for name, equal in same.items() if ".0." in name)
    assert not all(equal for name, equal in same.items() if ".1." in name)


METHODS = [
    ("ria", {}), ("admm", {}), ("alps", {}), ("sparseswaps", {}), ("dsnot", {}), ("grouped", {}),
    ("dass", {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "arguments"), METHODS, ids=[name for name, _ in METHODS])
def test_every_method_reads_the_layers_own_inputs(
    method: str, arguments: dict[str, Any], tiny_model: TinyModel, tokens: Tensor
) -> None:
    """Of one layer as if it were a gate of these inputs; DaSS's rules are Wanda's there."""
    folder = tiny_model("llama")
    stand_in = "wanda" if method in ("dass", "grouped") else method
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    attention = model.model.layers[0].self_attn
    masks = masks_of(pruned_by(folder, tokens, method, "u50", "attention", arguments=arguments))
    for name, x in inputs_of(model, attention, tokens).items():
        own = Statistics(
            input_norm=flat(x).norm(dim=0).float(),
            input_gram=(flat(x).t() @ flat(x)).float(),
            input_mean=flat(x).mean(0).float(),
            input_variance=x.double().var(1, correction=0).mean(0).float(),
        )
        weight, pattern = getattr(attention, name).weight.data, parse_pattern("u50")
        chosen = make_method(stand_in, arguments)
        if isinstance(chosen, UpdateMethod):
            _, keep = update_of(chosen, "gate", weight, own, pattern, name)
        else:
            keep = mask_of(chosen, "gate", weight, own, pattern, name)
        same = (masks[f"model.layers.0.self_attn.{name}.weight"] == keep).float().mean()
        assert same > 0.99, name  # float32 statistics are summed in another order


# What must not change ----------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "phi3", "mixtral", "qwen2_moe"])
def test_the_first_blocks_masks_are_those_of_each_target_alone(
    architecture: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    """All of a block is scored on the dense block, bit for bit as it is alone."""
    folder = tiny_model(architecture)
    of: dict[Any, dict[str, Tensor]] = {
        targets: masks_of(pruned_by(folder, tokens, "wanda", "2of4", targets))  # type: ignore[arg-type]
        for targets in ("mlp", "attention", "all")
    }
    assert set(of["all"]) == set(of["mlp"]) | set(of["attention"])
    assert not set(of["mlp"]) & set(of["attention"])
    alone = of["mlp"] | of["attention"]
    for name, mask in of["all"].items():
        if ".layers.0." in name:
            assert torch.equal(mask, alone[name]), name
    later = [n for n in of["all"] if ".layers.2." in n]
    assert any(not torch.equal(of["all"][n], alone[n]) for n in later)


@pytest.mark.parametrize("targets", ["attention", "all"])
@pytest.mark.parametrize("architecture", ["llama", "cohere", "mixtral"])
def test_one_pass_goes_no_further_than_it_must(
    architecture: str, targets: Targets, tiny_model: TinyModel, tokens: Tensor
) -> None:
    """q, k and v share what their input yields; no hook is left."""
    model = StreamedModel(tiny_model(architecture), torch.float32)
    needs: frozenset[Need] = frozenset({"intermediate_norm", "input_gram"})
    with torch.inference_mode(), model.block(0) as block:
        found = find_targets(block, "b", targets)
        ran: list[str] = []
        for name, layer in block.named_modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(lambda *_, name=name: ran.append(name))
        statistics = BlockStatistics.collected(
            block, found.glus, batches_of(model, tokens), 0, needs, found.linears
        )
        own = {one.parameter.split(".")[1]: statistics.of_linear(one) for one in found.linears}
        assert own["q_proj"] is own["k_proj"] is own["v_proj"] is not own["o_proj"]
        assert own["q_proj"].get("input_norm").shape == (32,)
        assert own["o_proj"].get("input_gram").shape == (32, 32)
        assert not any(module._forward_pre_hooks for module in block.modules())
    attended = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}
    if targets == "attention":
        assert set(ran) == attended
    else:
        assert attended | {"self_attn.o_proj"} <= set(ran)
        assert "mlp.down_proj" not in ran


def test_a_layer_that_no_token_reaches_is_refused(
    tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)
    with torch.inference_mode(), model.block(0) as block:
        monkeypatch.setitem(block.self_attn._modules, "spare_proj", nn.Linear(32, 32, bias=False))
        found = find_targets(block, "b", "attention")
        statistics = BlockStatistics.collected(
            block, (), batches_of(model, tokens), 0, frozenset({"input_norm"}), found.linears
        )
        said = r"^self_attn\.spare_proj\.weight: a layer of attention that no token reaches; set "
        with pytest.raises(ModelError, match=said):
            statistics.of_linear(found.linears[-1])
        monkeypatch.undo()


# The file, and what is made of it ----------------------------------------------------------------


def saved(folder: Path, tokens: Tensor, method: str, targets: Targets, out: Path) -> PrunedFile:
    pruned = pruned_by(folder, tokens, method, "u50", targets)
    save_pruned(out, pruned.masks, pruned.values, pruned.shapes, {"targets": targets})
    return PrunedFile(out)


@pytest.mark.parametrize("targets", ["attention", "all"])
@pytest.mark.parametrize(
    ("architecture", "method"), [("llama", "sparsegpt"), ("phi3", "wanda"), ("mixtral", "wanda")]
)
def test_the_export_is_the_pruned_model(
    architecture: str,
    method: str,
    targets: Targets,
    tiny_model: TinyModel,
    tokens: Tensor,
    tmp_path: Path,
) -> None:
    """Only what was asked for has changed; transformers computes what the streamed model does."""
    folder = tiny_model(architecture)
    file = saved(folder, tokens, method, targets, tmp_path / "pruned")
    export_checkpoint(folder, tmp_path / "pruned", tmp_path / "out", torch.float32)
    dense, sparse = load_file(folder / SINGLE), load_file(tmp_path / "out" / SINGLE)
    assert set(dense) == set(sparse)
    changed = {name for name, one in dense.items() if not torch.equal(one, sparse[name])}
    assert changed
    attention = {name for name in changed if "self_attn" in name}
    assert attention == {n for n in dense if "self_attn" in n and dense[n].dim() == 2}
    assert bool(changed - attention) == (targets == "all")
    for name in attention:
        assert torch.equal(sparse[name] != 0, file.mask(name))
    pruned = StreamedModel(folder, torch.float32, overlay=file)
    logits = whole_logits(tmp_path / "out", tokens)
    torch.testing.assert_close(streamed_logits(pruned, tokens), logits, rtol=1e-4, atol=1e-5)


def test_a_file_fits_the_targets_that_its_settings_name(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    folder = tiny_model("llama")
    model, source = StreamedModel(folder, torch.float32), {"weights": "w"}
    files = {
        targets: saved(folder, tokens, "wanda", targets, tmp_path / targets)
        for targets in ("mlp", "attention", "all")
    }
    for file in files.values():
        file.check_fits(model, source)
    pruned = pruned_by(folder, tokens, "wanda", "u50", "all")
    lying = tmp_path / "lying"
    save_pruned(lying, pruned.masks, {}, pruned.shapes, {"targets": "attention"})
    with pytest.raises(ModelError, match=r"it prunes model\.layers\.0\.mlp\.down_proj\.weight"):
        PrunedFile(lying).check_fits(model, source)
    save_pruned(lying, pruned.masks, {}, pruned.shapes, {})  # as files were before
    with pytest.raises(ModelError, match=r"it prunes model\.layers\.0\.self_attn"):
        PrunedFile(lying).check_fits(model, source)
    said = rf"^{tmp_path}/all: of `targets: all`, but only masks of gated MLPs can be given; give "
    with pytest.raises(ModelError, match=said):
        given_masks(str(tmp_path / "all"), model).check(model, source)


def test_block_errors_of_both_and_of_attention_alone(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    folder = tiny_model("llama")
    dense = StreamedModel(folder, torch.float32)
    errors = {}
    for targets in ("mlp", "all", "attention"):
        file = saved(folder, tokens, "wanda", targets, tmp_path / targets)  # type: ignore[arg-type]
        other = StreamedModel(folder, torch.float32, overlay=file)
        errors[targets] = block_errors(dense, other, tokens)
    for mlp, both, attention in zip(*errors.values(), strict=True):
        assert both.hidden > mlp.hidden > 0 < attention.hidden
        assert (both.glu > 0, attention.glu) == (True, 0)
    said = rf"^{tmp_path}/attention: prunes no gated MLP \(targets: attention\); leave it out of "
    with pytest.raises(ModelError, match=said):
        kept_shares(dense, file, [torch.arange(64.0)] * 3, "norms")


@pytest.mark.parametrize("propagation", ["pruned", "dense"])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_resumed_is_never_killed(
    method: str, propagation: Propagation, tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    """A job that finds the first block done prunes the others to the same bits."""
    folder = tiny_model("phi3")
    whole = pruned_by(folder, tokens, method, "u50", "all", propagation)

    class Killed(BaseException):
        pass

    class Dying(BlockCheckpoints):
        def save(self, block: int, *args: Any) -> None:
            super().save(block, *args)
            if block == 0:
                raise Killed

    about = {"targets": "all"}
    with pytest.raises(Killed):
        pruned_by(folder, tokens, method, "u50", "all", propagation, Dying(tmp_path / "b", about))
    blocks = BlockCheckpoints(tmp_path / "b", about)
    assert blocks.done == 1
    resumed = pruned_by(folder, tokens, method, "u50", "all", propagation, blocks)
    blocks.join(tmp_path / "file", 3, about)
    file = PrunedFile(tmp_path / "file")
    assert (file.hash(), resumed.sparsity) == (whole.hash, whole.sparsity)
    for name, values in whole.values.items():
        dense = torch.zeros(whole.shapes[name])
        assert torch.equal(file(name, dense)[file.mask(name)], values)


# Custom methods ----------------------------------------------------------------------------------


class Gates:
    """Knows the projections of a GLU and nothing else."""

    needs: frozenset[Need] = frozenset({"intermediate_norm"})

    def comparison(self, role: Role) -> Comparison:
        return {"gate": Comparison("row", "input"), "up": Comparison("row", "input"),
                "down": Comparison("row", "input")}[role]  # type: ignore[index]  # fmt: skip

    def score(self, role: Role, weight: Tensor, statistics: Statistics) -> Tensor:
        return weight.abs()


class Intermediate(Gates):
    """Asks for the intermediate activation, whatever the role."""

    def comparison(self, role: Role) -> Comparison:
        return Comparison("row", "input")

    def score(self, role: Role, weight: Tensor, statistics: Statistics) -> Tensor:
        return weight.abs() * statistics.get("intermediate_norm").mean()


def test_a_custom_method_that_knows_glus_only(tiny_model: TinyModel, tokens: Tensor) -> None:
    model, pattern = StreamedModel(tiny_model("llama"), torch.float32), parse_pattern("u50")
    assert len(prune(model, tokens, Gates(), pattern).masks) == 9
    said = r"^linear: comparison\(\) of method .*:Gates failed \(KeyError: 'linear'; .*\); correct"
    with pytest.raises(ConfigError, match=said):
        prune(model, tokens, Gates(), pattern, targets="all")
    said = (
        r"^model\.layers\.0\.self_attn\.q_proj\.weight: score\(\) of method .*:Intermediate failed "
        r"\(LookupError: intermediate_norm was not collected: .* \(a layer outside a GLU has that "
        r"of its input only\); .*\); correct the method$"
    )
    with pytest.raises(ConfigError, match=said):
        prune(model, tokens, Intermediate(), pattern, targets="attention")


def test_groups_must_fit_attention_before_any_work(
    tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dass.pruning.prune.batches_of", lambda *_: pytest.fail("work"))
    with pytest.raises(PatternError, match=r"^llama, block 0, self_attn\.q_proj\.weight: "):
        pruned_by(tiny_model("llama"), tokens, "wanda", "12of24", "attention")
