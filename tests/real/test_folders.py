"""Folders of real models, changed as published ones are: transformers' perplexity, or refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from dass.data.documents import read_rows
from dass.data.model_folder import SINGLE, check_folder
from dass.data.tokenizer import departures, encoder, load_tokenizer
from dass.data.windows import cut_windows, tokenise
from dass.errors import ModelError
from dass.evaluation.perplexity import measure_perplexity
from dass.models.streamed import StreamedModel

pytestmark = pytest.mark.real

LENGTH, WINDOWS = 256, 8


def copy(real: Path, model: str, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A folder that may be changed, and all its tensors."""
    folder = tmp_path / model
    folder.mkdir()
    for file in (real / "models" / model).iterdir():
        shutil.copyfile(file, folder / file.name)
    shards = sorted(folder.glob("*.safetensors"))
    return folder, {name: t for shard in shards for name, t in load_file(shard).items()}


def save_single(folder: Path, tensors: dict[str, Tensor]) -> None:
    """All tensors in one file, and nothing beside it."""
    for file in folder.glob("model*"):
        file.unlink()
    save_file(tensors, folder / SINGLE, {"format": "pt"})


def windows_of(real: Path, folder: Path) -> Tensor:
    rows = read_rows(real / "wikitext-2/validation.txt", rows="file")
    tokens = tokenise(rows, encoder(load_tokenizer(folder)), "text", 1)
    return cut_windows(tokens, LENGTH, "text", 1, "validation")[:WINDOWS]


def measured(real: Path, folder: Path) -> float:
    model = StreamedModel(folder, torch.bfloat16, resident=True)
    return measure_perplexity(model, windows_of(real, folder)).perplexity


def by_transformers(real: Path, folder: Path) -> float:
    """The same windows through a whole model, one after another."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    losses = []
    for window in windows_of(real, folder):
        with torch.inference_mode():
            logits = model(input_ids=window[None]).logits[0, :-1].float()
        losses.append(nn.functional.cross_entropy(logits, window[1:]).double())
    return math.exp(float(torch.stack(losses).mean()))


@pytest.mark.parametrize("scale", ["weight_scale", "weight_scale_inv", "SCB", ""])
def test_quantised_weights_are_refused(real: Path, tmp_path: Path, scale: str) -> None:
    """Read as if they were weights, float8 would give a perplexity a hundred times as large."""
    folder, tensors = copy(real, "real-llama", tmp_path)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        largest = tensors[name].abs().max().float()
        stored = torch.int8 if scale == "SCB" else torch.float8_e4m3fn
        top = 127 if scale == "SCB" else 448
        tensors[name] = (tensors[name].float() / largest * top).to(stored)
        if scale:
            tensors[name.replace("weight", scale)] = largest[None]
    save_single(folder, tensors)
    with pytest.raises(ModelError, match=r"a quantised checkpoint cannot be pruned"):
        check_folder(folder)
    with pytest.raises(ModelError, match=r"a quantised checkpoint cannot be pruned"):
        StreamedModel(folder, torch.bfloat16)


def test_a_newer_single_file_beside_an_index(real: Path, tmp_path: Path) -> None:
    folder, tensors = copy(real, "real-llama", tmp_path)
    before = measured(real, folder)
    assert before == pytest.approx(by_transformers(real, folder), rel=1e-3)
    tensors["lm_head.weight"] = tensors["lm_head.weight"] * 0.5
    save_file(tensors, folder / SINGLE, {"format": "pt"})
    after = measured(real, folder)
    assert after == pytest.approx(by_transformers(real, folder), rel=1e-3)
    assert after > 1.1 * before


def test_a_tied_model_that_stores_its_head_only(real: Path, tmp_path: Path) -> None:
    folder, tensors = copy(real, "real-gemma", tmp_path)
    before = measured(real, folder)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_single(folder, tensors)
    assert measured(real, folder) == before
    assert before == pytest.approx(by_transformers(real, folder), rel=1e-3)


@pytest.mark.parametrize("model", ["real-llama", "real-mistral", "real-gemma"])
def test_a_shorter_model_is_not_run(real: Path, tmp_path: Path, model: str) -> None:
    folder, _ = copy(real, model, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    check_folder(folder)
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(ModelError, match=r"num_hidden_layers is 4, .* hold model\.layers\.4\."):
        check_folder(folder)


def test_a_tokenizer_that_appends_eos_changes_nothing(real: Path, tmp_path: Path) -> None:
    folder, _ = copy(real, "real-llama", tmp_path)
    before = windows_of(real, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    content["post_processor"]["special_tokens"]["</s>"] = {
        "id": "</s>", "ids": [2], "tokens": ["</s>"],
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert AutoTokenizer.from_pretrained(folder)("It rained.")["input_ids"][-1] == 2
    tokenizer = load_tokenizer(folder)
    assert tokenizer("It rained.")["input_ids"][-1] != 2
    assert departures(tokenizer) == {"tokens_taken_off": "</s>"}
    assert torch.equal(windows_of(real, folder), before)
