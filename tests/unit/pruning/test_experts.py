"""Mixtures of experts from end to end, against whole models that run their experts one by one.

The slow side is transformers' own forward: every product with a weight goes through
``torch.nn.functional.linear``, where what goes in is noted by the weight that it meets.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from dass.data.model_folder import SINGLE
from dass.errors import ModelError
from dass.evaluation.block_errors import block_errors, kept_shares
from dass.evaluation.perplexity import measure_perplexity
from dass.models.batches import batches_of
from dass.models.glu import GLU, find_glus
from dass.models.streamed import StreamedModel
from dass.pruning.activations import activation_norms
from dass.pruning.block_statistics import BlockStatistics
from dass.pruning.export import export_checkpoint
from dass.pruning.masks import keep_mask
from dass.pruning.method import Need, ScoreMethod, Statistics
from dass.pruning.method_checks import comparison_of
from dass.pruning.methods import make_method
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned import Pruned
from dass.pruning.pruned_file import PrunedFile, save_pruned, unpack
from dass.pruning.resume import BlockCheckpoints
from tests.conftest import (
    EXPERTS,
    MORE_EXPERTS,
    TinyModel,
    build_model,
    streamed_logits,
    whole_logits,
)

NORMS: frozenset[Need] = frozenset({"input_norm", "intermediate_norm"})
ALL: frozenset[Need] = NORMS | {"input_gram", "intermediate_gram"}


def whole(folder: Path, dtype: torch.dtype = torch.float64) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, experts_implementation="eager"
    ).eval()


def inputs_by_weight(
    model: Any, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Tensor], Tensor]:
    """Runs the whole model; tells what met a weight [out, in] in it: float64 [tokens, in]."""
    seen: dict[int, list[Tensor]] = {}
    own = nn.functional.linear

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        seen.setdefault(weight.data_ptr(), []).append(x.detach().flatten(0, -2).double())
        return own(x, weight, bias)

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(nn.functional, "linear", linear)
        model(input_ids=tokens, use_cache=False)
    return lambda weight: torch.cat(
        [torch.zeros(0, weight.shape[1]).double(), *seen.get(weight.data_ptr(), [])]
    )


def expected(glu: GLU, met: Callable[[Tensor], Tensor]) -> Statistics:
    """A GLU's statistics by definition, float64; of no token: norms 1, Gram matrices I."""
    x, z = met(glu.gate.whole), met(glu.down.whole)
    assert len(x) == len(z)
    if not len(x):
        hidden, neurons = x.shape[1], z.shape[1]
        ones, eye = torch.ones, torch.eye
        return Statistics(ones(hidden), ones(neurons), eye(hidden), eye(neurons))
    grams = [sum(torch.outer(row, row) for row in rows) for rows in (x, z)]
    return Statistics(*(rows.square().sum(0).sqrt() for rows in (x, z)), *grams)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", [*EXPERTS, *MORE_EXPERTS])
