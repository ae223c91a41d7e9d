"""Calibration draws against the public recipe written out, hashes against known values."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
import torch

from dass.data.documents import Documents
from dass.data.windows import (
    cut_windows,
    draw_windows,
    put_bos_in_front,
    tokenise,
)
from dass.errors import DataError
from dass.terms import Bos


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
    with pytest.raises(
        DataError, match=r"^`bos: window`.*no BOS; set the model's `bos: text`[^\n]*$"
    ):
        put_bos_in_front(windows, None)


def encode_characters(text: str) -> list[int]:
    """BOS (1), then each character's number."""
    return [1, *map(ord, text)]


def test_rows_are_joined_with_two_newlines_and_tokenised_once() -> None:
    rows = ["ab\n", "", "c"]
    expected = [1, *map(ord, "ab\n\n\n\n\nc")]
    assert tokenise(rows, encode_characters, "text", 1).tolist() == expected
    assert tokenise(rows, encode_characters, "text", 1).dtype == torch.int64


def test_documents_are_joined_with_what_is_asked_for() -> None:
    expected = [1, *map(ord, "ab c")]
    assert tokenise(["ab", "c"], encode_characters, "text", 1, " ").tolist() == expected


def test_windows_with_a_bos_each_take_the_texts_own_off_first() -> None:
    assert tokenise(["ab"], encode_characters, "window", 1).tolist() == [97, 98]


def test_a_tokenizer_that_puts_no_bos_loses_no_token() -> None:
    assert tokenise(["ab"], lambda text: [97, 98], "window", 1).tolist() == [97, 98]
    assert tokenise(["ab"], lambda text: [], "window", 1).tolist() == []


@pytest.mark.parametrize(
    ("bos", "expected"),
    [
        ("text", [[1, 10, 11, 12], [13, 14, 15, 16]]),
        ("window", [[0, 1, 10, 11], [0, 12, 13, 14], [0, 15, 16, 17]]),
    ],
)
def test_windows_are_whole_and_the_rest_is_dropped(bos: Bos, expected: list[list[int]]) -> None:
    tokens = torch.tensor([1, 10, 11, 12, 13, 14, 15, 16, 17, 18][: 10 if bos == "window" else 9])
    assert cut_windows(tokens, 4, bos, 0, "split").tolist() == expected


@pytest.mark.parametrize(("bos", "enough"), [("text", 8), ("window", 7)])
def test_a_text_of_exactly_one_window_and_one_token_less(bos: Bos, enough: int) -> None:
    assert cut_windows(torch.arange(enough), 8, bos, 1, "x").shape == (1, 8)
    with pytest.raises(DataError) as error:
        cut_windows(torch.arange(enough - 1), 8, bos, 1, "wiki/test.txt")
    line = str(error.value)
    assert line.startswith(f"wiki/test.txt: {enough - 1} tokens")
    assert "one window of 8" in line and "perplexity.length" in line and "\n" not in line


def test_bos_in_each_window_needs_a_bos() -> None:
    with pytest.raises(DataError, match="the tokenizer has no BOS"):
        cut_windows(torch.arange(20), 4, "window", None, "x")
    assert cut_windows(torch.arange(8), 4, "text", None, "x").shape == (2, 4)
