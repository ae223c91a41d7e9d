"""Every architecture of docs/architectures.md from end to end, against whole models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from dass.errors import ModelError
from dass.evaluation.perplexity import measure_perplexity
from dass.evaluation.scores import score_continuations
from dass.models.glu import find_glu
from dass.models.streamed import StreamedModel
from dass.pruning.export import export_checkpoint
from dass.pruning.methods import make_method
from dass.pruning.patterns import parse_pattern
from dass.pruning.prune import prune
from dass.pruning.pruned_file import PrunedFile, save_pruned, unpack
from tests.conftest import (
    EXPERTS,
    MORE,
    MORE_EXPERTS,
    REFUSED,
    SUPPORTED,
    TinyModel,
    streamed_logits,
    whole_logits,
)

ROOT = Path(__file__).parents[3]
EVERY = [*SUPPORTED, *MORE]


def whole(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def blocks_of(model: Any) -> nn.ModuleList:
    return next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == 3)


class Recorder:
    """What goes into and comes out of linear layers in whole forwards of a model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, tokens: Tensor, *layers: nn.Module) -> list[tuple[Tensor, Tensor]]:
        seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        hooks = [
            layer.register_forward_hook(lambda m, i, o: seen.update({m: (i[0].detach(), o)}))
            for layer in layers
        ]
        with torch.inference_mode():
            self.model(input_ids=tokens, use_cache=False)
        for hook in hooks:
            hook.remove()
        return [(x.flatten(0, -2), y.flatten(0, -2)) for x, y in (seen[m] for m in layers)]


@pytest.mark.parametrize("architecture", EVERY)
def test_gate_is_what_the_activation_is_applied_to(
    architecture: str, tiny_model: TinyModel, tokens: Tensor
) -> None:
    """The input of `down`, in the model's own forward, is act(gate(x)) · up(x)."""
    model = whole(tiny_model(architecture))
    for index, block in enumerate(blocks_of(model)):
        glu = find_glu(block, "here")
        record = Recorder(model)(tokens, glu.gate.linear, glu.up.linear, glu.down.linear)
        (_, gate), (_, up), (z, _) = record
        gate, up = gate[:, glu.gate.rows], up[:, glu.up.rows]
        kinds = [nn.functional.silu, nn.functional.gelu]
        kinds.append(lambda x: nn.functional.gelu(x, approximate="tanh"))
        errors = [(act(gate) * up - z).abs().max().item() for act in kinds]
        swapped = [(act(up) * gate - z).abs().max().item() for act in kinds]
        assert min(errors) < 1e-5 < 1e-2 < min(swapped), index


def slowly_pruned(model: Any, tokens: Tensor) -> dict[str, Tensor]:
    """DaSS 2:4 with whole forwards, block after block, group after group: parameter -> mask."""
    masks = {}
    names = {module: name for name, module in model.named_modules()}
    for block in blocks_of(model):
        glu = find_glu(block, "here")
        ((z, _),) = Recorder(model)(tokens, glu.down.linear)
        norm = z.double().square().sum(0).sqrt().float()
        for projection in glu.projections:
            weight = projection.weight
            if projection.role == "down":
                keep = best_two_of_four((weight.abs() * norm).t()).t()
            else:
                keep = best_two_of_four(weight.abs() * norm.sqrt().unsqueeze(1))
            weight.mul_(keep)
            name = f"{names[projection.linear]}.weight"
            whole = masks.setdefault(name, torch.ones_like(projection.linear.weight.data).bool())
            whole[projection.rows] = keep
    return masks


def best_two_of_four(scores: Tensor) -> Tensor:
    """Of each four consecutive rows of a column the two highest."""
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for first in range(0, len(scores), 4):
        best = scores[first : first + 4].argsort(0, descending=True)[:2]
        keep[first : first + 4].scatter_(0, best, True)
    return keep


@pytest.mark.parametrize("architecture", EVERY)
def test_from_pruning_to_a_reloaded_export(
    architecture: str, tiny_model: TinyModel, tokens: Tensor, tmp_path: Path
) -> None:
    folder = tiny_model(architecture)
    dense = StreamedModel(folder, torch.float32)
    logits = whole_logits(folder, tokens)
    torch.testing.assert_close(streamed_logits(dense, tokens), logits, rtol=1e-5, atol=1e-5)

    pruned = prune(dense, tokens, make_method("dass", {}), parse_pattern("2of4"))
    expected = slowly_pruned(model := whole(folder), tokens)
    assert set(pruned.masks) == set(expected)
    for name, mask in expected.items():
        assert torch.equal(unpack(pruned.masks[name], pruned.shapes[name]), mask), name

    save_pruned(tmp_path / "pruned", pruned.masks, pruned.values, pruned.shapes, {})
    export_checkpoint(folder, tmp_path / "pruned", tmp_path / "out", torch.float32)
    exported = whole_logits(tmp_path / "out", tokens)
    with torch.inference_mode():
        slow = model(input_ids=tokens, use_cache=False).logits
    torch.testing.assert_close(exported, slow, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(exported, logits, atol=0.1)

    sparse = StreamedModel(folder, torch.float32, overlay=PrunedFile(tmp_path / "pruned"))
    torch.testing.assert_close(streamed_logits(sparse, tokens), exported, rtol=1e-5, atol=1e-5)
    log_p = exported.log_softmax(-1)
    losses = -log_p[:, :-1].gather(2, tokens[:, 1:, None]).squeeze(2).mean(1)
    assert measure_perplexity(sparse, tokens).nll == pytest.approx(losses.mean().item(), rel=1e-5)
    requests = [(row[:12].tolist(), row[12 : 13 + n].tolist()) for n, row in enumerate(tokens)]
    wanted = [
        float(log_p[n, range(11, 12 + n), continuation].sum())
        for n, (_, continuation) in enumerate(requests)
    ]
    scores = [score for score, _ in score_continuations(sparse, requests)]
    assert scores == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("architecture", REFUSED)
def test_the_others_are_refused_in_one_line_before_any_weight_is_read(
    architecture: str, tiny_model: TinyModel
) -> None:
    experts = architecture in ("gpt_oss", "nemotron_h")
    with pytest.raises(ModelError) as error:
        StreamedModel(tiny_model(architecture), torch.float32)
    line = str(error.value)
    block = 1 if architecture == "nemotron_h" else 0
    assert line.startswith(f"{architecture}, block {block}") and "\n" not in line
    assert ("mixture of experts" if experts else "no gated MLP") in line


def test_the_page_lists_what_is_tested_here_and_nothing_else() -> None:
    page = (ROOT / "docs" / "architectures.md").read_text()
    table = page.partition("|---|")[2].partition("## Not supported")[0]
    listed = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)
    names = {"gemma3": "gemma3_text"}  # the test's name -> transformers' model_type
    assert sorted(listed) == sorted(
        names.get(name, name) for name in [*EVERY, *EXPERTS, *MORE_EXPERTS]
    )
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("architecture", [*EVERY, *EXPERTS, *MORE_EXPERTS])
def test_the_page_names_the_parts_as_the_model_does(architecture: str, tiny_model: Any) -> None:
    model = StreamedModel(tiny_model(architecture), torch.float32)
    page = (ROOT / "docs" / "architectures.md").read_text()
    names = [name.removesuffix(".weight").split(".")[-1] for name in model.glu_parameters]
    parts = ", ".join(f"`{name}`" for name in dict.fromkeys(names))
    assert f"| `{model.model.config.model_type}` | {parts} |" in page