def test_statistics_are_those_of_each_experts_own_tokens(
    architecture: str, tiny_model: TinyModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_model(architecture)
    slow, model = whole(folder), StreamedModel(folder, torch.float32)
    met = inputs_by_weight(slow, tokens, monkeypatch)
    batches = [*batches_of(model, tokens[:4]), *batches_of(model, tokens[4:])]
    for index, layer in enumerate(slow.model.layers):
        with torch.inference_mode(), model.block(index) as block:
            glus = find_glus(block, "here")
            found = BlockStatistics.collected(block, glus, batches, index, ALL)
            assert not any(module._forward_pre_hooks for module in block.modules())
            for glu, its in zip(glus, find_glus(layer, "there"), strict=True):
                ours, theirs = found.of(glu), expected(its, met)
                for need in sorted(ALL):
                    exact = theirs.get(need).double()
                    rounding = 2e-5 * float(exact.abs().max())  # of float32, several blocks deep
                    torch.testing.assert_close(
                        ours.get(need).double(), exact, rtol=1e-4, atol=rounding
                    )
                if glu.is_routed:
                    assert found.tokens[glu.name] == len(met(its.gate.whole))
            for batch in batches:
                batch.advance(block, index)


def slowly_pruned(
    model: Any, tokens: Tensor, function: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Tensor]:
    """Prunes a whole model block after block, matrix after matrix: matrix name -> mask."""
    method, wanted = make_method(function, {}), parse_pattern(pattern)
    masks: dict[str, Tensor] = {}
    for index, layer in enumerate(model.model.layers):
        met = inputs_by_weight(model, tokens, monkeypatch)
        glus = find_glus(layer, "there")
        # All of a block's statistics come from the dense block.
        found = [(glu, expected(glu, met)) for glu in glus]
        for glu, statistics in found:
            for projection in glu.projections:
                weight, role = projection.weight, projection.role
                if isinstance(method, ScoreMethod):
                    scores = method.score(role, weight, statistics)
                    mask = keep_mask(scores.float(), wanted, *comparison_of(method, role), "w")
                    updated = weight * mask
                else:
                    updated, mask = method.update(role, weight, statistics, wanted, "w")
                name = f"model.layers.{index}.{projection.matrix}"
                whole = masks.setdefault(name, torch.ones_like(projection.whole).bool())
                whole[projection.rows] = mask
                weight.copy_(updated * mask)
    return masks


def pruned_of(folder: Path, tokens: Tensor, function: str, pattern: str) -> Pruned:
    model = StreamedModel(folder, torch.float32)
    return prune(model, tokens, make_method(function, {}), parse_pattern(pattern))


def in_one_file(architecture: str, folder: Path) -> Path:
    """The model with its parameters stored as it has them: all experts in one tensor."""
    model = build_model(architecture)
    model.config.save_pretrained(folder)
    tensors = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    return folder


METHODS = ("magnitude", "wanda", "sparsegpt", "dass")
IN_TURN = [
    (architecture, function, ("2of4", "u50")[(first + second) % 2])
    for first, architecture in enumerate(EXPERTS)
    for second, function in enumerate(METHODS)
]
"""Every architecture by every method, to one of two patterns."""


@pytest.mark.parametrize(
    ("architecture", "function", "pattern"),
    [*IN_TURN, *product(MORE_EXPERTS, ["dass"], ["2of4"])],
)
def test_from_pruning_to_a_reloaded_export(
    architecture: str, function: str, pattern: str, tiny_model: TinyModel, tokens: Tensor,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = tiny_model(architecture)
    dense = whole_logits(folder, tokens)
    pruned = pruned_of(folder, tokens, function, pattern)
    slow = whole(folder, torch.float32 if function == "sparsegpt" else torch.float64)
    with torch.no_grad():
        masks = slowly_pruned(slow, tokens, function, pattern, monkeypatch)
    assert set(pruned.masks) == set(masks)
    for name, mask in masks.items():
        assert torch.equal(unpack(pruned.masks[name], pruned.shapes[name]), mask), name
        assert pruned.sparsity[name] == pytest.approx(0.5)

    save_pruned(tmp_path / "pruned", pruned.masks, pruned.values, pruned.shapes, {})
    overlay = PrunedFile(tmp_path / "pruned")
    sparse = streamed_logits(StreamedModel(folder, torch.float32, overlay=overlay), tokens)
    with torch.inference_mode():
        theirs = slow(input_ids=tokens, use_cache=False).logits.float()
    torch.testing.assert_close(sparse, theirs, rtol=5e-3, atol=5e-3)
    assert not torch.allclose(sparse, dense, atol=0.1)
    overlay.check_fits(StreamedModel(folder, torch.float32), {"weights": ""})
    export_checkpoint(folder, tmp_path / "pruned", tmp_path / "out", torch.float32)
    assert load_file(tmp_path / "out" / SINGLE).keys() == load_file(folder / SINGLE).keys()
    torch.testing.assert_close(whole_logits(tmp_path / "out", tokens), sparse, rtol=1e-5, atol=1e-5)


def test_in_half_precision(tiny_model: TinyModel, tokens: Tensor, tmp_path: Path) -> None:
    """Statistics of bfloat16 activations, near those of float32; the export as the overlay."""
    folder = tiny_model("qwen2_moe")
    model = StreamedModel(folder, torch.bfloat16)
    pruned = prune(model, tokens, make_method("sparsegpt", {}), parse_pattern("2of4"))
    exact = pruned_of(folder, tokens, "sparsegpt", "2of4")
    bits = [
        (unpack(one.masks[n], one.shapes[n]) for n in sorted(one.masks)) for one in (pruned, exact)
    ]
    same = torch.cat([(ours == theirs).flatten() for ours, theirs in zip(*bits, strict=True)])
    assert same.double().mean() > 0.95
    save_pruned(tmp_path / "pruned", pruned.masks, pruned.values, pruned.shapes, {})
    export_checkpoint(folder, tmp_path / "pruned", tmp_path / "out", torch.bfloat16)
    overlay = PrunedFile(tmp_path / "pruned")
    sparse = streamed_logits(StreamedModel(folder, torch.bfloat16, overlay=overlay), tokens)
    exported = whole_logits(tmp_path / "out", tokens, torch.bfloat16)
    torch.testing.assert_close(exported, sparse, rtol=0.02, atol=0.02)


def test_experts_that_are_modules_of_their_own(tiny_model: TinyModel, tokens: Tensor) -> None:
    """Each sees what it is called with; one is never called."""
    model = StreamedModel(tiny_model("llama"), torch.float32)
    kinds = [type(model.layers[0].mlp)] * 3

    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(kind(model.model.config) for kind in kinds)

        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(0, 1)
            left = flat[:, 0] > 0
            out = torch.empty_like(flat)
            out[left], out[~left] = self.experts[0](flat[left]), self.experts[2](flat[~left])
            return out.view_as(x)

    mixture, seen = Mixture().requires_grad_(False), []
    mixture.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(0, 1)))
    batches = batches_of(model, tokens)
    with torch.inference_mode(), model.block(0) as block:
        own, block.mlp = block.mlp, mixture
        glus = find_glus(block, "here")
        found = BlockStatistics.collected(block, glus, batches, 0, ALL)
        x = torch.cat(seen).double()
        left = x[:, 0] > 0
        for glu, rows in zip(glus, (x[left], x[:0], x[~left]), strict=True):
            wanted = rows.norm(dim=0) if len(rows) else torch.ones(32).double()
            torch.testing.assert_close(
                found.of(glu).get("input_norm").double(), wanted, rtol=1e-6, atol=0
            )
        block.mlp = own
    assert list(found.tokens.values()) == [int(left.sum()), 0, int((~left).sum())]
    assert list(found.tokens) == ["mlp.experts.0", "mlp.experts.1", "mlp.experts.2"]


