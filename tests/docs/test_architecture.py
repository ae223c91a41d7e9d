"""The steps of CONTRIBUTING.md, "An architecture", for one that is made up here."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.auto import modeling_auto

from dass.errors import ModelError
from dass.models import glu
from dass.models.streamed import StreamedModel
from tests import conftest
from tests.conftest import TinyModel
from tests.unit.models import test_architectures

from .pages import ROOT

NAMES = ("opens", "lifts", "lands")


class MadeUpConfig(LlamaConfig):
    model_type = "made_up"


class MadeUpMLP(nn.Module):
    """A gated MLP whose projections are called as nobody else calls them."""

    def __init__(self, config: MadeUpConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.opens, self.lifts = (nn.Linear(hidden, inner, bias=False) for _ in range(2))
        self.lands = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lands(nn.functional.silu(self.opens(x)) * self.lifts(x))


class MadeUpForCausalLM(LlamaForCausalLM):
    config_class = MadeUpConfig

    def __init__(self, config: MadeUpConfig) -> None:
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = MadeUpMLP(config)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers knows the architecture; nothing here does."""
    transformers.AutoConfig.register("made_up", MadeUpConfig, exist_ok=True)
    transformers.AutoModelForCausalLM.register(MadeUpConfig, MadeUpForCausalLM, exist_ok=True)
    names = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    monkeypatch.setitem(names, "made_up", "MadeUpForCausalLM")
    monkeypatch.setattr(sys.modules["transformers"], "MadeUpConfig", MadeUpConfig, raising=False)


def test_the_section_names_the_places() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    section = re.split(r"^## ", page.split("## An architecture\n")[1], flags=re.MULTILINE)[0]
    for place in ("SEPARATE", "MORE", "docs/architectures.md", "test_architectures.py"):
        assert place in section


def test_an_architecture_is_two_entries_and_a_row(
    made_up: None, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = {"class": "MadeUpConfig", "num_key_value_heads": 4}
    monkeypatch.setitem(conftest.MORE, "made_up", entry)
    folder = tiny_model("made_up")
    with pytest.raises(ModelError, match="no gated MLP"):
        StreamedModel(folder, torch.float32)
    monkeypatch.setattr(glu, "SEPARATE", (*glu.SEPARATE, NAMES))
    tokens = torch.randint(3, 128, (6, 20), generator=torch.Generator().manual_seed(7))
    test_architectures.test_gate_is_what_the_activation_is_applied_to("made_up", tiny_model, tokens)
    test_architectures.test_from_pruning_to_a_reloaded_export(
        "made_up", tiny_model, tokens, tmp_path
    )
