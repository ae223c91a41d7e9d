"""Finding the GLU, proved against the model's own forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dass.errors import ModelError
from dass.models.glu import common_module, find_glu, find_glus, glus_of
from tests.conftest import EXPERTS, SUPPORTED, TinyModel, build_model


def blocks_of(architecture: str) -> Any:
    return build_model(architecture).model.layers


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_roles_rows_and_names_are_those_of_the_models_own_forward(architecture: str) -> None:
    """down(act(gate(x)) · up(x)) from the found weights is what the block's MLP computes."""
    model = build_model(architecture)
    block = model.model.layers[1]
    glu = find_glu(block, "here")
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    act = nn.functional.gelu if "gemma" in architecture else nn.functional.silu
    kind = {"approximate": "tanh"} if "gemma" in architecture else {}

    def by_hand(first: Tensor, second: Tensor) -> Tensor:
        return (act(x @ first.t(), **kind) * (x @ second.t())) @ glu.down.weight.t()

    with torch.no_grad():
        theirs = block.mlp(x)
        torch.testing.assert_close(by_hand(glu.gate.weight, glu.up.weight), theirs)
        swapped = by_hand(glu.up.weight, glu.gate.weight)
    assert not torch.allclose(swapped, theirs, atol=1e-3)
    assert [p.role for p in glu.projections] == ["gate", "up", "down"]
    assert [tuple(p.weight.shape) for p in glu.projections] == [(64, 32), (64, 32), (32, 64)]
    assert glu.intermediate_size == 64
    parameters = dict(block.named_parameters())
    for projection in glu.projections:
        assert parameters[projection.parameter] is projection.linear.weight
    assert (glu.name, glu.expert, glu.is_routed) == ("mlp", None, False)


def test_separate_parameters_have_a_name_each() -> None:
    glu = find_glu(blocks_of("llama")[0], "here")
    names = ("mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight")
    assert glu.parameters == names
    assert tuple(p.name for p in glu.projections) == names


def test_fused_parameters_are_named_once_and_told_apart_in_errors() -> None:
    glu = find_glu(blocks_of("phi3")[0], "here")
    assert glu.parameters == ("mlp.gate_up_proj.weight", "mlp.down_proj.weight")
    assert [p.name for p in glu.projections] == [
        "mlp.gate_up_proj.weight (gate)",
        "mlp.gate_up_proj.weight (up)",
        "mlp.down_proj.weight",
    ]


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_writing_to_a_projection_changes_the_layer_and_nothing_else(architecture: str) -> None:
    block = blocks_of(architecture)[0]
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    up = find_glu(block, "here").up
    up.weight.zero_()
    after = block.state_dict()
    assert [n for n in before if not torch.equal(before[n], after[n])] == [up.parameter]
    if architecture == "phi3":
        assert torch.equal(after[up.parameter][:64], before[up.parameter][:64])
        assert (after[up.parameter][64:] == 0).all()


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_weights_need_no_storage(architecture: str) -> None:
    glu = find_glu(blocks_of(architecture)[0].to("meta"), "here")
    assert [tuple(p.weight.shape) for p in glu.projections] == [(64, 32), (64, 32), (32, 64)]


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        ("opt", "no gated MLP"),
        ("gpt2", "no gated MLP"),
        ("mixtral", "4 gated MLPs in one block"),
    ],
)
def test_models_without_one_glu_a_block_are_refused(architecture: str, says: str) -> None:
    model = build_model(architecture)
    block = next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == 3)[0]
    with pytest.raises(ModelError, match=rf"^tiny, block 0\b.*{says}") as error:
        find_glu(block, "tiny, block 0")
    assert "\n" not in str(error.value)


def test_several_glus_in_a_block_are_refused() -> None:
    block = nn.ModuleDict({"a": blocks_of("llama")[0].mlp, "b": blocks_of("llama")[0].mlp})
    with pytest.raises(ModelError, match=r"^here: 2 gated MLPs in one block[^\n]*$"):
        find_glu(block, "here")


def test_projections_of_other_sizes_are_no_glu() -> None:
    """A shared name is not enough: gate must have a row for each column of down."""
    mlp = nn.ModuleDict(
        {"gate_proj": nn.Linear(8, 12), "up_proj": nn.Linear(8, 16), "down_proj": nn.Linear(16, 8)}
    )
    with pytest.raises(ModelError, match="no gated MLP"):
        find_glu(mlp, "here")


