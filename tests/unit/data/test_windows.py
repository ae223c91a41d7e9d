"""Calibration draws against the public recipe written out, hashes against known values."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import struct
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from dass.data.documents import Documents
from dass.data.windows import (
    draw_windows,
    encoder,
    load_tokenizer,
    load_tokens,
    put_bos_in_front,
    save_tokens,
    token_hash,
)
from dass.errors import DataError


def encode(text: str) -> list[int]:
    """BOS (1), then a number for each word."""
    return [1] + [int(word) for word in text.split()]


def documents_of(tmp_path: Path, lengths: list[int]) -> Documents:
    """Documents of so many words each; no two words of them are the same number."""
    path = tmp_path / "documents.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for n, length in enumerate(lengths):
            words = " ".join(str(1000 * (n + 1) + i) for i in range(length))
            file.write(json.dumps({"text": words, "url": "nowhere"}) + "\n")
    return Documents(path)


def recipe(documents: Documents, sequences: int, length: int, seed: int) -> list[list[int]]:
    """As Wanda, SparseGPT and the DaSS authors draw: the global generator, word for word."""
    random.seed(seed)
    windows = []
    for _ in range(sequences):
        while True:
            i = random.randint(0, len(documents) - 1)
            tokens = encode(documents[i])
            if len(tokens) > length:
                break
        i = random.randint(0, len(tokens) - length - 1)
        windows.append(tokens[i : i + length])
    return windows


@pytest.mark.parametrize("seed", [0, 1, 2024])
def test_draws_are_those_of_the_recipe(tmp_path: Path, seed: int) -> None:
    lengths = [5, 30, 8, 12, 40, 3, 9, 11, 25, 60, 2, 17] * 4
    documents = documents_of(tmp_path, lengths)
    windows = draw_windows(documents, encode, 20, 10, seed)
    assert windows.dtype == torch.int64
    assert windows.tolist() == recipe(documents, 20, 10, seed)


def test_draws_that_check_the_count_on_the_way_are_still_those_of_the_recipe(
    tmp_path: Path,
) -> None:
    """Half of the documents have been drawn long before the last window: they are counted then."""
    documents = documents_of(tmp_path, [30, 2, 2, 2, 30, 2, 2, 30])
    windows = draw_windows(documents, encode, 3, 10, 0)
    assert windows.tolist() == recipe(documents, 3, 10, 0)


def test_drawing_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    random.seed(5)
    expected = random.random()
    random.seed(5)
    draw_windows(documents_of(tmp_path, [30] * 6), encode, 4, 10, 0)
    assert random.random() == expected


def test_a_document_needs_more_tokens_than_a_window(tmp_path: Path) -> None:
    """With BOS: 9 words are 10 tokens, exactly a window and not usable; 10 words are enough."""
    documents = documents_of(tmp_path, [9, 10, 9, 9])
    window = draw_windows(documents, encode, 1, 10, 0).tolist()[0]
    assert window == [1, *range(2000, 2009)]  # the only offset there is


@pytest.mark.parametrize(
    ("lengths", "sequences", "usable"),
    [([3] * 8, 1, 0), ([3, 30, 3, 3, 3, 3], 2, 1), ([3, 30, 3, 3, 30, 3, 3, 3], 4, 2),
     ([30], 2, 1), ([3], 1, 0)],
)  # fmt: skip
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_too_few_usable_documents_are_counted_in_one_line(
    tmp_path: Path, lengths: list[int], sequences: int, usable: int, seed: int
) -> None:
    documents = documents_of(tmp_path, lengths)
    with pytest.raises(DataError) as error:
        draw_windows(documents, encode, sequences, 10, seed)
    line = str(error.value)
    assert line.startswith(f"{documents.path}: {usable} of {len(lengths)} documents")
    assert "more than 10 tokens" in line and f"{sequences} sequences" in line
    assert "\n" not in line


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_lack_of_one_document_is_noticed_whatever_the_seed(tmp_path: Path, seed: int) -> None:
    documents = documents_of(tmp_path, ([30] + [2] * 4) * 31)
    with pytest.raises(DataError, match="31 of 155 documents"):
        draw_windows(documents, encode, 32, 10, seed)


def test_where_there_are_plenty_they_are_never_all_tokenised(tmp_path: Path) -> None:
    """As of C4's shard, of which a few per cent are drawn."""
    documents = documents_of(tmp_path, [30, 2] * 500)
    tokenised = 0

    def counting(text: str) -> list[int]:
        nonlocal tokenised
        tokenised += 1
        return encode(text)

    draw_windows(documents, counting, 20, 10, 0)
    assert tokenised < 100


def test_bos_in_front() -> None:
    windows = torch.tensor([[5, 6], [7, 8]])
    assert put_bos_in_front(windows, 1).tolist() == [[1, 5, 6], [1, 7, 8]]
    assert put_bos_in_front(windows, 0).tolist() == [[0, 5, 6], [0, 7, 8]]
    with pytest.raises(DataError, match=r"^`bos: window`.*no BOS$"):
        put_bos_in_front(windows, None)


def test_the_hash_is_of_little_endian_int64_in_c_order() -> None:
    tokens = torch.tensor([[1, 2], [3, 70000]])
    expected = hashlib.sha256(struct.pack("<4q", 1, 2, 3, 70000)).hexdigest()
    assert token_hash(tokens) == token_hash(tokens.int()) == expected
    assert token_hash(tokens.t().contiguous().t()) == expected
    assert token_hash(tokens.t()) != expected
    zero = "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"
    assert token_hash(torch.tensor([0])) == zero  # sha256 of eight zero bytes


def test_tokens_are_saved_and_loaded(tmp_path: Path) -> None:
    tensors = {"windows": torch.tensor([[1, 255999], [0, 3]]), "more": torch.tensor([7])}
    save_tokens(tmp_path / "deep" / "tokens.safetensors", tensors)
    loaded = load_tokens(tmp_path / "deep" / "tokens.safetensors")
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == torch.int64
        assert torch.equal(loaded[name], tensor)


# The tokenizer -------------------------------------------------------------------------------


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