def test_routers_and_all_else_stay_as_they_are(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    folder = tiny_model("qwen2_moe")
    pruned = pruned_of(folder, tokens, "sparsegpt", "u50")
    save_pruned(tmp_path / "pruned", pruned.masks, pruned.values, pruned.shapes, {})
    export_checkpoint(folder, tmp_path / "pruned", tmp_path / "out", torch.float32)
    before, after = load_file(folder / SINGLE), load_file(tmp_path / "out" / SINGLE)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    wanted = {name for name in before if ".experts." in name or ".shared_expert." in name}
    assert changed == wanted and len(wanted) == 3 * (4 + 1) * 3


@pytest.mark.parametrize("function", ["dass", "sparsegpt"])
@pytest.mark.parametrize("architecture", ["mixtral", "qwen2_moe", "deepseek_v3"])
def test_experts_stored_together_or_in_shards_are_the_same(
    architecture: str, function: str, tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    together = in_one_file(architecture, tmp_path / "together")
    folders = [tiny_model(architecture), tiny_model(architecture, sharded=True), together]
    assert "experts.gate_up_proj" in " ".join(load_file(together / SINGLE))
    assert "experts.gate_up_proj" not in " ".join(load_file(folders[0] / SINGLE))
    logits = []
    for number, folder in enumerate(folders):
        pruned = pruned_of(folder, tokens, function, "2of4")
        path, out = tmp_path / f"pruned{number}", tmp_path / f"out{number}"
        save_pruned(path, pruned.masks, pruned.values, pruned.shapes, {})
        export_checkpoint(folder, path, out, torch.float32)
        logits.append(whole_logits(out, tokens))
        model = StreamedModel(folder, torch.float32, overlay=PrunedFile(path))
        torch.testing.assert_close(streamed_logits(model, tokens), logits[-1], rtol=0, atol=1e-5)
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])
    names = set(load_file(tmp_path / "out2" / SINGLE))
    assert names == set(load_file(together / SINGLE))