def test_the_refused_are_refused_before_any_weight_is_read(tiny_model: TinyModel) -> None:
    from dass.models.streamed import StreamedModel

    for architecture in ("opt", "gpt2", "gpt_oss"):
        with pytest.raises(ModelError, match=rf"^{architecture}, block 0"):
            StreamedModel(tiny_model(architecture), torch.float32)


# Mixtures of experts --------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", EXPERTS)
def test_each_expert_computes_what_the_model_does_with_its_slices(architecture: str) -> None:
    """All experts, each with a random weight, by the found matrices one after the other."""
    block = blocks_of(architecture)[2]
    glus = [glu for glu in find_glus(block, "here") if glu.is_routed]
    assert [glu.expert for glu in glus] == [0, 1, 2, 3]
    module = block.get_submodule(glus[0].path)
    generator = torch.Generator().manual_seed(0)
    x, share = torch.randn(5, 32, generator=generator), torch.rand(5, 4, generator=generator)
    wanted = torch.zeros(5, 32)
    for glu, weight in zip(glus, share.t(), strict=True):
        z = nn.functional.silu(x @ glu.gate.weight.t()) * (x @ glu.up.weight.t())
        wanted += weight[:, None] * (z @ glu.down.weight.t())
    with torch.no_grad():
        torch.testing.assert_close(module(x, torch.arange(4).repeat(5, 1), share), wanted)
    assert glus[3].name == f"{glus[3].path}.3"
    assert glus[3].gate.name == f"{glus[3].path}.gate_up_proj.3 (gate)"
    assert glus[3].matrices == tuple(f"{name}.3" for name in glus[3].parameters)


def test_writing_to_an_expert_changes_its_slice_and_nothing_else() -> None:
    block = blocks_of("qwen2_moe")[0]
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    find_glus(block, "here")[2].up.weight.zero_()
    after = block.state_dict()
    name = "mlp.experts.gate_up_proj"
    assert [n for n in before if not torch.equal(before[n], after[n])] == [name]
    assert (after[name][2, 32:] == 0).all()
    before[name][2, 32:] = 0
    assert torch.equal(after[name], before[name])


class Mixture(nn.Module):
    """Experts that are modules of their own, as models outside transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(blocks_of("llama")[0].mlp for _ in range(2))


def test_experts_may_be_modules_of_their_own_beside_a_shared_one() -> None:
    block = nn.ModuleDict({"mlp": Mixture(), "shared": blocks_of("phi3")[0].mlp})
    glus = find_glus(block, "here")
    assert [glu.name for glu in glus] == ["mlp.experts.0", "mlp.experts.1", "shared"]
    assert [glu.is_routed for glu in glus] == [True, True, False]
    assert glus[1].down.matrix == "mlp.experts.1.down_proj.weight"
    assert common_module(block, glus) is block
    assert common_module(block, glus[:2]) is block["mlp"]  # the list itself is never called
    assert common_module(block, glus[1:2]) is block["mlp"].experts[1]


@pytest.mark.parametrize(
    ("key", "value"),
    [("is_transposed", True), ("is_concatenated", False), ("has_bias", True), ("has_gate", False),
     ("has_post_expert_norm", True), ("has_gate", None), ("act_fn", nn.Identity()),
     ("_apply_gate", lambda x: nn.functional.silu(x[:, :4].clamp(max=7)) * x[:, 4:])],
)  # fmt: skip
def test_experts_of_another_form_are_refused(key: str, value: Any) -> None:
    """They have parameters of the same names and shapes, and compute something else."""
    block = blocks_of("mixtral")[0]
    if key == "act_fn":
        block.mlp.experts._apply_gate = lambda x: nn.functional.silu(x[:, :4]) * x[:, 4:]
    setattr(block.mlp.experts, key, value)
    with pytest.raises(ModelError, match=r"^here: a mixture .* mlp\.experts\.gate_up_proj is not"):
        find_glus(block, "here")


def test_other_parameters_of_experts_are_refused() -> None:
    block = blocks_of("mixtral")[0]
    block.mlp.experts.scale = nn.Parameter(torch.ones(4))
    with pytest.raises(ModelError, match=r"mlp\.experts\.[a-z_]+ is not understood"):
        find_glus(block, "here")


def test_a_model_needs_a_glu_in_some_block() -> None:
    plain, llama = nn.Linear(2, 2), blocks_of("llama")[0]
    assert [len(own) for own in glus_of([plain, llama], "tiny")] == [0, 1]
    with pytest.raises(ModelError, match=r"^tiny, block 0 \(Linear\): no gated MLP"):
        glus_of([plain, plain], "tiny")
