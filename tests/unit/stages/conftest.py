"""A tiny model with a tokenizer of words."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.conftest import TinyModel
from tests.unit.stages.pipeline import Pipeline


@pytest.fixture(scope="session")
def save_words() -> Callable[[Path], None]:
    """Gives a model folder a tokenizer: a word ``w7`` is token 7, and <s> (1) comes in front."""

    def save(folder: Path) -> None:
        words = {"<unk>": 0, "<s>": 1} | {f"w{i}": i for i in range(2, 128)}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)

    return save


@pytest.fixture
def folder(tiny_model: TinyModel, tmp_path: Path, save_words: Callable[[Path], None]) -> Path:
    """The tiny Llama with that tokenizer."""
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "tiny"))
    save_words(folder)
    return folder


@pytest.fixture
def pipeline(folder: Path, tmp_path: Path) -> Pipeline:
    """The stages on that model, with data of random words."""
    made = Pipeline(folder, tmp_path / "work")
    made.write_data()
    return made
