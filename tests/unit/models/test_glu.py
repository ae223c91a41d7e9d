"""Finding the GLU, proved against the model's own forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dass.errors import ModelError
from dass.models.glu import find_glu
from tests.conftest import SUPPORTED, TinyModel, build_model


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
        ("mixtral", "mixture of experts"),
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

    for architecture in ("opt", "gpt2", "mixtral"):
        with pytest.raises(ModelError, match=rf"^{architecture}, block 0"):
            StreamedModel(tiny_model(architecture), torch.float32)