def test_an_expert_that_no_token_reaches_is_pruned_by_the_size_of_its_weights(
    tiny_model: TinyModel, tokens: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    """A single token reaches two of the four experts of each block."""
    folder, one = tiny_model("qwen2_moe"), tokens[:1, :1]
    with caplog.at_level("INFO"):
        found = {name: pruned_of(folder, one, name, "2of4") for name in ("wanda", "sparsegpt")}
    counts = found["wanda"].expert_tokens
    assert sum(counts.values()) == 3 * 2  # one token, two experts in each of three blocks
    silent = [name for name, count in counts.items() if count == 0]
    assert len(counts) == 12 and len(silent) == 6
    assert "no token reaches 2 of its 4 experts" in caplog.text
    magnitude = pruned_of(folder, one, "magnitude", "2of4")
    assert magnitude.expert_tokens == {}
    model = StreamedModel(folder, torch.float32)
    for name in silent:
        path, _, number = name.rpartition(".")
        for part in ("gate_up_proj", "down_proj"):
            matrix = f"{path}.{part}.{number}"
            for pruned in found.values():
                assert torch.equal(pruned.masks[matrix], magnitude.masks[matrix]), matrix
            # Nothing that is kept is moved.
            index = int(path.split(".")[2])
            with model.block(index) as block:
                dense = block.get_parameter(f"mlp.experts.{part}")[int(number)]
            mask = unpack(magnitude.masks[matrix], magnitude.shapes[matrix])
            torch.testing.assert_close(found["sparsegpt"].values[matrix], dense[mask])


def test_a_killed_job_goes_on_with_experts(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    """deepseek: a dense block, then experts; the result is the same to the bit."""
    folder = tiny_model("deepseek_v3")
    method, pattern = make_method("sparsegpt", {}), parse_pattern("2of4")
    model = StreamedModel(folder, torch.float32)
    straight = prune(model, tokens, method, pattern)
    prune(model, tokens, method, pattern, BlockCheckpoints(tmp_path / "blocks", {}))
    BlockCheckpoints(tmp_path / "blocks", {}).path(2).unlink()
    resumed = BlockCheckpoints(tmp_path / "blocks", {})
    assert resumed.done == 2
    again = prune(model, tokens, method, pattern, resumed)
    assert again.expert_tokens == straight.expert_tokens != {}
    resumed.join(tmp_path / "pruned", 3, {})
    file = PrunedFile(tmp_path / "pruned")
    assert file.hash() == straight.hash
    for name, values in straight.values.items():
        assert torch.equal(file._read(f"{name}.values"), values)


def test_a_block_without_a_glu_is_left_alone(
    tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    model = StreamedModel(tiny_model("llama"), torch.float32)

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(32, 32, bias=False, device="meta")

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)  # type: ignore[no-any-return]

    model.layers[1].mlp = Plain()
    model._names[1] = sorted(model.layers[1].state_dict())
    model._empty[1] = dict(model.layers[1].state_dict())
    model._stored["model.layers.1.mlp.fc.weight"] = "model.layers.1.self_attn.q_proj.weight"
    method, pattern = make_method("dass", {}), parse_pattern("2of4")
    straight = prune(model, tokens, method, pattern)
    assert {name.split(".")[2] for name in straight.masks} == {"0", "2"}
    for _ in range(2):  # the second time all blocks are there
        checkpoints = BlockCheckpoints(tmp_path / "blocks", {})
        prune(model, tokens, method, pattern, checkpoints)
    assert checkpoints.done == 3
    checkpoints.join(tmp_path / "pruned", 3, {})
    PrunedFile(tmp_path / "pruned").check_fits(model, {"weights": ""})
    assert PrunedFile(tmp_path / "pruned").hash() == straight.hash
    with pytest.raises(ModelError, match=r"block 1: has no GLU.*leave the model out of `blocks`$"):
        activation_norms(model, tokens)


@pytest.mark.parametrize("architecture", ["mixtral", "qwen2_moe", "deepseek_v2", "granitemoe"])
def test_norms_and_block_errors(
    architecture: str, tiny_model: TinyModel, tokens: Tensor, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = tiny_model(architecture)
    dense = StreamedModel(folder, torch.float32)
    slow = whole(folder)
    met = inputs_by_weight(slow, tokens, monkeypatch)
    norms = activation_norms(dense, tokens)
    for own, layer in zip(norms, slow.model.layers, strict=True):
        glus = find_glus(layer, "there")
        x = torch.cat([met(glu.gate.whole) for glu in glus]).norm(dim=0)
        z = torch.cat([met(glu.down.whole).norm(dim=0) for glu in glus])
        torch.testing.assert_close(own.input.double(), x, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(own.intermediate.double(), z, rtol=1e-4, atol=1e-6)
    pruned = pruned_of(folder, tokens, "wanda", "u50")
    save_pruned(tmp_path / "pruned", pruned.masks, pruned.values, pruned.shapes, {})
    overlay = PrunedFile(tmp_path / "pruned")
    sparse = StreamedModel(folder, torch.float32, overlay=overlay)
    errors = block_errors(dense, sparse, tokens)
    assert all(0.05 < error.glu < 2 and 0.01 < error.hidden < 2 for error in errors)
    same = block_errors(dense, StreamedModel(folder, torch.float32), tokens)
    assert all(error.glu == error.hidden == 0 for error in same)
    kept = kept_shares(dense, overlay, [own.intermediate for own in norms], "norms")
    assert all(sum(shares) / 10 == pytest.approx(0.5, abs=0.02) for shares in kept)
    logits = whole_logits(folder, tokens).log_softmax(-1)
    losses = -logits[:, :-1].gather(2, tokens[:, 1:, None]).mean()
    assert measure_perplexity(dense, tokens).nll == pytest.approx(losses.item(), rel=1e-5)


@pytest.mark.parametrize("other", [2, 8])
def test_a_pruned_file_of_other_experts_is_refused(
    other: int, tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    pruned = pruned_of(tiny_model("mixtral"), tokens, "magnitude", "2of4")
    shapes = dict(pruned.shapes)
    for name in pruned.shapes:
        stem, _, number = name.rpartition(".")
        if other == 2 and int(number) >= 2:
            del shapes[name], pruned.masks[name]
        if other == 8:
            twin = f"{stem}.{int(number) + 4}"
            shapes[twin], pruned.masks[twin] = shapes[name], pruned.masks[name].clone()
    save_pruned(tmp_path / "pruned", pruned.masks, {}, shapes, {})
    overlay = PrunedFile(tmp_path / "pruned")
    model = StreamedModel(tiny_model("mixtral"), torch.float32)
    with pytest.raises(ModelError, match=r"made for another model.*prunes? .*_proj\.\d") as error:
        overlay.check_fits(model, {"weights": ""})
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match=rf"of {other} experts, but .* \[4, 128, 32\]; prune"):
        overlay("model.layers.0.mlp.experts.gate_up_proj", torch.zeros(4, 128, 32))
    with pytest.raises(ModelError, match=rf"prunes {other} experts of .* \[4, \d+, \d+\]$"):
        export_checkpoint(tiny_model("mixtral"), tmp_path / "pruned", tmp_path / "o", torch.float32)
