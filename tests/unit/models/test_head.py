"""The modules behind the blocks, and models in which there is more to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dass.models.head import find_head
from dass.models.streamed import StreamedModel
from tests.conftest import EXPERTS, MORE, SUPPORTED, TinyModel

MORE_TO_IT = {
    "gemma2": "caps its logits",
    "granite": "divides them",
    "cohere": "multiplies them",
}


@pytest.mark.parametrize("architecture", [*SUPPORTED, *MORE, *EXPERTS])
def test_it_is_what_the_model_does(architecture: str, tiny_model: TinyModel) -> None:
    model = StreamedModel(tiny_model(architecture), torch.float32)
    head, model._head = model._head, None
    if architecture in MORE_TO_IT:
        assert head is None
        return
    if head is not None:
        hidden = torch.randn(7, model.hidden_size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            assert torch.equal(head(hidden), model.logits(hidden))


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma", "qwen3", "phi3"])
def test_of_most_models_it_is_a_norm_and_a_matrix(architecture: str, tiny_model: TinyModel) -> None:
    head = StreamedModel(tiny_model(architecture), torch.float32)._head
    assert head is not None
    assert [type(module).__name__.endswith("Norm") for module in head] == [True, False]


class Model(nn.Module):
    """A head, and what the test adds to it."""

    def __init__(self, before: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.before, self.norm, self.head = before, nn.LayerNorm(4), nn.Linear(4, 9)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.head(self.norm(self.before(x))))
        return out


class Times(nn.Module):
    """A product that has a child, so that it is no leaf."""

    def __init__(self, factor: float, in_place: bool = False) -> None:
        super().__init__()
        self.factor, self.in_place, self.child = factor, in_place, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.factor) if self.in_place else x * self.factor


@torch.inference_mode()
@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (nn.Identity(), nn.Dropout(), ["Identity", "LayerNorm", "Linear", "Dropout"]),
        (Times(2), nn.Identity(), None),
        (nn.Identity(), Times(2), None),
        (nn.Identity(), Times(2, in_place=True), None),
    ],
)
def test_nothing_is_left_out(before: nn.Module, after: nn.Module, found: list[str] | None) -> None:
    torch.manual_seed(0)
    model = Model(before, after).eval()
    head = find_head(model, torch.randn(3, 4), model)
    assert (head and [type(module).__name__ for module in head]) == found
