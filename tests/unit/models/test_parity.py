"""Perplexity from text to number against the released code's protocol, written out plainly.

The oracle joins the rows with two newlines, tokenises once, cuts whole windows, takes each
window's mean cross-entropy from a whole transformers model, and exponentiates their mean.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from dass.data.token_file import load_tokens
from dass.errors import DataError
from dass.runtime.files import read_json
from dass.stages.calibration_tokens import calibration_tokens
from dass.stages.evaluation_tokens import evaluation_tokens
from dass.stages.perplexity import perplexity
from tests.conftest import TinyModel

LENGTH = 24
TOKENIZERS = {
    "adds BOS": ("<s>", True),  # Llama, Mistral, Gemma
    "has BOS but adds none": ("<s>", False),  # SmolLM2
    "has no BOS": (None, False),  # Qwen2.5
}


def save_tokenizer(folder: Path, kind: str) -> None:
    """One token a character, newlines among them."""
    bos, adds = TOKENIZERS[kind]
    characters = ["\n", *map(chr, range(32, 127))]
    vocabulary = {"<unk>": 0, "<s>": 1} | {c: i for i, c in enumerate(characters, 2)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    if adds:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos).save_pretrained(folder)


@pytest.fixture
def rows() -> list[str]:
    """As WikiText's data set has them: headings, paragraphs, and empty rows."""
    draw = random.Random(5)
    words = ["the", "of", "pruned", "weights", "Gated", "=", "neurons", ","]
    return [
        "" if n % 3 == 0 else " ".join(draw.choices(words, k=draw.randint(1, 9))) + " \n"
        for n in range(14)
    ]


@pytest.fixture(params=TOKENIZERS)
def folder(
    request: pytest.FixtureRequest, architecture: str, tiny_model: TinyModel, tmp_path: Path
) -> Path:
    folder = Path(shutil.copytree(tiny_model(architecture), tmp_path / "tiny"))
    save_tokenizer(folder, request.param)
    return folder


def oracle(folder: Path, rows: list[str], bos_in_each: bool) -> tuple[float, int]:
    """The perplexity, and how many windows it is of."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer("\n\n".join(rows), return_tensors="pt").input_ids
    if bos_in_each:  # Gemma: each window gets its own
        ids = ids[:, 1:] if ids[0, 0] == tokenizer.bos_token_id else ids
        step = LENGTH - 1
    else:
        step = LENGTH
    losses = []
    for i in range(ids.numel() // step):
        window = ids[:, i * step : (i + 1) * step]
        if bos_in_each:
            window = torch.cat([torch.tensor([[tokenizer.bos_token_id]]), window], 1)
        with torch.no_grad():
            logits = model(window).logits
        losses.append(
            torch.nn.CrossEntropyLoss()(logits[0, :-1].float(), window[0, 1:]).item(),
        )
    return math.exp(sum(losses) / len(losses)), len(losses)


def measured(folder: Path, text: Path, bos: str, rows: str = "line") -> dict:
    out = text.parent / "tokens.safetensors"
    evaluation_tokens(
        folder=folder,
        dataset="text",
        text=text,
        rows=rows,
        splits=["test"],
        length=LENGTH,
        bos=bos,
        out=out,
    )  # type: ignore[arg-type]
    result = text.parent / "perplexity.json"
    perplexity(
        folder=folder, pruned=None, tokens=out, run="tiny/dense", dtype="float32", bos=bos,
        dataset="text", splits=["test"], result_file=result,
    )  # fmt: skip
    return read_json(result)["splits"]["test"]


@pytest.mark.parametrize("form", ["txt", "jsonl"])
@pytest.mark.parametrize("architecture", ["llama", "mistral", "olmo2", "gemma2"])
def test_perplexity_is_that_of_the_released_protocol(
    folder: Path, rows: list[str], form: str, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.mkdir()
    if form == "txt":
        (text / "test.txt").write_text("".join(row or " \n" for row in rows))  # as published
    else:
        lines = (json.dumps({"text": row}) + "\n" for row in rows)
        (text / "test.jsonl").write_text("".join(lines))
    wanted, count = oracle(folder, rows, bos_in_each=False)
    result = measured(folder, text, "text")
    assert result["windows"] == count > 5
    assert result["tokens"] == count * LENGTH
    assert result["perplexity"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("architecture", ["gemma"])
def test_with_bos_in_each_window(folder: Path, rows: list[str], tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    (text / "test.txt").write_text("".join(row or " \n" for row in rows))  # as published
    if AutoTokenizer.from_pretrained(folder).bos_token_id is None:
        with pytest.raises(DataError, match="but the tokenizer has no BOS"):
            measured(folder, text, "window")
        return
    wanted, count = oracle(folder, rows, bos_in_each=True)
    result = measured(folder, text, "window")
    assert result["windows"] == count
    assert result["perplexity"] == pytest.approx(wanted, rel=1e-5)
    assert (load_tokens(tmp_path / "tokens.safetensors")["test"][:, 0] == 1).all()


@pytest.mark.parametrize("architecture", ["llama"])
def test_calibration_windows_have_the_bos_that_the_tokenizer_puts(
    folder: Path, tmp_path: Path
) -> None:
    """Documents that are just long enough, so that every window begins its document."""
    documents = tmp_path / "documents.jsonl"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    adds = tokenizer("a").input_ids[0] == 1
    words = "pruning gated perceptrons"  # 25 characters
    text = words[: LENGTH + 1 - adds]
    documents.write_text("".join(json.dumps({"text": text}) + "\n" for _ in range(9)))
    settings = {"dataset": "words", "sequences": 4, "length": LENGTH, "seed": 0}
    out = tmp_path / "windows.safetensors"
    calibration_tokens(folder=folder, documents=documents, bos="text", out=out, **settings)
    windows = load_tokens(out)["windows"]
    assert windows.tolist() == [tokenizer(text).input_ids[:LENGTH]] * 4
    assert bool((windows == 1).any()) == adds
    if tokenizer.bos_token_id is None:
        with pytest.raises(DataError, match="but the tokenizer has no BOS"):
            calibration_tokens(
                folder=folder, documents=documents, bos="window", out=out, **settings
            )
        return
    calibration_tokens(folder=folder, documents=documents, bos="window", out=out, **settings)
    windows = load_tokens(out)["windows"]
    assert windows.shape == (4, LENGTH)
    assert windows[:, 0].tolist() == [1] * 4
    assert not (windows[:, 1:] == 1).any()
