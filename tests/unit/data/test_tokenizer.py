"""A tokenizer with its own defaults, or a line that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from dass.data.tokenizer import encoder, load_tokenizer
from dass.errors import DataError


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    """A tokenizer that puts <s> in front and takes 8 tokens at most, if one lets it."""
    vocabulary = {"<unk>": 0, "<s>": 1, "a": 2, "b": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>", model_max_length=8
    )
    fast.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_encoding_keeps_bos_and_cuts_nothing(
    tokenizer_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    tokens = encoder(tokenizer)("a b " * 50)
    assert tokens == [1] + [2, 3] * 50
    assert tokenizer.bos_token_id == 1
    assert not caplog.records


def test_a_folder_without_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"no usable tokenizer") as error:
            load_tokenizer(folder)
        assert str(error.value).startswith(str(folder))
        assert "\n" not in str(error.value)
